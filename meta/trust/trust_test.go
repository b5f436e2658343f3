package trust_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"dos/meta"
	"dos/meta/state"
	"dos/meta/state/statetest"
	"dos/meta/trust"
)

type world struct {
	t     testing.TB
	m     *state.Machine
	store *state.Overlay
	now   int64
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), now: 1e18}
	trust.Register(w.m)
	return w
}

// began is a world with an authority.
func began(t testing.TB) *world {
	w := newWorld(t)
	want(t, "the first authority", w.do(trust.OpSetAuthorities, trust.SetAuthorities{Certs: []byte("one"), Signer: []byte("key"), Signs: "1"}), nil)
	return w
}

func ask[Resp any](w *world, op state.Op, req any) (resp Resp, err error) {
	w.t.Helper()
	var reply state.Reply
	if w.m.IsQuery(op) {
		reply = w.m.Answer(w.store, state.Command{Op: op, Body: state.Marshal(req)})
	} else {
		w.now += 1e9
		before := w.rows()
		reply = w.m.Apply(w.store, state.Command{Op: op, Time: w.now, Body: state.Marshal(req)})
		if reply.Err() != nil && w.rows() != before {
			w.t.Errorf("%v changed something", reply.Err())
		}
	}
	if err := reply.Err(); err != nil {
		return resp, err
	}
	if err := state.Unmarshal(reply.Body, &resp); err != nil {
		w.t.Fatal(err)
	}
	return resp, nil
}

func (w *world) do(op state.Op, req any) error {
	w.t.Helper()
	_, err := ask[struct{}](w, op, req)
	return err
}

func (w *world) rows() string {
	var rows bytes.Buffer
	for k, v := range w.store.Scan(nil, nil) {
		fmt.Fprintf(&rows, "%s %x\n", k, v)
	}
	return rows.String()
}

// in is the time when some seconds have passed.
func (w *world) in(seconds int64) meta.Time { return meta.Time(w.now + seconds*1e9) }

func (w *world) cert(serial string) trust.Cert {
	return trust.Cert{Serial: serial, Issuer: "1", Until: w.in(1e6)}
}

func (w *world) authorities() trust.Authorities {
	w.t.Helper()
	a, err := ask[trust.Authorities](w, trust.OpAuthorities, trust.Since{})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) identities() []trust.Identity {
	w.t.Helper()
	var all []trust.Identity
	var after *trust.Named
	for {
		list, err := ask[trust.Identities](w, trust.OpIdentities, trust.List{After: after})
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, list.Identities...)
		if !list.More {
			return all
		}
		after = &trust.Named{Node: all[len(all)-1].Node, Name: all[len(all)-1].Name}
	}
}

func want(t testing.TB, what string, err error, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestAuthorities(t *testing.T) {
	w := newWorld(t)
	_, err := ask[trust.Signer](w, trust.OpSigner, struct{}{})
	want(t, "no signer yet", err, meta.NotExist)
	first := trust.SetAuthorities{Certs: []byte("one"), Signer: []byte("key"), Signs: "1"}
	want(t, "the first", w.do(trust.OpSetAuthorities, first), nil)
	want(t, "another first", w.do(trust.OpSetAuthorities, first), meta.Conflict)
	for _, bad := range []trust.SetAuthorities{
		{Epoch: 1, Signs: "1"}, {Epoch: 1, Certs: make([]byte, trust.TextMax+1), Signer: []byte("k"), Signs: "1"},
		{Epoch: 1, Certs: []byte("c"), Signs: "1"}, {Epoch: 1, Certs: []byte("c"), Signer: []byte("k")},
	} {
		want(t, "bad", w.do(trust.OpSetAuthorities, bad), meta.Invalid)
	}
	want(t, "the next", w.do(trust.OpSetAuthorities, trust.SetAuthorities{Epoch: 1, Certs: []byte("one two"), Signer: []byte("key2"), Signs: "2", Cut: true}), nil)
	if a := w.authorities(); a.Epoch != 2 || string(a.Certs) != "one two" || a.Signs != "2" || !a.Cut || bytes.Contains(state.Marshal(a), []byte("key")) {
		t.Errorf("%+v", a)
	}
	if a, err := ask[trust.Authorities](w, trust.OpAuthorities, trust.Since{Epoch: 2}); err != nil || a.Epoch != 2 || a.Certs != nil {
		t.Errorf("nothing has changed: %+v, %v", a, err)
	}
	s, err := ask[trust.Signer](w, trust.OpSigner, struct{}{})
	if err != nil || string(s.PEM) != "key2" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestTokens(t *testing.T) {
	w := began(t)
	put := func(token trust.Token) error { return w.do(trust.OpPutToken, token) }
	serial := 0
	use := func(hash, name string, node bool, rights uint8) error {
		serial++
		return w.do(trust.OpJoin, trust.Join{Hash: hash, Name: name, Node: node, Rights: rights, Cert: w.cert(fmt.Sprint(serial))})
	}
	machine := trust.Token{Hash: "m", Node: true, Rights: 4, Expires: w.in(100)}
	want(t, "a machine's", put(machine), nil)
	want(t, "the same again", put(machine), nil)
	want(t, "another of the same hash", put(trust.Token{Hash: "m", Rights: 1, Expires: w.in(100)}), meta.Exist)
	want(t, "a client's", put(trust.Token{Hash: "c", Rights: 2, Name: "me", Expires: w.in(100)}), nil)
	want(t, "no hash", put(trust.Token{Rights: 1, Expires: w.in(100)}), meta.Invalid)
	want(t, "no rights", put(trust.Token{Hash: "x", Expires: w.in(100)}), meta.Invalid)
	want(t, "used already", put(trust.Token{Hash: "x", Rights: 1, Used: 1, Expires: w.in(100)}), meta.Invalid)
	want(t, "over already", put(trust.Token{Hash: "x", Rights: 1, Expires: w.in(0)}), meta.Invalid)
	want(t, "soon over", put(trust.Token{Hash: "s", Rights: 1, Expires: w.in(30)}), nil)
	want(t, "another", put(trust.Token{Hash: "d", Rights: 1, Expires: w.in(100)}), nil)
	want(t, "taken back", w.do(trust.OpDeleteToken, trust.Hashed{Hash: "d"}), nil)
	want(t, "taken back again", w.do(trust.OpDeleteToken, trust.Hashed{Hash: "d"}), nil)

	want(t, "unknown", use("?", "a", true, 4), meta.NotExist)
	want(t, "one that was taken back", use("d", "a", false, 1), meta.NotExist)
	want(t, "a client with a machine's", use("m", "a", false, 4), meta.Permission)
	want(t, "more rights", use("c", "me", false, 3), meta.Permission)
	want(t, "another's", use("c", "you", false, 2), meta.Permission)
	want(t, "no name", use("m", "", true, 4), meta.Invalid)
	want(t, "a client", use("c", "me", false, 2), nil)
	want(t, "a machine", use("m", "a", true, 4), nil)
	want(t, "the same request again", w.do(trust.OpJoin, trust.Join{Hash: "m", Name: "a", Node: true, Rights: 4, Cert: w.cert(fmt.Sprint(serial))}), nil)
	want(t, "used", use("m", "b", true, 4), meta.Conflict)
	got, err := ask[trust.Token](w, trust.OpToken, trust.Hashed{Hash: "m"})
	if err != nil || got.By != "a" || got.Used == 0 || got.Serial != fmt.Sprint(serial-1) {
		t.Errorf("%+v, %v", got, err)
	}
	w.now += 40e9
	want(t, "over", use("s", "x", false, 1), meta.Expired)

	for i := range trust.TokensMax - 3 {
		want(t, "one more", put(trust.Token{Hash: fmt.Sprint("n", i), Rights: 1, Expires: w.in(1e7)}), nil)
	}
	want(t, "too many", put(trust.Token{Hash: "z", Rights: 1, Expires: w.in(1e7)}), meta.Quota)
	if list, err := ask[trust.Tokens](w, trust.OpTokens, struct{}{}); err != nil || len(list.Tokens) != trust.TokensMax {
		t.Errorf("%d, %v", len(list.Tokens), err)
	}
}

func TestIdentities(t *testing.T) {
	w := began(t)
	first := trust.Join{Node: true, Name: "a", Rights: 4, Cert: w.cert("1")}
	want(t, "the first machine", w.do(trust.OpJoin, first), nil)
	want(t, "the first machine again", w.do(trust.OpJoin, first), nil)
	want(t, "its name", w.do(trust.OpJoin, trust.Join{Node: true, Name: "a", Rights: 4, Cert: w.cert("2")}), meta.Exist)
	want(t, "a client of its name", w.do(trust.OpJoin, trust.Join{Name: "a", Rights: 1, Cert: w.cert("3")}), nil)
	want(t, "no rights", w.do(trust.OpJoin, trust.Join{Name: "b", Cert: w.cert("3")}), meta.Invalid)
	renew := func(shown, serial string) error {
		return w.do(trust.OpRenew, trust.Renew{Node: true, Name: "a", Shown: shown, Cert: w.cert(serial)})
	}
	want(t, "with a client's certificate", renew("3", "4"), meta.Permission)
	want(t, "renewed", renew("1", "4"), nil)
	want(t, "renewed, asked again", renew("1", "4"), nil)
	want(t, "of another authority", w.do(trust.OpRenew, trust.Renew{Node: true, Name: "a", Shown: "1", Cert: trust.Cert{Serial: "9", Issuer: "0", Until: w.in(100)}}), meta.Unavailable)
	want(t, "of another authority", w.do(trust.OpJoin, trust.Join{Node: true, Name: "z", Rights: 4, Cert: trust.Cert{Serial: "9", Issuer: "0", Until: w.in(100)}}), meta.Unavailable)
	want(t, "an unknown one in use", w.do(trust.OpConfirm, trust.Confirm{Node: true, Name: "a", Serial: "3"}), meta.NotExist)
	if all := w.identities(); len(all) != 2 || all[1].InUse != "1" || len(all[1].Certs) != 2 {
		t.Errorf("%+v", all)
	}
	want(t, "in use", w.do(trust.OpConfirm, trust.Confirm{Node: true, Name: "a", Serial: "4"}), nil)
	if all := w.identities(); all[1].InUse != "4" {
		t.Errorf("%+v", all)
	}
	// The oldest goes when there are too many, but never the one in use.
	for i := range trust.CertsMax {
		want(t, "renewed again", renew("4", fmt.Sprint("n", i)), nil)
	}
	if a := w.authorities(); !slices.Equal(a.Revoked, []string{"1", "n0"}) || len(w.identities()[1].Certs) != trust.CertsMax {
		t.Errorf("revoked are %v", a.Revoked)
	}
	want(t, "with the one in use", renew("4", "m"), nil)

	// A name is free again when its certificates are over.
	w.now += 2e6 * 1e9
	want(t, "its name, later", w.do(trust.OpJoin, trust.Join{Node: true, Name: "a", Rights: 4, Cert: w.cert("z")}), nil)
}

func TestRevoke(t *testing.T) {
	w := began(t)
	for i, name := range []string{"a", "b"} {
		want(t, name, w.do(trust.OpJoin, trust.Join{Node: true, Name: name, Rights: 4, Cert: w.cert(name)}), nil)
		want(t, name, w.do(trust.OpRenew, trust.Renew{Node: true, Name: name, Shown: name, Cert: w.cert(name + name)}), nil)
		want(t, "revoked", w.do(trust.OpRevoke, trust.Named{Node: true, Name: name}), nil)
		if epoch := w.authorities().Epoch; epoch != uint64(2+i) {
			t.Errorf("epoch %d", epoch)
		}
		want(t, "renewed", w.do(trust.OpRenew, trust.Renew{Node: true, Name: name, Shown: name, Cert: w.cert("x")}), meta.Permission)
	}
	want(t, "unknown", w.do(trust.OpRevoke, trust.Named{Name: "a"}), meta.NotExist)
	if got := w.authorities().Revoked; !slices.Equal(got, []string{"a", "aa", "b", "bb"}) {
		t.Errorf("revoked are %v", got)
	}
	want(t, "its name again", w.do(trust.OpJoin, trust.Join{Node: true, Name: "a", Rights: 4, Cert: w.cert("c")}), nil)
	if got := w.authorities().Revoked; len(got) != 4 {
		t.Errorf("revoked are %v", got)
	}
}

func TestTooManyRevoked(t *testing.T) {
	w := began(t)
	for i := range trust.RevokedMax - 1 {
		serial := fmt.Sprint(i)
		w.store.Set([]byte("5r"+serial), state.Marshal(trust.Revoked{Serial: serial, Name: "x", Until: w.in(1e6)}))
	}
	want(t, "join", w.do(trust.OpJoin, trust.Join{Name: "a", Rights: 1, Cert: w.cert("a")}), nil)
	want(t, "join", w.do(trust.OpJoin, trust.Join{Name: "b", Rights: 1, Cert: w.cert("b")}), nil)
	want(t, "the last", w.do(trust.OpRevoke, trust.Named{Name: "a"}), nil)
	want(t, "one too many", w.do(trust.OpRevoke, trust.Named{Name: "b"}), meta.Quota)
}

// What is over goes, in steps, and nothing else.
func TestPrune(t *testing.T) {
	w := began(t)
	const n = trust.PruneMax
	for i := range n {
		name := fmt.Sprintf("%04d", i)
		cert := w.cert(name)
		if i%2 == 0 {
			cert.Until = w.in(1e3)
		}
		want(t, name, w.do(trust.OpJoin, trust.Join{Name: name, Rights: 1, Cert: cert}), nil)
		gone := trust.Cert{Serial: "r" + name, Issuer: "1", Until: w.in(1e3)}
		want(t, name, w.do(trust.OpJoin, trust.Join{Node: true, Name: name, Rights: 4, Cert: gone}), nil)
		want(t, name, w.do(trust.OpRevoke, trust.Named{Node: true, Name: name}), nil)
		want(t, name, w.do(trust.OpPutToken, trust.Token{Hash: name, Rights: 1, Expires: w.in(10)}), nil)
	}
	want(t, "a token", w.do(trust.OpPutToken, trust.Token{Hash: "late", Rights: 1, Expires: w.in(1e6)}), nil)
	all := func() (rows, steps int) {
		var after string
		for {
			steps++
			p, err := ask[trust.Pruned](w, trust.OpPrune, trust.Prune{After: after})
			if err != nil {
				t.Fatal(err)
			}
			rows += p.Rows
			if !p.More {
				return rows, steps
			}
			after = p.After
		}
	}
	w.now += 2e3 * 1e9
	if rows, steps := all(); rows != 0 || steps != 4 {
		t.Errorf("%d rows went before their time, in %d steps", rows, steps)
	}
	w.now += 24 * 3600 * 1e9
	w.store.Set([]byte("1"), []byte("another room's"))
	first, err := ask[trust.Pruned](w, trust.OpPrune, trust.Prune{After: "0"})
	want(t, "from before the first table", err, nil)
	w.store.Delete([]byte("1"))
	if rows, _ := all(); rows != n/2+n+n-first.Rows {
		t.Errorf("%d rows went", rows)
	}
	a := w.authorities()
	list, err := ask[trust.Tokens](w, trust.OpTokens, struct{}{})
	if len(a.Revoked) != 0 || len(w.identities()) != n/2 || len(list.Tokens) != 1 || err != nil {
		t.Errorf("%d revoked, %d identities, %d tokens are left, %v", len(a.Revoked), len(w.identities()), len(list.Tokens), err)
	}
}

func TestSecret(t *testing.T) {
	for op, secret := range map[state.Op]bool{trust.OpSigner: true, trust.OpSetAuthorities: true, trust.OpAuthorities: false, trust.OpJoin: false} {
		if trust.Secret(op) != secret {
			t.Errorf("%#04x: %v", uint16(op), !secret)
		}
	}
}

// What is written here is read for ever: a change is a change of format.
func TestGolden(t *testing.T) {
	w := newWorld(t)
	w.do(trust.OpSetAuthorities, trust.SetAuthorities{Certs: []byte("c"), Signer: []byte("s"), Signs: "1", Cut: true})
	w.do(trust.OpPutToken, trust.Token{Hash: "h", Node: true, Rights: 4, Name: "n", Expires: w.in(9)})
	w.do(trust.OpJoin, trust.Join{Hash: "h", Node: true, Rights: 4, Name: "n", Cert: w.cert("5")})
	w.do(trust.OpJoin, trust.Join{Name: "m", Rights: 4, Cert: w.cert("6")})
	w.do(trust.OpRevoke, trust.Named{Name: "m"})
	got := w.rows()
	for _, op := range w.m.Ops() {
		got += op + "\n"
	}
	statetest.Golden(t, "testdata/golden", got)
}

// FuzzRequest gives each operation arbitrary bodies.
func FuzzRequest(f *testing.F) {
	w := began(f)
	for op, req := range map[state.Op]any{
		trust.OpSetAuthorities: trust.SetAuthorities{Epoch: 1, Certs: []byte("c"), Signer: []byte("k"), Signs: "1"},
		trust.OpPutToken:       trust.Token{Hash: "h", Rights: 1, Expires: w.in(9)},
		trust.OpJoin:           trust.Join{Name: "n", Rights: 1, Cert: w.cert("1")},
		trust.OpRenew:          trust.Renew{Name: "n", Shown: "1", Cert: w.cert("2")},
		trust.OpConfirm:        trust.Confirm{Name: "n", Serial: "1"},
		trust.OpRevoke:         trust.Named{Name: "n"},
		trust.OpPrune:          trust.Prune{After: "5i"},
		trust.OpIdentities:     trust.List{After: &trust.Named{Name: "n"}},
		trust.OpToken:          trust.Hashed{Hash: "h"},
	} {
		f.Add(uint16(op), state.Marshal(req))
	}
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		w := began(t)
		switch op := state.Op(op); {
		case w.m.IsQuery(op):
			w.m.Answer(w.store, state.Command{Op: op, Body: body})
		case w.m.IsCommand(op):
			before := w.rows()
			if reply := w.m.Apply(w.store, state.Command{Op: op, Time: w.now, Body: body}); reply.Kind != 0 && w.rows() != before {
				t.Errorf("op %#x failed with %v and changed something", uint16(op), reply.Err())
			}
		}
	})
}
