package call

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// A world is a machine with sessions and services, in memory.
type world struct {
	t     testing.TB
	m     *state.Machine
	store *state.Overlay
	clock time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), clock: time.Unix(1e9, 0)}
	session.Register(w.m, Release)
	Register(w.m)
	return w
}

// do sends a request. A command that fails must have changed nothing.
func do[Resp any](w *world, s meta.SessionID, op state.Op, req any) (resp Resp, err error) {
	w.t.Helper()
	reply := statetest.Do(w.t, w.m, w.store, state.Command{Op: op, Time: w.clock.UnixNano(), Session: s, Body: state.Marshal(req)})
	if reply.Kind == 0 {
		state.MustUnmarshal(reply.Body, &resp)
	}
	return resp, reply.Err()
}

func must[Resp any](w *world, s meta.SessionID, op state.Op, req any) Resp {
	w.t.Helper()
	resp, err := do[Resp](w, s, op, req)
	if err != nil {
		w.t.Fatalf("op %#x %+v: %v", uint16(op), req, err)
	}
	return resp
}

func (w *world) open() meta.SessionID {
	return must[session.Info](w, 0, session.OpOpen, session.Open{Name: "test"}).ID
}

func (w *world) end(s meta.SessionID) {
	for more := true; more; {
		more = must[session.Ended](w, 0, session.OpEnd, session.End{ID: s}).More
	}
}

func (w *world) rows() string {
	var b strings.Builder
	for k, v := range w.store.Changes() {
		if k[0] == 'a' {
			fmt.Fprintf(&b, "%s %x %x\n", k[:2], k[2:], v)
		}
	}
	return b.String()
}

func TestGoldenOps(t *testing.T) {
	m := new(state.Machine)
	Register(m)
	statetest.Golden(t, "testdata/ops.golden", strings.Join(m.Ops(), "\n")+"\n")
}

// A change here is a change of format: what is written must be read for ever.
func TestGoldenRows(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	must[none](w, 0, OpMake, Make{Name: "s", UID: 1, GID: 2, Mode: 0o755})
	must[Joined](w, a, OpJoin, Join{Name: "s", Instance: Instance{At: "n", Addr: "h:1", Node: "m", UID: 3, PID: 4, Target: "tcp://x:1"}})
	balance, timeout, retries := Random, time.Second, 7
	must[none](w, 0, OpSet, Set{Name: "s", Balance: &balance, Timeout: &timeout, Retries: &retries})
	statetest.Golden(t, "testdata/rows.golden", w.rows())
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(), w.open()
	must[none](w, 0, OpMake, Make{Name: "s", Mode: 0o700})
	mine := must[Joined](w, a, OpJoin, Join{Name: "s"}).Number
	odd, short, long, many := Balance(9), time.Duration(0), TimeoutMax+1, RetriesMax+1
	mode := uint32(0o10000)
	for _, c := range []struct {
		session meta.SessionID
		op      state.Op
		req     any
		want    meta.Kind
	}{
		{0, OpMake, Make{Name: "s"}, meta.Exist},
		{0, OpMake, Make{Name: ".x"}, meta.Invalid},
		{0, OpMake, Make{Name: "a/b"}, meta.Invalid},
		{0, OpMake, Make{}, meta.Invalid},
		{0, OpMake, Make{Name: strings.Repeat("x", 256)}, meta.NameTooLong},
		{0, OpRemove, Named{"s"}, meta.Busy},
		{0, OpRemove, Named{"t"}, meta.NotExist},
		{0, OpSet, Set{Name: "t"}, meta.NotExist},
		{0, OpSet, Set{Name: "s", Balance: &odd}, meta.Invalid},
		{0, OpSet, Set{Name: "s", Timeout: &short}, meta.Invalid},
		{0, OpSet, Set{Name: "s", Timeout: &long}, meta.Invalid},
		{0, OpSet, Set{Name: "s", Retries: &many}, meta.Invalid},
		{0, OpSet, Set{Name: "s", Mode: &mode}, meta.Invalid},
		{0, OpJoin, Join{Name: "s"}, meta.Invalid},
		{a, OpJoin, Join{Name: "t"}, meta.NotExist},
		{b, OpJoin, Join{Name: "s", Instance: Instance{Number: mine}}, meta.NotExist},
		{a, OpJoin, Join{Name: "s", Instance: Instance{Node: strings.Repeat("x", 256)}}, meta.Invalid},
		{a, OpJoin, Join{Name: "s", Instance: Instance{Target: "a\nb"}}, meta.Invalid},
		{0, OpStatus, Named{"t"}, meta.NotExist},
		{0, OpList, List{}, meta.Invalid},
	} {
		if _, err := do[any](w, c.session, c.op, c.req); !errors.Is(err, c.want) {
			t.Errorf("%d asks %#x %+v: %v, want %v", c.session, uint16(c.op), c.req, err, c.want)
		}
	}
	// Leaving what another session has does nothing.
	must[none](w, b, OpLeave, Leave{mine})
	if n := must[Status](w, 0, OpStatus, Named{"s"}).Service.Count; n != 1 {
		t.Errorf("%d instances", n)
	}
	for range InstancesMax - 1 {
		must[Joined](w, a, OpJoin, Join{Name: "s"})
	}
	if _, err := do[Joined](w, a, OpJoin, Join{Name: "s"}); !errors.Is(err, meta.Quota) {
		t.Errorf("one instance too many: %v", err)
	}
	w.end(a)
	if st := must[Status](w, 0, OpStatus, Named{"s"}); st.Service.Count != 0 || len(st.Instances) != 0 {
		t.Errorf("its session is over, and there are %+v", st)
	}
}

// Whatever sessions do, a service has the instances of those that are there, and
// nothing is left of the others.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	names := []string{"a", "b", "c"}
	type key struct {
		session meta.SessionID
		number  uint64
	}
	model := make(map[string]map[key]string) // node by instance
	var sessions []meta.SessionID
	last := uint64(0)
	for range 3000 {
		name := names[r.IntN(len(names))]
		switch r.IntN(8) {
		case 0:
			if _, err := do[none](w, 0, OpMake, Make{Name: name}); (err == nil) != (model[name] == nil) {
				t.Fatalf("make %s: %v", name, err)
			} else if err == nil {
				model[name] = make(map[key]string)
			}
		case 1:
			_, err := do[none](w, 0, OpRemove, Named{name})
			if ok := model[name] != nil && len(model[name]) == 0; ok != (err == nil) {
				t.Fatalf("remove %s: %v", name, err)
			} else if ok {
				delete(model, name)
			}
		case 2:
			sessions = append(sessions, w.open())
		case 3:
			if len(sessions) < 4 {
				continue
			}
			i := r.IntN(len(sessions))
			s := sessions[i]
			sessions = slices.Delete(sessions, i, i+1)
			w.end(s)
			for _, in := range model {
				for k := range in {
					if k.session == s {
						delete(in, k)
					}
				}
			}
		case 4, 5:
			if len(sessions) == 0 {
				continue
			}
			s := sessions[r.IntN(len(sessions))]
			got, err := do[Joined](w, s, OpJoin, Join{Name: name, Instance: Instance{Node: "n"}})
			if (err == nil) != (model[name] != nil) {
				t.Fatalf("join %s: %v", name, err)
			} else if err == nil {
				if got.Number <= last {
					t.Fatalf("number %d after %d", got.Number, last)
				}
				last = got.Number
				model[name][key{s, got.Number}] = "n"
			}
		default:
			for k := range model[name] {
				if r.IntN(2) == 0 {
					must[none](w, k.session, OpLeave, Leave{k.number})
					delete(model[name], k)
				} else {
					must[Joined](w, k.session, OpJoin, Join{Name: name, Instance: Instance{Number: k.number, Node: "m"}})
					model[name][k] = "m"
				}
				break
			}
		}
		rows := 1
		for name, in := range model {
			st := must[Status](w, 0, OpStatus, Named{name})
			if len(st.Instances) != len(in) || st.Service.Count != len(in) {
				t.Fatalf("%s has %d instances, count %d, want %d", name, len(st.Instances), st.Service.Count, len(in))
			}
			for _, i := range st.Instances {
				if in[key{i.Session, i.Number}] != i.Node {
					t.Fatalf("%s: instance %+v, want node %q", name, i, in[key{i.Session, i.Number}])
				}
			}
			rows += 1 + 2*len(in)
		}
		if got := strings.Count(w.rows(), "\n"); got > rows {
			t.Fatalf("%d rows, at most %d are of use", got, rows)
		}
	}
	listed := must[Names](w, 0, OpList, List{Limit: 2})
	if listed.More {
		listed.Services = append(listed.Services, must[Names](w, 0, OpList, List{After: listed.Services[1].Name, Limit: 2}).Services...)
	}
	if len(listed.Services) != len(model) {
		t.Errorf("listed are %+v of %d", listed, len(model))
	}
}
