package trust

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

// authorities is the row "5a".
type authorities struct {
	Epoch  uint64 `cbor:"1,keyasint,omitempty"`
	Certs  []byte `cbor:"2,keyasint,omitempty"`
	Signer []byte `cbor:"3,keyasint,omitempty"`
	Signs  string `cbor:"4,keyasint,omitempty"`
	Cut    bool   `cbor:"5,keyasint,omitempty"`
}

var authorityKey = []byte("5a")

func setAuthorities(tx *state.Tx, req SetAuthorities) (struct{}, error) {
	if len(req.Certs) == 0 || len(req.Signer) == 0 || len(req.Certs) > TextMax || len(req.Signer) > TextMax {
		return struct{}{}, fmt.Errorf("authorities of %d bytes, a signer of %d: %w", len(req.Certs), len(req.Signer), meta.Invalid)
	}
	if err := check(req.Signs); err != nil {
		return struct{}{}, err
	}
	old, _ := get[authorities](tx, authorityKey)
	if old.Epoch != req.Epoch {
		return struct{}{}, fmt.Errorf("the authorities are at epoch %d, not %d: %w", old.Epoch, req.Epoch, meta.Conflict)
	}
	tx.Set(authorityKey, state.Marshal(authorities{old.Epoch + 1, req.Certs, req.Signer, req.Signs, req.Cut}))
	return struct{}{}, nil
}

// raise says that something about trust has changed.
func raise(tx *state.Tx) error {
	a, ok := get[authorities](tx, authorityKey)
	if !ok {
		return fmt.Errorf("there is no authority: %w", meta.NotExist)
	}
	a.Epoch++
	tx.Set(authorityKey, state.Marshal(a))
	return nil
}

func readAuthorities(r state.Reader, req Since) (Authorities, error) {
	a, _ := get[authorities](r, authorityKey)
	if a.Epoch == req.Epoch {
		return Authorities{Epoch: a.Epoch}, nil
	}
	reply := Authorities{Epoch: a.Epoch, Certs: a.Certs, Signs: a.Signs, Cut: a.Cut}
	for _, row := range rows[Revoked](r, revocations, RevokedMax) {
		reply.Revoked = append(reply.Revoked, row.Serial)
	}
	return reply, nil
}

func readSigner(r state.Reader, _ struct{}) (Signer, error) {
	a, ok := get[authorities](r, authorityKey)
	if !ok {
		return Signer{}, fmt.Errorf("there is no authority: %w", meta.NotExist)
	}
	return Signer{a.Signer}, nil
}
