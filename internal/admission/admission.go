// Package admission is what the machines of a cluster do about trust: make the
// authority when the cluster begins, admit who shows a token, renew certificates
// before they are over, turn out who was revoked, and replace the authority
// while everything goes on. An Office does what needs the authority's key, on a
// machine with a metadata member; a Keeper looks after the identity of one
// process, any process. What certificates and tokens are is package
// internal/trust's; what is on record is meta/trust's; what a peer may do once
// it is in is internal/rights's.
//
// # Joining
//
// A token's secret is known to the cluster by its hash. The certificate is
// signed in memory, then one command uses the token up and puts the certificate
// on record, then it is given out. So a token admits one joiner, and there is no
// certificate that cannot be revoked. A joiner that dies before it has kept
// what it got needs another token, and its name revoked.
//
// # Replacing the authority
//
// Rotate makes an authority for which the one before vouches (trust.Vouch), so
// whoever trusts that one trusts the new one at once, and lets it sign from then
// on. Every Keeper sees within a second that its certificate is of the old one,
// renews it, and confirms that it has kept the new one. When all on record have,
// the old authority is removed. Connections stay as they are. Somebody who never
// comes back keeps the old one in place, until FinishRotation turns out who has
// not renewed.
package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"dos/internal/trust"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/state"
	metatrust "dos/meta/trust"
)

// A Member is the metadata member of this process (meta/node.Node is one).
type Member interface {
	// Call executes an operation if this member can: commands while it leads.
	client.Caller
	// Local answers a query from what is applied here.
	Local(op state.Op, req, resp any) error
}

// Config says what an Office works with. All of it is required but what says otherwise.
type Config struct {
	Keys   *trust.Keyring // this machine's
	Member Member
	// Cluster asks the metadata service, whichever member leads it; Member.
	Cluster client.Caller
	// Addr is where joiners reach this machine, HOST:PORT.
	Addr string
	// Members returns where joiners will find metadata members; Addr alone.
	Members func(ctx context.Context) ([]string, error)
	Log     *slog.Logger // slog.Default()
}

// An Office has the authority's key. Its methods may be called concurrently.
type Office struct {
	cfg     Config
	cluster client.Trust
	member  client.Trust
}

// NewOffice returns an Office.
func NewOffice(c Config) *Office {
	if c.Cluster == nil {
		c.Cluster = c.Member
	}
	if c.Members == nil {
		c.Members = func(context.Context) ([]string, error) { return []string{c.Addr}, nil }
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Office{cfg: c, cluster: client.Trust{Caller: c.Cluster}, member: client.Trust{Caller: c.Member}}
}

// Found makes the authority of a new cluster and the identity of its first machine,
// to be kept in files (trust.Save). The authority is to be deposited as soon as
// there is metadata.
func Found(cluster trust.ClusterID, name string) (authority, credentials []byte, err error) {
	ca, err := trust.NewAuthority(cluster)
	if err != nil {
		return nil, nil, err
	}
	if authority, err = ca.PEM(); err != nil {
		return nil, nil, err
	}
	req, err := trust.NewRequest()
	if err != nil {
		return nil, nil, err
	}
	cert, err := ca.Sign(req.CSR, trust.Identity{Cluster: cluster, Name: name, Rights: trust.Member})
	if err != nil {
		return nil, nil, err
	}
	credentials, err = req.Credentials(cert, ca.CertPEM())
	return authority, credentials, err
}

// Deposit puts what Found made on record, keys being those of the first machine.
// Once it has succeeded the file of the authority is to be removed. It may be
// called again; it is meta.Conflict if another authority is on record.
func Deposit(ctx context.Context, m Member, authority []byte, keys *trust.Keyring) error {
	ca, err := trust.ParseAuthority(authority)
	if err != nil {
		return err
	}
	t := client.Trust{Caller: m}
	err = t.SetAuthorities(ctx, metatrust.SetAuthorities{Certs: ca.CertPEM(), Signer: authority, Signs: ca.Hash()})
	if errors.Is(err, meta.Conflict) {
		now, asked := t.Authorities(ctx, 0)
		switch {
		case asked != nil:
			err = asked
		case now.Signs == ca.Hash():
			err = nil // it was deposited before
		}
	}
	if err != nil {
		return fmt.Errorf("admission: the authority: %w", err)
	}
	err = t.Join(ctx, metatrust.Join{Node: true, Name: keys.Self().Name, Rights: uint8(trust.Member), Cert: metatrust.Cert{
		Serial: keys.Serial(), Issuer: ca.Hash(), Until: meta.At(keys.Until()),
	}})
	if err != nil {
		return fmt.Errorf("admission: the first machine: %w", err)
	}
	return nil
}

// signer returns the authority that signs, as far as this member knows.
func signer(m Member) (*trust.Authority, error) {
	var s metatrust.Signer
	if err := m.Local(metatrust.OpSigner, struct{}{}, &s); err != nil {
		if errors.Is(err, meta.NotExist) { // this member has not caught up
			err = fmt.Errorf("the authority is not known here yet: %w", meta.Unavailable)
		}
		return nil, err
	}
	return trust.ParseAuthority(s.PEM)
}

// A signed certificate is not given out before it is on record.
type signed struct {
	pem    []byte
	record metatrust.Cert
}

func sign(m Member, csr []byte, id trust.Identity) (signed, error) {
	ca, err := signer(m)
	if err != nil {
		return signed{}, err
	}
	cert, err := ca.Sign(csr, id)
	if err != nil {
		return signed{}, err
	}
	serial, until, err := trust.Inspect(cert)
	if err != nil {
		return signed{}, err
	}
	return signed{cert, metatrust.Cert{Serial: serial, Issuer: ca.Hash(), Until: meta.At(until)}}, nil
}

// grant is what somebody gets whose certificate is on record.
func (o *Office) grant(ctx context.Context, cert []byte) (trust.Grant, error) {
	now, err := o.cluster.Authorities(ctx, 0)
	if err != nil {
		return trust.Grant{}, err
	}
	members, err := o.cfg.Members(ctx)
	if err != nil {
		return trust.Grant{}, err
	}
	return trust.Grant{Cert: cert, Authorities: now.Certs, Members: members}, nil
}

// Renew gives another certificate to somebody who has one, for a new key.
func (o *Office) Renew(ctx context.Context, peer trust.Peer, csr []byte) (trust.Grant, error) {
	cert, err := sign(o.cfg.Member, csr, peer.Identity)
	if err != nil {
		return trust.Grant{}, err
	}
	if err := o.cluster.Renew(ctx, metatrust.Renew{Node: peer.IsNode(), Name: peer.Name, Shown: peer.Serial, Cert: cert.record}); err != nil {
		return trust.Grant{}, err
	}
	o.cfg.Log.Info("admission: a certificate was renewed", "of", peer.Identity.String())
	return o.grant(ctx, cert.pem)
}

// Confirm notes that somebody has kept the certificate of a serial number.
func (o *Office) Confirm(ctx context.Context, peer trust.Peer, serial string) error {
	return o.cluster.Confirm(ctx, peer.IsNode(), peer.Name, serial)
}

// Own renews the identity of this machine itself.
func (o *Office) Own() Renewer { return own{o} }

type own struct{ o *Office }

func (w own) peer() trust.Peer {
	return trust.Peer{Identity: w.o.cfg.Keys.Self(), Serial: w.o.cfg.Keys.Serial()}
}

func (w own) Renew(ctx context.Context, csr []byte) (trust.Grant, error) {
	return w.o.Renew(ctx, w.peer(), csr)
}

func (w own) Confirm(ctx context.Context, serial string) error {
	return w.o.Confirm(ctx, w.peer(), serial)
}

// A TokenWish says whom a token is to admit.
type TokenWish struct {
	Name   string        `cbor:"1,keyasint,omitempty"` // empty: any
	Rights trust.Rights  `cbor:"2,keyasint,omitempty"` // trust.Member for a machine
	Life   time.Duration `cbor:"3,keyasint,omitempty"` // 1 h; at most TokenLifeMax
}

const (
	tokenLife = time.Hour
	// TokenLifeMax bounds how long a token is good: it is a password meanwhile.
	TokenLifeMax = 7 * 24 * time.Hour
)

// CreateToken makes a token and returns its text. Nobody can read it again.
func (o *Office) CreateToken(ctx context.Context, w TokenWish) (string, error) {
	if w.Life == 0 {
		w.Life = tokenLife
	}
	switch {
	case w.Name != "" && trust.CheckName(w.Name) != nil:
		return "", fmt.Errorf("%w: %w", trust.CheckName(w.Name), meta.Invalid)
	case w.Rights < trust.ReadOnly || w.Rights > trust.Member:
		return "", fmt.Errorf("a token for %v: %w", w.Rights, meta.Invalid)
	case w.Life < 0 || w.Life > TokenLifeMax:
		return "", fmt.Errorf("a token for %v, at most %v: %w", w.Life, TokenLifeMax, meta.Invalid)
	}
	t := trust.NewToken(o.cfg.Addr, o.cfg.Keys.Issuer())
	if _, err := trust.ParseToken(t.String()); err != nil {
		return "", fmt.Errorf("%w: %w", err, meta.Unavailable)
	}
	err := o.cluster.PutToken(ctx, metatrust.Token{
		Hash: trust.HashSecret(t.Secret), Node: w.Rights == trust.Member, Rights: uint8(w.Rights), Name: w.Name,
		Expires: meta.At(time.Now().Add(w.Life)),
	})
	if err != nil {
		return "", err
	}
	o.cfg.Log.Info("admission: a token was made", "for", w.Rights.String(), "name", w.Name, "life", w.Life)
	return t.String(), nil
}

// Revoke turns a machine or a client out: its certificates are good no more, and
// every machine closes its connections within some seconds. Its name is free then.
func (o *Office) Revoke(ctx context.Context, node bool, name string) error {
	if self := o.cfg.Keys.Self(); node && name == self.Name {
		return fmt.Errorf("%v cannot turn itself out; ask another machine: %w", self, meta.Invalid)
	}
	if err := o.cluster.Revoke(ctx, node, name); err != nil {
		return err
	}
	o.cfg.Log.Warn("admission: a peer was turned out", "node", node, "name", name)
	return nil
}
