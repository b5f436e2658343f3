package trust

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Keyring is what one process shows and whom it admits: its own certificate,
// the authorities of its cluster, and who was turned out. All of it may change
// while connections are made. Its methods may be called concurrently.
type Keyring struct {
	mu      sync.RWMutex
	self    Identity
	own     tls.Certificate     // guarded by mu, as all below
	cas     []*x509.Certificate // and those that vouch for one (Authority.Vouch)
	pool    *x509.CertPool      // the authorities
	revoked map[string]bool     // serial numbers
	// known is whom certificates of connections name, which is asked for at every
	// call; at most knownMax, then it begins anew.
	known map[*x509.Certificate]Peer
}

const knownMax = 1024

// NewKeyring makes a keyring of an identity file's contents (see Credentials).
func NewKeyring(credentials []byte) (*Keyring, error) {
	k := &Keyring{known: make(map[*x509.Certificate]Peer)}
	return k, k.Replace(credentials)
}

// Replace shows another certificate from now on, and trusts the authorities
// that come with it.
func (k *Keyring) Replace(credentials []byte) error {
	credentials, revoked := splitRevoked(credentials)
	certs, key, err := parsePEM(credentials)
	switch {
	case err != nil:
		return err
	case len(certs) < 2 || key == nil:
		return errors.New("trust: not an identity: a certificate, its key and an authority are needed")
	}
	own, cas := certs[0], certs[1:]
	if public, ok := own.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return errors.New("trust: the key is not the certificate's")
	}
	for _, ca := range cas {
		if !ca.IsCA {
			return errors.New("trust: a certificate that is no authority where one is needed")
		}
	}
	pool := poolOf(cas...)
	id, err := identify(certs, pool)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pool != nil && (id.Cluster != k.self.Cluster || id.Name != k.self.Name) {
		return fmt.Errorf("trust: the certificate is of %v, not of %v", id, k.self)
	}
	k.self, k.cas, k.pool = id, cas, pool
	if revoked != nil {
		k.revoked = revoked
	}
	k.own = tls.Certificate{Certificate: [][]byte{own.Raw}, PrivateKey: key, Leaf: own}
	return nil
}

// Trust replaces the authorities and the serial numbers of revoked certificates.
func (k *Keyring) Trust(authorities []byte, revoked []string) error {
	cas, key, err := parsePEM(authorities)
	switch {
	case err != nil:
		return err
	case !slices.ContainsFunc(cas, isRoot) || key != nil:
		return errors.New("trust: not a list of authorities")
	}
	out := make(map[string]bool, len(revoked))
	for _, serial := range revoked {
		out[serial] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cas, k.pool, k.revoked = cas, poolOf(cas...), out
	return nil
}

// poolOf is the authorities among certificates.
func poolOf(cas ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range cas {
		if isRoot(ca) {
			pool.AddCert(ca)
		}
	}
	return pool
}

// Self is who this process is.
func (k *Keyring) Self() Identity {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.self
}

// Serial is the serial number of the certificate that this process shows.
func (k *Keyring) Serial() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return serialOf(k.own.Leaf)
}

// Until is when that certificate is over.
func (k *Keyring) Until() time.Time {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.own.Leaf.NotAfter
}

// Issuer is the hash of the authority that signed the certificate which this
// process shows; empty if that is not trusted any more.
func (k *Keyring) Issuer() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, ca := range k.cas {
		if isRoot(ca) && k.own.Leaf.CheckSignatureFrom(ca) == nil {
			return hashOf(ca)
		}
	}
	return ""
}

// Due reports whether the certificate should be renewed by now.
func (k *Keyring) Due(now time.Time) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	leaf := k.own.Leaf
	return now.After(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3))
}

// Authorities are the certificates of those trusted, as PEM.
func (k *Keyring) Authorities() []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var text []byte
	for _, ca := range k.cas {
		text = append(text, certPEM(ca.Raw)...)
	}
	return text
}

// identify says whom the first of some certificates names if one of the pool signed
// it, or vouches for who did in one of the others.
func identify(chain []*x509.Certificate, pool *x509.CertPool) (Identity, error) {
	cert, between := chain[0], x509.NewCertPool()
	for _, ca := range chain[1:] {
		between.AddCert(ca)
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Identity{}, fmt.Errorf("%w: the certificate was good from %s to %s; is a clock wrong?", ErrRefused,
			cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
	case err != nil:
		return Identity{}, fmt.Errorf("%w: not a certificate of this cluster: %v", ErrRefused, err)
	}
	return named(cert)
}

// named says whom a certificate names, whoever signed it.
func named(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("%w: the certificate has %d identities", ErrRefused, len(cert.URIs))
	}
	return parseURI(cert.URIs[0])
}

// A Peer is who is at the other end of a connection.
type Peer struct {
	Identity
	Serial string // of its certificate
}

// Peer says who is at the other end, or refuses it.
func (k *Keyring) Peer(cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, errNoCertificate
	}
	k.mu.RLock()
	pool := k.pool
	k.mu.RUnlock()
	if _, err := identify(cs.PeerCertificates, pool); err != nil {
		return Peer{}, err
	}
	return k.Admitted(cs)
}

var errNoCertificate = fmt.Errorf("%w: no certificate was shown", ErrRefused)

// Admitted says who is at the other end of a connection that was admitted before,
// or refuses it if it was turned out since. Unlike Peer it does not look at who
// signed the certificate, so it is cheap enough for every call.
func (k *Keyring) Admitted(cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, errNoCertificate
	}
	cert := cs.PeerCertificates[0]
	k.mu.RLock()
	peer, known := k.known[cert]
	k.mu.RUnlock()
	if !known {
		id, err := named(cert)
		if err != nil {
			return Peer{}, err
		}
		peer = Peer{id, serialOf(cert)}
		k.mu.Lock()
		if len(k.known) >= knownMax {
			clear(k.known)
		}
		k.known[cert] = peer
		k.mu.Unlock()
	}
	k.mu.RLock()
	self, out := k.self, k.revoked[peer.Serial]
	k.mu.RUnlock()
	switch {
	case peer.Cluster != self.Cluster:
		return Peer{}, fmt.Errorf("%w: %v is of another cluster", ErrRefused, peer.Identity)
	case out:
		return Peer{}, fmt.Errorf("%w: the certificate of %v was revoked", ErrRefused, peer.Identity)
	}
	return peer, nil
}

// http1 is what they speak who name no protocol: HTTP is older than ALPN.
const http1 = "http/1.1"

// ServerConfig admits peers that speak one of protos (ALPN, RFC 7301), or name none if
// HTTP/1.1 is one of them, and have an identity of the cluster, anybody who speaks JoinProto alone, and to
// StandingProto alone those who were turned out too.
func (k *Keyring) ServerConfig(protos ...string) *tls.Config {
	admit := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protos,
		SessionTicketsDisabled: true, // each connection shows what is good now
		ClientAuth:             tls.RequireAnyClientCert,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.certificate(), nil },
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol == "" && !slices.Contains(protos, http1) { // crypto/tls lets some through without
				return fmt.Errorf("%w: it speaks none of %q", ErrRefused, protos)
			}
			_, err := k.Peer(cs)
			return err
		},
	}
	join := admit.Clone()
	join.NextProtos, join.ClientAuth, join.VerifyConnection = []string{JoinProto}, tls.NoClientCert, nil
	standing := admit.Clone()
	standing.NextProtos, standing.VerifyConnection = []string{StandingProto}, k.mayAsk
	config := admit.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case slices.Equal(hello.SupportedProtos, []string{JoinProto}):
			return join, nil
		case slices.Equal(hello.SupportedProtos, []string{StandingProto}):
			return standing, nil
		}
		return admit, nil
	}
	return config
}

// ClientConfig reaches a machine of the cluster: the one of that name, or any if
// it is empty.
func (k *Keyring) ClientConfig(name string, protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		// Whom a certificate names is checked below: machines are known by name, not
		// by address.
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return k.certificate(), nil },
		VerifyConnection: func(cs tls.ConnectionState) error {
			peer, err := k.Peer(cs)
			switch {
			case err != nil:
				return err
			case !peer.IsNode() || name != "" && peer.Name != name:
				return fmt.Errorf("%w: %v answers, where node %s should", ErrRefused, peer.Identity, name)
			}
			return nil
		},
	}
}

func (k *Keyring) certificate() *tls.Certificate {
	k.mu.RLock()
	defer k.mu.RUnlock()
	own := k.own
	for _, ca := range k.cas { // joiners know the authority by its hash
		own.Certificate = append(own.Certificate[:len(own.Certificate):len(own.Certificate)], ca.Raw)
	}
	return &own
}
