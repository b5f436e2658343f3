package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"
)

const (
	// authorityLife and certificateLife are how long certificates are good. A
	// certificate is renewed when a third of its life is left.
	authorityLife   = 30 * 365 * 24 * time.Hour
	certificateLife = 365 * 24 * time.Hour
	// backdate is how long before it is made a certificate is good, for peers
	// whose clocks are behind.
	backdate = 24 * time.Hour
)

// An Authority signs the certificates of a cluster.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes an authority with a new key.
func NewAuthority(cluster ClusterID) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		// Each authority of a cluster has a name of its own, so that chains are not ambiguous.
		Subject:   pkix.Name{CommonName: fmt.Sprintf("dos cluster %x %08x", cluster, serial.Uint64()>>32)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		MaxPathLen: 1, // the authority that follows, see Vouch
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, nil
}

// Vouch says that next is the authority of the same cluster, in a certificate of
// a's: whoever trusts a can tell by it that a certificate which next signed is
// good, before it has heard of next. Machines show it beside their own certificate.
func (a *Authority) Vouch(next *Authority) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: next.cert.Subject, SubjectKeyId: next.cert.SubjectKeyId,
		NotBefore: next.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, next.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return certPEM(der), nil
}

// isRoot says that an authority's certificate is its own, not another's voucher.
func isRoot(ca *x509.Certificate) bool { return bytes.Equal(ca.RawIssuer, ca.RawSubject) }

// Roots are the hashes of the authorities in a list of certificates, as PEM.
func Roots(authorities []byte) ([]string, error) {
	cas, key, err := parsePEM(authorities)
	switch {
	case err != nil:
		return nil, err
	case key != nil:
		return nil, errors.New("trust: a key where certificates are needed")
	}
	var list []string
	for _, ca := range cas {
		if isRoot(ca) {
			list = append(list, hashOf(ca))
		}
	}
	return list, nil
}

// newSerial draws 127 bits.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// The types of PEM blocks.
const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

// PEM is the authority with its key: a secret.
func (a *Authority) PEM() ([]byte, error) {
	key, err := keyPEM(a.key)
	if err != nil {
		return nil, err
	}
	return append(a.CertPEM(), key...), nil
}

// CertPEM is the authority's certificate.
func (a *Authority) CertPEM() []byte { return certPEM(a.cert.Raw) }

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// ParseAuthority reads what PEM wrote.
func ParseAuthority(text []byte) (*Authority, error) {
	certs, key, err := parsePEM(text)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 || key == nil || !certs[0].IsCA {
		return nil, errors.New("trust: not an authority")
	}
	return &Authority{certs[0], key}, nil
}

// parsePEM reads certificates and at most one key.
func parsePEM(text []byte) (certs []*x509.Certificate, key crypto.Signer, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return certs, key, nil
		}
		switch block.Type {
		case certBlock:
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("trust: %w", err)
			}
			certs = append(certs, cert)
		case keyBlock:
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("trust: %w", err)
			}
			signer, ok := parsed.(crypto.Signer)
			if !ok || key != nil {
				return nil, nil, errors.New("trust: more than one key, or one that cannot sign")
			}
			key = signer
		default:
			return nil, nil, fmt.Errorf("trust: unexpected %.40q", block.Type)
		}
	}
}

// Hash is the SHA-256 of the authority's certificate, in hexadecimal digits:
// what a join token names.
func (a *Authority) Hash() string { return hashOf(a.cert) }

func hashOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Inspect says which serial number a certificate has, and when it is over.
func Inspect(cert []byte) (serial string, until time.Time, err error) {
	certs, _, err := parsePEM(cert)
	switch {
	case err != nil:
		return "", time.Time{}, err
	case len(certs) != 1:
		return "", time.Time{}, fmt.Errorf("trust: %d certificates where one is needed", len(certs))
	}
	return serialOf(certs[0]), certs[0].NotAfter, nil
}

// serialOf is a serial number in hexadecimal digits.
func serialOf(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// Sign gives an identity to the key of a request, which proves that the
// requester has it (RFC 2986). What else the request says is not looked at.
func (a *Authority) Sign(request []byte, id Identity) (cert []byte, err error) {
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate request: %v", ErrRefused, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: certificate request: %v", ErrRefused, err)
	}
	if _, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("%w: certificate request with a key of type %T", ErrRefused, csr.PublicKey)
	}
	if err := CheckName(id.Name); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRefused, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: id.Name}, URIs: []*url.URL{id.uri()},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if !id.IsNode() {
		template.ExtKeyUsage = template.ExtKeyUsage[:1]
	} else if isHost(id.Name) {
		template.DNSNames = []string{id.Name} // for programs that know hosts alone: most machines have their host's name
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return certPEM(der), nil
}

// isHost says whether the name of a machine can be a host's (RFC 1123): a certificate that
// names another may not be read.
func isHost(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.Contains(label, "_") || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// A Request is a new key that wants a certificate.
type Request struct {
	CSR []byte // PKCS #10, DER
	key crypto.Signer
}

// NewRequest makes a key.
func NewRequest() (*Request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return &Request{csr, key}, nil
}
