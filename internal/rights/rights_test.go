package rights

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	chunkrpc "dos/chunk/rpc"
	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/cache"
	"dos/meta/client"
	"dos/meta/members"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/queue"
	metarpc "dos/meta/rpc"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/task"
	metatrust "dos/meta/trust"
)

var (
	_ metarpc.Handler = (*Meta)(nil)
	_ metarpc.Leader  = (*Meta)(nil)
)

// Somebody has decided about every operation, and about none that there is not.
func TestAllOps(t *testing.T) {
	m := node.Machine()
	for op := range state.Op(0xffff) {
		right, listed := ops[op]
		switch known := m.IsCommand(op) || m.IsQuery(op); {
		case known != listed:
			t.Errorf("operation %#04x: registered %v, in the table of ops.go %v: say there who may ask for it", uint16(op), known, listed)
		case listed && (right < trust.ReadOnly || right > never):
			t.Errorf("operation %#04x needs %v", uint16(op), right)
		case metatrust.Secret(op) != (listed && right == never):
			t.Errorf("operation %#04x: secret %v, needs %v", uint16(op), metatrust.Secret(op), right)
		case m.IsCommand(op) && right == trust.ReadOnly && !slices.Contains(readers, op):
			t.Errorf("operation %#04x is a command that anybody may ask for", uint16(op))
		}
	}
}

// readers are the commands that peers may ask for who can only read: on sessions,
// and on what a session holds.
var readers = []state.Op{
	0x0001, 0x0002, 0x0004, // session: open, end, advance
	0x0106,         // namespace: drop
	0x0400, 0x0401, // lease: take, give
	0x0500, 0x0501, 0x0502, // lock: set, cancel, drop
	0x0516, 0x0517, // named: recall, watch
}

// Likewise of every method; Guard panics if one is not in the table.
func TestAllMethods(t *testing.T) {
	s := chunkrpc.Serve(nil)
	Guard(s, Chunk, nil)
	there := slices.Sorted(maps.Keys(s.Calls))
	there = append(there, slices.Sorted(maps.Keys(s.Streams))...)
	slices.Sort(there)
	if listed := slices.Sorted(maps.Keys(Chunk)); !slices.Equal(listed, there) {
		t.Errorf("the methods are %v, the table has %v", there, listed)
	}
	defer func() {
		if recover() == nil {
			t.Error("a method that nobody has decided about is served")
		}
	}()
	Guard(s, Node, nil)
}

// asPeer is the context of a peer's calls, whom says who asks.
type asPeer struct{}

func whom(ctx context.Context) (trust.Peer, error) {
	peer, ok := ctx.Value(asPeer{}).(trust.Peer)
	if !ok {
		return peer, trust.ErrRefused
	}
	return peer, nil
}

func as(t testing.TB, name string, rights trust.Rights) context.Context {
	return context.WithValue(t.Context(), asPeer{}, trust.Peer{Identity: trust.Identity{Name: name, Rights: rights}})
}

// A spy notes which operations reach it.
type spy map[state.Op]bool

func (s spy) Do(_ context.Context, cmd state.Command) (state.Reply, error) {
	s[cmd.Op] = true
	return state.Reply{Body: state.Marshal(struct{}{})}, nil
}

// Each right reaches what it may and nothing else.
func TestMetaRights(t *testing.T) {
	for right := trust.None; right <= trust.Member; right++ {
		seen := make(spy)
		m := NewMeta(seen, whom)
		for op, need := range ops {
			body := state.Marshal(struct{}{})
			switch op {
			case members.OpPutNode:
				body = state.Marshal(members.Node{Name: "x"})
			case task.OpSubmit:
				body = state.Marshal(task.Submit{Owner: task.Owner{UID: 1}})
			case task.OpOffer:
				body = state.Marshal(task.Offer{Node: "x"})
			case cache.OpServe:
				body = state.Marshal(cache.Serve{Node: "x"})
			case queue.OpServe:
				body = state.Marshal(queue.Serve{Node: "x"})
			case session.OpEnd, session.OpRenew: // see TestSessions
				continue
			}
			_, err := m.Do(as(t, "x", right), state.Command{Op: op, Body: body})
			if ok := right >= need; ok != (err == nil) || ok != seen[op] || !ok && !errors.Is(err, meta.Permission) {
				t.Errorf("%v asks for %#04x: %v", right, uint16(op), err)
			}
		}
		if _, err := m.Do(t.Context(), state.Command{Op: session.OpSessions}); !errors.Is(err, meta.Permission) {
			t.Errorf("a stranger: %v", err)
		}
		if _, err := m.Do(as(t, "x", right), state.Command{Op: 0x3fff}); !errors.Is(err, meta.Unsupported) {
			t.Errorf("no operation: %v", err)
		}
		if _, err := m.Do(as(t, "y", right), state.Command{Op: members.OpPutNode, Body: state.Marshal(members.Node{Name: "x"})}); !errors.Is(err, meta.Permission) {
			t.Errorf("another machine's record: %v", err)
		}
		for op := range specials {
			if _, err := m.Do(as(t, "x", right), state.Command{Op: op, Body: []byte{0xff}}); err == nil {
				t.Errorf("operation %#04x with garbage was passed on", uint16(op))
			}
		}
	}
}

// sender is a Sender that speaks as one peer.
type sender struct {
	*Meta
	peer trust.Peer
}

func (s sender) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	return s.Meta.Do(context.WithValue(ctx, asPeer{}, s.peer), cmd)
}

func TestSessions(t *testing.T) {
	memory := metatest.NewMemory(node.Machine())
	meta1 := NewMeta(memory, whom)
	by := func(name string, rights trust.Rights) client.Session {
		return client.Session{Caller: client.Direct(sender{meta1, trust.Peer{Identity: trust.Identity{Name: name, Rights: rights}}}, 0)}
	}
	in := func(name string, rights trust.Rights, id meta.SessionID) client.Session {
		return client.Session{Caller: client.Direct(sender{meta1, trust.Peer{Identity: trust.Identity{Name: name, Rights: rights}}}, id)}
	}
	renewal := func(s client.Session, id meta.SessionID) error {
		return s.Caller.Call(t.Context(), session.OpRenew, session.Ask{ID: id}, nil)
	}
	want := func(what string, err, kind error) {
		t.Helper()
		if !errors.Is(err, kind) {
			t.Errorf("%s: %v, want %v", what, err, kind)
		}
	}
	var lies session.Info
	err := by("x", trust.ReadOnly).Caller.Call(t.Context(), session.OpOpen, session.Open{Name: "m", Peer: "node/a"}, &lies)
	if err != nil || lies.Peer != "client/x" {
		t.Errorf("%+v, %v", lies, err)
	}
	a, err := by("a", trust.ReadWrite).Open(t.Context(), "mount", "h", 0)
	if err != nil || a.Peer != "client/a" {
		t.Fatalf("%+v, %v", a, err)
	}
	local, err := client.Session{Caller: client.Direct(memory, 0)}.Open(t.Context(), "embedded", "h", 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time the owner is known
		want("its own", in("a", trust.ReadWrite, a.ID).Advance(t.Context(), 1), nil)
		want("with other rights", in("a", trust.ReadOnly, a.ID).Advance(t.Context(), 1), nil)
		want("another's", in("b", trust.ReadWrite, a.ID).Advance(t.Context(), 1), meta.Permission)
		want("an administrator's", in("root", trust.Admin, a.ID).Advance(t.Context(), 1), meta.Permission)
		want("a machine's of the same name", in("a", trust.Member, a.ID).Advance(t.Context(), 1), meta.Permission)
		_, err := in("b", trust.ReadWrite, a.ID).Reserve(t.Context(), 1)
		want("another reserves", err, meta.Permission)
		_, err = in("b", trust.ReadWrite, a.ID).List(t.Context())
		want("another asks", err, meta.Permission)
		want("one of the member's own process", in("b", trust.Member, local.ID).Advance(t.Context(), 1), meta.Permission)
		want("one that there is not", in("a", trust.ReadWrite, 99).Advance(t.Context(), 1), meta.Expired)
		want("its own is renewed", renewal(by("a", trust.ReadOnly), a.ID), nil)
		want("another's is renewed", renewal(by("b", trust.Admin), a.ID), meta.Permission)
		want("none is renewed", renewal(by("b", trust.Admin), 99), meta.Expired)
		want("another's is ended", by("b", trust.ReadWrite).End(t.Context(), a.ID), meta.Permission)
		want("one that there is not is ended", by("b", trust.ReadWrite).End(t.Context(), 99), nil)
	}
	_, err = by("b", trust.ReadOnly).Info(t.Context(), a.ID)
	want("a look at another's", err, nil)
	want("an administrator ends it", by("root", trust.Admin).End(t.Context(), a.ID), nil)
	want("its own, ended", in("a", trust.ReadWrite, a.ID).Advance(t.Context(), 1), meta.Expired)
	want("its own, ended again", by("a", trust.ReadWrite).End(t.Context(), a.ID), nil)
	want("its own is ended", by("x", trust.ReadOnly).End(t.Context(), lies.ID), nil)
	for i := range ownersMax {
		meta1.owners[meta.SessionID(1000+i)] = "x"
	}
	b, err := by("b", trust.ReadOnly).Open(t.Context(), "mount", "h", 0)
	if err != nil {
		t.Fatal(err)
	}
	want("after many", in("b", trust.ReadWrite, b.ID).Advance(t.Context(), 1), nil)
	if len(meta1.owners) > ownersMax {
		t.Errorf("%d owners are remembered", len(meta1.owners))
	}
}

// A member that does not answer is not taken for a session that is over.
func TestOwnerUnknown(t *testing.T) {
	m := NewMeta(handler(func(state.Command) (state.Reply, error) {
		return state.Reply{}, fmt.Errorf("no leader: %w", meta.Unavailable)
	}), whom)
	if _, err := m.Do(as(t, "a", trust.ReadWrite), state.Command{Op: session.OpAdvance, Session: 1}); !errors.Is(err, meta.Unavailable) {
		t.Errorf("%v", err)
	}
}

// follower is a handler that does not lead.
type follower struct{ spy }

func (follower) Leader() (bool, string) { return false, "b:1" }

func TestLeader(t *testing.T) {
	if me, addr := NewMeta(make(spy), whom).Leader(); !me || addr != "" {
		t.Errorf("alone: %v, %q", me, addr)
	}
	if me, addr := NewMeta(follower{}, whom).Leader(); me || addr != "b:1" {
		t.Errorf("a follower: %v, %q", me, addr)
	}
}

type handler func(cmd state.Command) (state.Reply, error)

func (h handler) Do(_ context.Context, cmd state.Command) (state.Reply, error) { return h(cmd) }

// cluster is identities of one cluster.
type cluster struct {
	t  *testing.T
	ca *trust.Authority
}

func newCluster(t *testing.T) cluster {
	ca, err := trust.NewAuthority(trust.ClusterID{1})
	if err != nil {
		t.Fatal(err)
	}
	return cluster{t, ca}
}

func (c cluster) ring(name string, rights trust.Rights) *trust.Keyring {
	c.t.Helper()
	req, err := trust.NewRequest()
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := c.ca.Sign(req.CSR, trust.Identity{Cluster: trust.ClusterID{1}, Name: name, Rights: rights})
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := req.Credentials(cert, c.ca.CertPEM())
	if err != nil {
		c.t.Fatal(err)
	}
	k, err := trust.NewKeyring(text)
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

// Over real connections: who asks is who the certificate names.
func TestConnections(t *testing.T) {
	c := newCluster(t)
	keys := c.ring("a", trust.Member)
	port := rpc.NewPort(rpctest.Listen(t), keys.ServerConfig(rpc.HTTP2), slog.New(slog.DiscardHandler), rpc.HTTP2)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	who := Who(keys)
	methods := rpc.Service{
		Name: "test",
		Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
			"ReadAt": func(context.Context, *rpc.Frame) (*rpc.Frame, error) { return new(rpc.Frame), nil },
			"Put":    func(context.Context, *rpc.Frame) (*rpc.Frame, error) { return new(rpc.Frame), nil },
			"Delete": func(context.Context, *rpc.Frame) (*rpc.Frame, error) { return new(rpc.Frame), nil },
		},
		Streams: map[string]func(*rpc.Stream) error{
			"List": func(s *rpc.Stream) error { return s.Send(new(rpc.Frame)) },
		},
	}
	memory := metatest.NewMemory(node.Machine())
	go func() { ended <- port.Run(ctx) }()
	go func() {
		ended <- rpc.Serve(ctx, port.Listener(rpc.HTTP2), rpc.ServerConfig{}, Guard(methods, Chunk, who), metarpc.Serve(NewMeta(memory, who)))
	}()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := (client.Files{Caller: client.Direct(memory, 0)}).Init(t.Context(), 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	for name, right := range map[string]trust.Rights{"ro": trust.ReadOnly, "rw": trust.ReadWrite, "admin": trust.Admin, "node": trust.Member} {
		conn := rpctest.Dial(t, port.Addr().String(), rpc.ClientConfig{TLS: c.ring(name, right).ClientConfig("a", rpc.HTTP2)})
		for method := range methods.Calls {
			var resp rpc.Frame
			err := conn.Call(t.Context(), "test", method, new(rpc.Frame), &resp)
			resp.Free()
			if ok := right >= Chunk[method]; ok != (err == nil) || !ok && (!errors.Is(err, rpc.ErrRefused) || !strings.Contains(err.Error(), "is for")) {
				t.Errorf("%s calls %s: %v", name, method, err)
			}
		}
		stream, err := conn.Open(t.Context(), "test", "List")
		if err == nil {
			err = stream.Recv(new(rpc.Frame))
		}
		if ok := right >= Chunk["List"]; ok != (err == nil) {
			t.Errorf("%s lists: %v", name, err)
		}
		m := metarpc.NewClient(func(string) (*rpc.Client, error) { return conn, nil }, "a")
		defer m.Close()
		info, err := client.Session{Caller: client.Direct(m, 0)}.Open(t.Context(), "mount", "h", 0)
		if err != nil || !strings.HasSuffix(info.Peer, "/"+name) {
			t.Fatalf("%s opens a session: %+v, %v", name, info, err)
		}
		files := client.Files{Caller: client.NewRemote(m, info.ID)}
		if _, err := files.Attr(t.Context(), meta.Root); err != nil {
			t.Errorf("%s reads: %v", name, err)
		}
		_, err = files.Create(t.Context(), meta.Root, name, meta.Node{Mode: meta.TypeDir | 0o755})
		if ok := right >= trust.ReadWrite; ok != (err == nil) || !ok && !errors.Is(err, meta.Permission) {
			t.Errorf("%s makes a directory: %v", name, err)
		}
		// A refusal leaves the session as good as before.
		if err := client.Session(files).Advance(t.Context(), 1); err != nil {
			t.Errorf("%s goes on: %v", name, err)
		}
	}
	if _, err := who(t.Context()); !errors.Is(err, trust.ErrRefused) {
		t.Errorf("a call over no connection: %v", err)
	}
}

// A machine that was turned out is not on record again, however late this
// process hears that it was.
func TestTurnedOutStaysOut(t *testing.T) {
	out := metatrust.Authorities{Epoch: 3, Revoked: []string{"7"}}
	wrote := make(spy)
	m := NewMeta(handler(func(cmd state.Command) (state.Reply, error) {
		wrote[cmd.Op] = true
		return state.Reply{Body: state.Marshal(out)}, nil
	}), whom)
	for op, req := range map[state.Op]any{members.OpPutNode: members.Node{Name: "x"}, members.OpPutStore: members.Store{Node: "x"}} {
		for serial, want := range map[string]error{"6": nil, "7": meta.Unavailable} {
			delete(wrote, op)
			ctx := context.WithValue(t.Context(), asPeer{}, trust.Peer{Identity: trust.Identity{Name: "x", Rights: trust.Member}, Serial: serial})
			if _, err := m.Do(ctx, state.Command{Op: op, Body: state.Marshal(req)}); !errors.Is(err, want) || wrote[op] != (want == nil) {
				t.Errorf("operation %#04x of certificate %s: %v, passed on %v", uint16(op), serial, err, wrote[op])
			}
		}
	}
}
