// Package trust is the part of the replicated state that says who may take part:
// the cluster's certificate authorities, the tokens with which machines and
// clients join, the certificates that each of them has, and which of those are
// good no more. It stores what package internal/trust makes and looks into none
// of it.
//
// The key of the authority that signs is in the state so that every metadata
// member can admit a joiner. Secret lists the operations that carry it.
//
// What is over by time goes in bounded steps, by Prune.
//
// Keys; values are CBOR:
//
//	"5a"             the authorities, a row
//	"5i" kind name   an Identity; kind is "n" for a machine, "c" for a client
//	"5r" serial      a Revoked
//	"5t" hash        a Token
package trust

import (
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpSetAuthorities state.Op = 0x0300 // SetAuthorities → nothing; secret
	OpPutToken       state.Op = 0x0301 // Token → nothing
	OpDeleteToken    state.Op = 0x0302 // Hashed → nothing
	OpJoin           state.Op = 0x0303 // Join → nothing
	OpRenew          state.Op = 0x0304 // Renew → nothing
	OpConfirm        state.Op = 0x0305 // Confirm → nothing
	OpRevoke         state.Op = 0x0306 // Named → nothing
	OpPrune          state.Op = 0x0307 // Prune → Pruned

	OpAuthorities state.Op = 0x0340 // Since → Authorities
	OpSigner      state.Op = 0x0341 // nothing → Signer; secret
	OpTokens      state.Op = 0x0342 // nothing → Tokens
	OpToken       state.Op = 0x0343 // Hashed → Token
	OpIdentities  state.Op = 0x0344 // List → Identities
)

// Secret reports whether an operation carries the key of an authority: it must
// not come or go over a connection.
func Secret(op state.Op) bool { return op == OpSigner || op == OpSetAuthorities }

// Limits of this room.
const (
	TextMax    = 64 << 10 // bytes of PEM in one row
	NameMax    = 255      // bytes of a name, hash or serial number
	TokensMax  = 1024     // tokens, until they are over
	RevokedMax = 4096     // certificates that were revoked, until they are over
	// CertsMax bounds the certificates of one identity that are not over. They are
	// renewed when a third of their life is left, so two are usual, and more where
	// several mounts share a file; with one more the oldest that is not known to
	// be in use is revoked.
	CertsMax = 64
	PruneMax = 256 // rows that one Prune looks at
	ListMax  = 256 // identities in one answer
)

// SetAuthorities changes what is trusted, if the epoch is still the one given;
// else it is meta.Conflict. The first is set at epoch 0.
type SetAuthorities struct {
	Epoch  uint64 `cbor:"1,keyasint,omitempty"`
	Certs  []byte `cbor:"2,keyasint,omitempty"` // PEM, all that are trusted
	Signer []byte `cbor:"3,keyasint,omitempty"` // PEM with its key: the one that signs from now on
	Signs  string `cbor:"4,keyasint,omitempty"` // the hash of its certificate
	// Cut says that connections of peers that would not be admitted any more are
	// to be closed, not only those of revoked ones.
	Cut bool `cbor:"5,keyasint,omitempty"`
}

// Since asks for the authorities if anything has changed since Epoch.
type Since struct {
	Epoch uint64 `cbor:"1,keyasint,omitempty"`
}

// Authorities is whom to trust. Epoch grows with each change of any part. If it is
// the one that was asked about, the rest is left out; before the first it is zero.
type Authorities struct {
	Epoch   uint64   `cbor:"1,keyasint,omitempty"`
	Certs   []byte   `cbor:"2,keyasint,omitempty"` // PEM
	Signs   string   `cbor:"3,keyasint,omitempty"` // the hash of the one that signs
	Cut     bool     `cbor:"4,keyasint,omitempty"`
	Revoked []string `cbor:"5,keyasint,omitempty"` // serial numbers, in order
}

// Signer is the authority that signs, with its key.
type Signer struct {
	PEM []byte `cbor:"1,keyasint,omitempty"`
}

// A Token lets whoever knows the secret of this hash join once, before it is over; or,
// as a password, use the ports of other protocols as often as they like.
type Token struct {
	Hash    string    `cbor:"1,keyasint,omitempty"`
	Node    bool      `cbor:"2,keyasint,omitempty"` // for a machine; else for a client
	Rights  uint8     `cbor:"3,keyasint,omitempty"` // that a certificate for it has
	Name    string    `cbor:"4,keyasint,omitempty"` // the joiner must have it; empty: any
	Expires meta.Time `cbor:"5,keyasint,omitempty"`
	Used    meta.Time `cbor:"6,keyasint,omitempty"` // zero: it was not
	By      string    `cbor:"7,keyasint,omitempty"` // the name of who used it
	Serial  string    `cbor:"8,keyasint,omitempty"` // of the certificate that was given for it
	// Password says that nobody joins with it.
	Password bool `cbor:"9,keyasint,omitempty"`
}

// Tokens lists tokens in the order of their hashes.
type Tokens struct {
	Tokens []Token `cbor:"1,keyasint,omitempty"`
}

// Hashed names a token.
type Hashed struct {
	Hash string `cbor:"1,keyasint,omitempty"`
}

// A Cert is a certificate as far as this room knows it.
type Cert struct {
	Serial string    `cbor:"1,keyasint,omitempty"`
	Issuer string    `cbor:"2,keyasint,omitempty"` // the hash of the authority that signed it
	Until  meta.Time `cbor:"3,keyasint,omitempty"` // when it is over
}

// An Identity is a machine or a client that was admitted.
type Identity struct {
	Node   bool   `cbor:"1,keyasint,omitempty"`
	Name   string `cbor:"2,keyasint,omitempty"`
	Rights uint8  `cbor:"3,keyasint,omitempty"`
	Certs  []Cert `cbor:"4,keyasint,omitempty"` // oldest first; those that are over may be missing
	InUse  string `cbor:"5,keyasint,omitempty"` // the serial of the one that it said it has
}

// Join admits a machine or a client with its first certificate, and uses up the
// token for it. It is meta.NotExist if there is no such token, meta.Expired when
// it is over, meta.Conflict when it was used, meta.Permission if it is not for
// such a joiner, meta.Exist when the name is taken, and meta.Unavailable if the
// certificate is not of the authority that signs now, as with Renew. Without a hash no token is
// needed: for the machine that makes the cluster.
type Join struct {
	Hash   string `cbor:"1,keyasint,omitempty"`
	Node   bool   `cbor:"2,keyasint,omitempty"`
	Name   string `cbor:"3,keyasint,omitempty"`
	Rights uint8  `cbor:"4,keyasint,omitempty"`
	Cert   Cert   `cbor:"5,keyasint,omitempty"`
}

// Renew adds a certificate to those of an identity. It is meta.Permission unless
// the identity has the one that was shown, and it was not revoked.
type Renew struct {
	Node  bool   `cbor:"1,keyasint,omitempty"`
	Name  string `cbor:"2,keyasint,omitempty"`
	Shown string `cbor:"3,keyasint,omitempty"` // a serial number
	Cert  Cert   `cbor:"4,keyasint,omitempty"`
}

// Confirm says that an identity has a certificate and uses it.
type Confirm struct {
	Node   bool   `cbor:"1,keyasint,omitempty"`
	Name   string `cbor:"2,keyasint,omitempty"`
	Serial string `cbor:"3,keyasint,omitempty"`
}

// Named names an identity.
type Named struct {
	Node bool   `cbor:"1,keyasint,omitempty"`
	Name string `cbor:"2,keyasint,omitempty"`
}

// Prune removes what is over, among the next PruneMax rows after a key.
type Prune struct {
	After string `cbor:"1,keyasint,omitempty"`
}

// Pruned answers Prune. With More, it is to be sent again with After.
type Pruned struct {
	Rows  int    `cbor:"1,keyasint,omitempty"` // that were removed
	After string `cbor:"2,keyasint,omitempty"`
	More  bool   `cbor:"3,keyasint,omitempty"`
}

// List asks for at most ListMax identities after the one given: machines come
// after clients, and each in the order of their names.
type List struct {
	After *Named `cbor:"1,keyasint,omitempty"`
}

// Identities answers List.
type Identities struct {
	Identities []Identity `cbor:"1,keyasint,omitempty"`
	More       bool       `cbor:"2,keyasint,omitempty"`
}

// A Revoked is a certificate that is good no more.
type Revoked struct {
	Serial string    `cbor:"1,keyasint,omitempty"`
	Name   string    `cbor:"2,keyasint,omitempty"` // whom it names, for people
	Until  meta.Time `cbor:"3,keyasint,omitempty"` // when it is over by itself
}

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpSetAuthorities, "trust.set-authorities", setAuthorities)
	state.Handle(m, OpPutToken, "trust.put-token", putToken)
	state.Handle(m, OpDeleteToken, "trust.delete-token", deleteToken)
	state.Handle(m, OpJoin, "trust.join", join)
	state.Handle(m, OpRenew, "trust.renew", renew)
	state.Handle(m, OpConfirm, "trust.confirm", confirm)
	state.Handle(m, OpRevoke, "trust.revoke", revoke)
	state.Handle(m, OpPrune, "trust.prune", prune)
	state.Adds(m, OpPutToken, func(Token) bool { return true })
	state.Query(m, OpAuthorities, "trust.authorities", readAuthorities)
	state.Query(m, OpSigner, "trust.signer", readSigner)
	state.Query(m, OpTokens, "trust.tokens", func(r state.Reader, _ struct{}) (Tokens, error) {
		return Tokens{rows[Token](r, tokens, TokensMax)}, nil
	})
	state.Query(m, OpToken, "trust.token", func(r state.Reader, req Hashed) (Token, error) {
		t, ok := get[Token](r, tokenKey(req.Hash))
		if !ok {
			return Token{}, meta.NotExist
		}
		return t, nil
	})
	state.Query(m, OpIdentities, "trust.identities", list)
}

func get[T any](r state.Reader, key []byte) (row T, ok bool) {
	val, ok := r.Get(key)
	if ok {
		state.MustUnmarshal(val, &row)
	}
	return row, ok
}

// rows returns the first rows of a table, at most limit.
func rows[T any](r state.Reader, table string, limit int) (list []T) {
	for _, val := range r.Scan([]byte(table), state.After([]byte(table))) {
		if len(list) == limit {
			break
		}
		var row T
		state.MustUnmarshal(val, &row)
		list = append(list, row)
	}
	return list
}

// check refuses texts that cannot be the key of a row.
func check(texts ...string) error {
	for _, text := range texts {
		if text == "" || len(text) > NameMax || strings.ContainsRune(text, 0) {
			return fmt.Errorf("%.40q is no name: %w", text, meta.Invalid)
		}
	}
	return nil
}
