package trust

import (
	"fmt"
	"slices"

	"dos/meta"
	"dos/meta/state"
)

const (
	identities  = "5i"
	revocations = "5r"
)

func identityKey(node bool, name string) []byte {
	if node {
		return []byte(identities + "n" + name)
	}
	return []byte(identities + "c" + name)
}

func put(tx *state.Tx, id Identity) { tx.Set(identityKey(id.Node, id.Name), state.Marshal(id)) }

func join(tx *state.Tx, req Join) (struct{}, error) {
	if err := check(req.Name, req.Cert.Serial, req.Cert.Issuer); err != nil {
		return struct{}{}, err
	}
	if req.Rights == 0 {
		return struct{}{}, fmt.Errorf("%s without rights: %w", req.Name, meta.Invalid)
	}
	if err := signsNow(tx, req.Cert); err != nil {
		return struct{}{}, err
	}
	now := meta.At(tx.Now)
	old, ok := get[Identity](tx, identityKey(req.Node, req.Name))
	switch {
	case ok && old.has(req.Cert.Serial): // the request came twice
		return struct{}{}, nil
	case ok && slices.ContainsFunc(old.Certs, func(c Cert) bool { return c.Until > now }):
		return struct{}{}, fmt.Errorf("another %s has the name %s: %w", kindText(req.Node), req.Name, meta.Exist)
	}
	if req.Hash != "" {
		if err := use(tx, req); err != nil {
			return struct{}{}, err
		}
	}
	put(tx, Identity{Node: req.Node, Name: req.Name, Rights: req.Rights, Certs: []Cert{req.Cert}, InUse: req.Cert.Serial})
	return struct{}{}, nil
}

// signsNow refuses a certificate of an authority that signs no more: it would be
// good for nothing once that is removed.
func signsNow(tx *state.Tx, c Cert) error {
	if a, ok := get[authorities](tx, authorityKey); ok && a.Signs != c.Issuer {
		return fmt.Errorf("certificate %s is of an authority that signs no more: %w", c.Serial, meta.Unavailable)
	}
	return nil
}

func (id Identity) has(serial string) bool {
	return slices.ContainsFunc(id.Certs, func(c Cert) bool { return c.Serial == serial })
}

func renew(tx *state.Tx, req Renew) (struct{}, error) {
	if err := check(req.Name, req.Cert.Serial, req.Cert.Issuer); err != nil {
		return struct{}{}, err
	}
	id, ok := get[Identity](tx, identityKey(req.Node, req.Name))
	switch {
	case !ok || !id.has(req.Shown):
		return struct{}{}, fmt.Errorf("certificate %s of %s %s was not given here, or was revoked: %w", req.Shown, kindText(req.Node), req.Name, meta.Permission)
	case id.has(req.Cert.Serial): // the request came twice
		return struct{}{}, nil
	}
	if err := signsNow(tx, req.Cert); err != nil {
		return struct{}{}, err
	}
	now := meta.At(tx.Now)
	id.Certs = append(slices.DeleteFunc(id.Certs, func(c Cert) bool { return c.Until <= now }), req.Cert)
	if len(id.Certs) > CertsMax {
		oldest := slices.IndexFunc(id.Certs, func(c Cert) bool { return c.Serial != id.InUse })
		if err := turnOut(tx, id, id.Certs[oldest]); err != nil {
			return struct{}{}, err
		}
		id.Certs = slices.Delete(id.Certs, oldest, oldest+1)
	}
	put(tx, id)
	return struct{}{}, nil
}

func confirm(tx *state.Tx, req Confirm) (struct{}, error) {
	id, ok := get[Identity](tx, identityKey(req.Node, req.Name))
	if !ok || !id.has(req.Serial) {
		return struct{}{}, fmt.Errorf("certificate %.40q of %.40q: %w", req.Serial, req.Name, meta.NotExist)
	}
	id.InUse = req.Serial
	put(tx, id)
	return struct{}{}, nil
}

// revoke forgets an identity and turns all its certificates out. Its name is free
// then.
func revoke(tx *state.Tx, req Named) (struct{}, error) {
	id, ok := get[Identity](tx, identityKey(req.Node, req.Name))
	if !ok {
		return struct{}{}, fmt.Errorf("%s %.40q: %w", kindText(req.Node), req.Name, meta.NotExist)
	}
	if err := turnOut(tx, id, id.Certs...); err != nil {
		return struct{}{}, err
	}
	tx.Delete(identityKey(id.Node, id.Name))
	return struct{}{}, nil
}

// turnOut makes certificates good no more.
func turnOut(tx *state.Tx, id Identity, certs ...Cert) error {
	if n := len(rows[Revoked](tx, revocations, RevokedMax)); n+len(certs) > RevokedMax {
		return fmt.Errorf("%d revoked certificates are kept until they are over: %w", n, meta.Quota)
	}
	for _, c := range certs {
		if c.Until > meta.At(tx.Now) { // else nobody takes it anyway
			tx.Set([]byte(revocations+c.Serial), state.Marshal(Revoked{c.Serial, id.Name, c.Until}))
		}
	}
	return raise(tx)
}

func list(r state.Reader, req List) (Identities, error) {
	from := []byte(identities)
	if req.After != nil {
		from = append(identityKey(req.After.Node, req.After.Name), 0)
	}
	var reply Identities
	for _, val := range r.Scan(from, state.After([]byte(identities))) {
		if len(reply.Identities) == ListMax {
			reply.More = true
			break
		}
		var id Identity
		state.MustUnmarshal(val, &id)
		reply.Identities = append(reply.Identities, id)
	}
	return reply, nil
}
