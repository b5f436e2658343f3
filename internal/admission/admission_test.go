package admission_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/internal/admission"
	"dos/internal/rights"
	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	metarpc "dos/meta/rpc"
	"dos/meta/state"
	metatrust "dos/meta/trust"
)

// member is a metadata member in memory.
type member struct {
	*metatest.Memory
	down atomic.Bool // it does not lead
}

func newMember() *member { return &member{Memory: metatest.NewMemory(node.Machine())} }

func (m *member) Call(ctx context.Context, op state.Op, req, resp any) error {
	if m.down.Load() {
		return fmt.Errorf("another leads: %w", meta.Unavailable)
	}
	return client.Direct(m.Memory, 0).Call(ctx, op, req, resp)
}

func (m *member) Local(op state.Op, req, resp any) error {
	return client.Direct(m.Memory, 0).Call(context.Background(), op, req, resp)
}

// A book is a log that tests read.
type book struct {
	mu    sync.Mutex
	lines []string
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, string(p))
	return len(p), nil
}

// take returns what was written since.
func (b *book) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := strings.Join(b.lines, "")
	b.lines = nil
	return text
}

// until waits for something to become true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const limit = time.Minute // of a machine that is busy
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not in %v", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// An office is a machine with a metadata member.
type office struct {
	*admission.Office
	member *member
	keys   *trust.Keyring
	path   string
	port   *rpc.Port
	log    *book
}

// found makes a cluster's authority and first identity.
func found(t testing.TB, m *member, path string) *trust.Keyring {
	t.Helper()
	authority, text, err := admission.Found(trust.ClusterID{1}, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := trust.Save(path, text); err != nil {
		t.Fatal(err)
	}
	keys, err := trust.NewKeyring(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := admission.Deposit(t.Context(), m, authority, keys); err != nil {
		t.Fatal(err)
	}
	return keys
}

// begin makes a cluster of one machine, a, that serves.
func begin(t *testing.T) *office {
	t.Helper()
	o := &office{member: newMember(), path: filepath.Join(t.TempDir(), "identity"), log: new(book)}
	o.keys = found(t, o.member, o.path)
	log := slog.New(slog.NewTextHandler(o.log, nil))
	o.port = rpc.NewPort(rpctest.Listen(t), o.keys.ServerConfig(rpc.HTTP2), slog.New(slog.DiscardHandler), rpc.HTTP2, trust.JoinProto)
	o.Office = admission.NewOffice(admission.Config{Keys: o.keys, Member: o.member, Addr: o.port.Addr().String(), Log: log})
	who := rights.Who(o.keys)
	echo := rpc.Service{Name: "test.echo", Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
		"Echo": func(context.Context, *rpc.Frame) (*rpc.Frame, error) { return new(rpc.Frame), nil },
	}}
	run(t, o.port.Run)
	run(t, o.Run)
	run(t, func(ctx context.Context) error { return o.Serve(ctx, o.port.Listener(trust.JoinProto)) })
	run(t, func(ctx context.Context) error {
		return rpc.Serve(ctx, o.port.Listener(rpc.HTTP2), rpc.ServerConfig{}, o.Service(), metarpc.Serve(rights.NewMeta(o.member, who)), echo)
	})
	run(t, admission.NewKeeper(admission.KeeperConfig{
		Keys: o.keys, Path: o.path, Authorities: client.Trust{Caller: o.member}.Authorities, Renewer: o.Own(),
		Drop: o.port.Drop, Every: 20 * time.Millisecond, Log: log,
	}).Run)
	return o
}

// run runs something until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A guest is a process that joined.
type guest struct {
	keys *trust.Keyring
	path string
	rpc  *rpc.Client
	*admission.Client
}

func (o *office) token(t *testing.T, w admission.TokenWish) trust.Token {
	t.Helper()
	text, err := o.CreateToken(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	token, err := trust.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (o *office) join(t *testing.T, name string, rights trust.Rights) *guest {
	t.Helper()
	text, members, err := trust.Join(t.Context(), o.token(t, admission.TokenWish{Rights: rights}), name, rights == trust.Member)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(members, []string{o.port.Addr().String()}) {
		t.Errorf("%s was told of %q", name, members)
	}
	g := &guest{path: filepath.Join(t.TempDir(), "identity")}
	if err := trust.Save(g.path, text); err != nil {
		t.Fatal(err)
	}
	if g.keys, err = trust.NewKeyring(text); err != nil {
		t.Fatal(err)
	}
	if id := g.keys.Self(); id != (trust.Identity{Cluster: trust.ClusterID{1}, Name: name, Rights: rights}) {
		t.Errorf("%s is %v", name, id)
	}
	g.rpc = g.dial(t, o)
	g.Client = admission.NewClient(func() []*rpc.Client { return []*rpc.Client{g.rpc} })
	return g
}

func (g *guest) dial(t *testing.T, o *office) *rpc.Client {
	return rpctest.Dial(t, o.port.Addr().String(), rpc.ClientConfig{TLS: g.keys.ClientConfig("a", rpc.HTTP2)})
}

// keep has a Keeper look after a guest, over its connections.
func (g *guest) keep(t *testing.T, o *office) {
	service := metarpc.NewClient(func(addr string) (*rpc.Client, error) {
		return rpc.Dial(addr, rpc.ClientConfig{TLS: g.keys.ClientConfig("", rpc.HTTP2), Conns: 1})
	}, o.port.Addr().String())
	t.Cleanup(service.Close)
	run(t, admission.NewKeeper(admission.KeeperConfig{
		Keys: g.keys, Path: g.path, Authorities: client.Trust{Caller: client.Direct(service, 0)}.Authorities, Renewer: g,
		Every: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	}).Run)
}

func echo(ctx context.Context, c *rpc.Client) error {
	var resp rpc.Frame
	defer resp.Free()
	return c.Call(ctx, "test.echo", "Echo", new(rpc.Frame), &resp)
}

func wantKind(t *testing.T, what string, err error, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestFound(t *testing.T) {
	if _, _, err := admission.Found(trust.ClusterID{1}, "a/b"); err == nil {
		t.Error("a bad name is taken")
	}
	m := newMember()
	authority, text, err := admission.Found(trust.ClusterID{1}, "a")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := trust.NewKeyring(text)
	if err != nil || keys.Self() != (trust.Identity{Cluster: trust.ClusterID{1}, Name: "a", Rights: trust.Member}) {
		t.Fatal(err)
	}
	m.down.Store(true)
	wantKind(t, "while another leads", admission.Deposit(t.Context(), m, authority, keys), meta.Unavailable)
	m.down.Store(false)
	for range 2 {
		if err := admission.Deposit(t.Context(), m, authority, keys); err != nil {
			t.Fatal(err)
		}
	}
	other, text, err := admission.Found(trust.ClusterID{1}, "a")
	if err != nil {
		t.Fatal(err)
	}
	otherKeys, err := trust.NewKeyring(text)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, "another authority", admission.Deposit(t.Context(), m, other, otherKeys), meta.Conflict)
	wantKind(t, "another's identity", admission.Deposit(t.Context(), m, authority, otherKeys), meta.Exist)
	list, err := client.Trust{Caller: m}.Identities(t.Context())
	if err != nil || len(list) != 1 || list[0].InUse != keys.Serial() || list[0].Certs[0].Issuer != keys.Issuer() {
		t.Errorf("on record are %+v, %v", list, err)
	}
}

func TestTokens(t *testing.T) {
	o := begin(t)
	for _, bad := range []admission.TokenWish{
		{}, {Rights: 9}, {Rights: trust.Admin, Name: "a b"}, {Rights: trust.Admin, Life: -1}, {Rights: trust.Admin, Life: admission.TokenLifeMax + 1},
	} {
		_, err := o.CreateToken(t.Context(), bad)
		wantKind(t, fmt.Sprintf("%+v", bad), err, meta.Invalid)
	}
	text, err := o.CreateToken(t.Context(), admission.TokenWish{Rights: trust.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	if token, err := trust.ParseToken(text); err != nil || token.CA != o.keys.Issuer() || strings.Contains(o.log.take(), token.Secret) {
		t.Errorf("%s: %v", text, err)
	}
}

// Who may not join is told why, and the log has one line about it.
func TestRefused(t *testing.T) {
	o, other := begin(t), begin(t)
	machine := admission.TokenWish{Rights: trust.Member}
	used := o.token(t, machine)
	if _, _, err := trust.Join(t.Context(), used, "b", true); err != nil {
		t.Fatal(err)
	}
	wrong := o.token(t, machine)
	wrong.Secret = trust.NewToken("", "").Secret
	foreign := o.token(t, machine)
	foreign.CA = other.keys.Issuer()
	elsewhere := o.token(t, machine)
	elsewhere.Addr, elsewhere.CA = other.port.Addr().String(), other.keys.Issuer()
	back := o.token(t, machine)
	if err := (client.Trust{Caller: o.member}).DeleteToken(t.Context(), trust.HashSecret(back.Secret)); err != nil {
		t.Fatal(err)
	}
	short := o.token(t, admission.TokenWish{Rights: trust.Member, Life: 50 * time.Millisecond})
	until(t, "the token is over", func() bool {
		tok, err := client.Trust{Caller: o.member}.Token(t.Context(), trust.HashSecret(short.Secret))
		return err == nil && tok.Expires < meta.At(time.Now())
	})
	for _, test := range []struct {
		what  string
		token trust.Token
		name  string
		node  bool
		said  string // to the joiner
		log   string // where it asked
	}{
		{what: "a wrong secret", token: wrong, name: "c", node: true, said: "is not known here", log: "is not known here"},
		{what: "used", token: used, name: "c", node: true, said: "was used already", log: "it was used by b"},
		{what: "over", token: short, name: "c", node: true, said: "was good until", log: "was good until"},
		{what: "taken back", token: back, name: "c", node: true, said: "is not known here", log: "is not known here"},
		{what: "a machine's, from a client", token: o.token(t, machine), name: "c", said: "for a machine", log: "for a machine"},
		{what: "a client's, from a machine", token: o.token(t, admission.TokenWish{Rights: trust.Admin}), name: "c", node: true, said: "for a client", log: "for a client"},
		{what: "another's", token: o.token(t, admission.TokenWish{Rights: trust.Member, Name: "d"}), name: "c", node: true, said: "for the name d", log: "for the name d"},
		{what: "a name that is taken", token: o.token(t, machine), name: "b", node: true, said: "another machine has the name b", log: "another machine has the name b"},
		{what: "the first machine's name", token: o.token(t, machine), name: "a", node: true, said: "another machine has the name a", log: "another machine has the name a"},
		{what: "another cluster's authority", token: foreign, name: "c", node: true, said: "not of the cluster"},
		{what: "another cluster", token: elsewhere, name: "c", node: true, said: "is not known here"},
	} {
		o.log.take()
		_, _, err := trust.Join(t.Context(), test.token, test.name, test.node)
		if !errors.Is(err, trust.ErrRefused) || !strings.Contains(err.Error(), test.said) {
			t.Errorf("%s: %v, want %q", test.what, err, test.said)
		}
		if err != nil && strings.Contains(err.Error(), test.token.Secret) {
			t.Errorf("%s: the error has the secret", test.what)
		}
		if test.log == "" {
			continue
		}
		var log string
		until(t, test.what+" is in the log", func() bool { log += o.log.take(); return log != "" })
		if n := strings.Count(log, "\n"); n != 1 || !strings.Contains(log, test.log) || !strings.Contains(log, "name="+test.name) || strings.Contains(log, test.token.Secret) {
			t.Errorf("%s: the log says, in %d lines, %s", test.what, n, log)
		}
	}
	// A name that is refused does not use the token up, and one that was turned out is free.
	token := o.token(t, machine)
	if _, _, err := trust.Join(t.Context(), token, "b", true); err == nil {
		t.Error("a name was taken twice")
	}
	if err := o.Revoke(t.Context(), true, "b"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := trust.Join(t.Context(), token, "b", true); err != nil {
		t.Errorf("a name that is free again: %v", err)
	}
	// Of many who show the same token, one gets in.
	token = o.token(t, machine)
	var in atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, _, err := trust.Join(t.Context(), token, fmt.Sprint("m", i), true)
			if err == nil {
				in.Add(1)
			} else if !strings.Contains(err.Error(), "was used") {
				t.Errorf("late: %v", err)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d joined with one token", in.Load())
	}
	o.member.down.Store(true)
	if _, _, err := trust.Join(t.Context(), token, "x", true); err == nil || !strings.Contains(err.Error(), "try again later") {
		t.Errorf("while there is no leader: %v", err)
	}
}

// Anything may be sent to who admits joiners, and nobody else waits for it.
func TestGarbage(t *testing.T) {
	o := begin(t)
	dial := func() *tls.Conn {
		conn, err := tls.Dial("tcp", o.port.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{trust.JoinProto}})
		if err != nil {
			t.Error(err)
			runtime.Goexit()
		}
		return conn
	}
	b := o.join(t, "b", trust.ReadOnly)
	// Half-open ones, more than are served at once, before the first is given up.
	idle := make([]*tls.Conn, 100)
	var dialled sync.WaitGroup
	for i := range idle {
		dialled.Go(func() { idle[i] = dial() })
	}
	if dialled.Wait(); t.Failed() {
		return
	}
	until(t, "some are sent away", func() bool { return strings.Contains(o.log.take(), "too many join at once") })
	if err := echo(t.Context(), b.dial(t, o)); err != nil {
		t.Errorf("others wait for them: %v", err)
	}
	for _, conn := range idle {
		conn.Close()
	}
	token := o.token(t, admission.TokenWish{Rights: trust.ReadOnly})
	until(t, "the next joins", func() bool {
		_, _, err := trust.Join(t.Context(), token, "c", false)
		return err == nil
	})
	for name, sent := range map[string]string{
		"not a message": "GET / HTTP/1.1\r\n\r\n", "too long": "\xff\xff\xff\xff{", "half": "\x00\x00\x00\xff{", "nothing of use": "\x00\x00\x00\x02{}",
		"a strange name": "\x00\x00\x00\x11{\"name\":\"\\n\\n\\n\"}",
	} {
		conn := dial()
		conn.Write([]byte(sent))
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
		conn.Close()
		var log []string
		until(t, name+" is in the log", func() bool {
			for line := range strings.Lines(o.log.take()) {
				if strings.Contains(line, "from="+conn.LocalAddr().String()) {
					log = append(log, line)
				}
			}
			return len(log) > 0
		})
		if !strings.Contains(log[0], "a joiner was") || len(log) > 1 {
			t.Errorf("%s: the log says %q", name, log)
		}
	}
}

// What is refused before the secret is right says nothing about the cluster.
func TestNothingIsRevealed(t *testing.T) {
	o := begin(t)
	o.join(t, "b", trust.Member)
	says := func(name string) string {
		_, err := o.Admit(t.Context(), trust.Wish{Secret: "x", Name: name, Node: true, CSR: []byte("x")})
		if err == nil {
			t.Fatal("admitted")
		}
		return err.Error()
	}
	if a, c := says("a"), says("c"); a != c {
		t.Errorf("a name that is taken: %s; one that is not: %s", a, c)
	}
}

// Who was turned out loses the connections that are open, and gets no others.
func TestRevoke(t *testing.T) {
	o := begin(t)
	b, c := o.join(t, "b", trust.Member), o.join(t, "b", trust.ReadWrite)
	admin := o.join(t, "root", trust.Admin)
	for _, g := range []*guest{b, c, admin} {
		if err := echo(t.Context(), g.rpc); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := b.rpc.Open(t.Context(), "test.echo", "Nothing")
	if err == nil {
		err = stream.Recv(new(rpc.Frame))
	}
	if !errors.Is(err, rpc.ErrRefused) {
		t.Fatalf("no such stream: %v", err)
	}
	wantKind(t, "a client turns a machine out", c.Revoke(t.Context(), true, "b"), meta.Permission)
	wantKind(t, "nobody", admin.Revoke(t.Context(), true, "x"), meta.NotExist)
	wantKind(t, "itself", admin.Revoke(t.Context(), true, "a"), meta.Invalid)
	conn, err := tls.Dial("tcp", o.port.Addr().String(), b.keys.ClientConfig("a", rpc.HTTP2))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if err := admin.Revoke(t.Context(), true, "b"); err != nil {
		t.Fatal(err)
	}
	until(t, "its calls fail", func() bool { return errors.Is(echo(t.Context(), b.rpc), rpc.ErrDown) })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	for err = nil; err == nil; { // the server's settings come first
		_, err = conn.Read(make([]byte, 1<<10))
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a connection of it stays open")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := echo(t.Context(), b.dial(t, o)); !errors.Is(err, rpc.ErrDown) {
		t.Errorf("a new connection: %v", err)
	}
	if err := echo(t.Context(), c.rpc); err != nil {
		t.Errorf("a client of the same name: %v", err)
	}
	// It stays so after a restart, before anybody can be asked.
	until(t, "who is out is kept", func() bool {
		text, err := trust.Load(o.path)
		if err != nil {
			t.Fatal(err)
		}
		k, err := trust.NewKeyring(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Peer(tls.ConnectionState{PeerCertificates: conn.ConnectionState().PeerCertificates})
		if err != nil {
			t.Fatalf("the machine itself: %v", err)
		}
		return strings.Contains(string(text), "REVOKED")
	})
}

func TestRights(t *testing.T) {
	o := begin(t)
	for name, rights := range map[string]trust.Rights{"ro": trust.ReadOnly, "rw": trust.ReadWrite, "admin": trust.Admin, "node": trust.Member} {
		g := o.join(t, name, rights)
		want := error(meta.Permission)
		if rights >= trust.Admin {
			want = nil
		}
		_, err := g.CreateToken(t.Context(), admission.TokenWish{Rights: trust.Admin})
		wantKind(t, name+" makes a token", err, want)
		if _, err := g.Rotation(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantKind(t, name+" confirms nonsense", g.Confirm(t.Context(), "1234"), meta.NotExist)
		_, err = g.Renew(t.Context(), []byte("x"))
		wantKind(t, name+" renews nonsense", err, meta.Permission)
		if rights < trust.Admin {
			wantKind(t, name+" rotates", g.Rotate(t.Context()), meta.Permission)
			wantKind(t, name+" finishes", g.FinishRotation(t.Context()), meta.Permission)
		}
	}
	nobody := admission.NewClient(func() []*rpc.Client { return nil })
	wantKind(t, "without members", nobody.Rotate(t.Context()), meta.Unavailable)
}

// The authority is replaced while calls are made, over connections old and new.
func TestRotate(t *testing.T) {
	o := begin(t)
	b, c, late := o.join(t, "b", trust.Member), o.join(t, "c", trust.ReadWrite), o.join(t, "late", trust.ReadWrite)
	b.keep(t, o)
	c.keep(t, o)
	first := o.keys.Issuer()
	token := o.token(t, admission.TokenWish{Rights: trust.ReadOnly})

	ctx, stop := context.WithCancel(t.Context())
	var calls atomic.Int64
	var traffic sync.WaitGroup
	for _, g := range []*guest{b, c, late} {
		traffic.Go(func() {
			for ctx.Err() == nil {
				fresh, err := rpc.Dial(o.port.Addr().String(), rpc.ClientConfig{TLS: g.keys.ClientConfig("a", rpc.HTTP2), Conns: 1})
				if err != nil {
					t.Error(err)
					return
				}
				for _, conn := range []*rpc.Client{g.rpc, fresh} {
					if err := echo(context.WithoutCancel(ctx), conn); err != nil {
						t.Errorf("%v: %v", g.keys.Self(), err)
					}
					calls.Add(1)
				}
				fresh.Close()
			}
		})
	}
	more := func() {
		n := calls.Load()
		until(t, "calls go on", func() bool { return calls.Load() > n+6 })
	}
	more()
	if err := o.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "again", o.Rotate(t.Context()), meta.Busy)
	renewed := func(ks ...*trust.Keyring) func() bool {
		return func() bool {
			return !slices.ContainsFunc(ks, func(k *trust.Keyring) bool { return k.Issuer() == first || k.Issuer() == "" })
		}
	}
	until(t, "all renew", renewed(o.keys, b.keys, c.keys))
	more()
	if _, _, err := trust.Join(t.Context(), token, "old-token", false); err != nil {
		t.Errorf("a token of before: %v", err)
	}
	rotation := func() admission.Rotation {
		r, err := b.Rotation(t.Context())
		if err != nil || r.More != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		return r
	}
	until(t, "only one is late", func() bool { return slices.Equal(rotation().Waiting, []string{"client late (rw)"}) })
	if late.keys.Issuer() != first {
		t.Error("the late one is not late")
	}
	more()
	late.keep(t, o)
	until(t, "the old authority is gone", func() bool { return !rotation().Underway })
	until(t, "nobody trusts it", func() bool {
		for _, k := range []*trust.Keyring{o.keys, b.keys, c.keys, late.keys} {
			if roots, err := trust.Roots(k.Authorities()); err != nil || len(roots) != 1 || roots[0] != o.keys.Issuer() {
				return false
			}
		}
		return true
	})
	more()
	stop()
	traffic.Wait()
	t.Logf("%d calls", calls.Load())
	for _, g := range []struct {
		path string
		keys *trust.Keyring
	}{{o.path, o.keys}, {b.path, b.keys}, {late.path, late.keys}} {
		until(t, "it is kept", func() bool {
			text, err := trust.Load(g.path)
			if err != nil {
				t.Fatal(err)
			}
			k, err := trust.NewKeyring(text)
			if err != nil {
				t.Fatal(err)
			}
			roots, err := trust.Roots(k.Authorities())
			return err == nil && len(roots) == 1 && k.Serial() == g.keys.Serial()
		})
	}
}

// An authority whose key others may have goes at once, and with it who has not renewed.
func TestFinishRotation(t *testing.T) {
	o := begin(t)
	b, late := o.join(t, "b", trust.Admin), o.join(t, "late", trust.ReadWrite)
	b.keep(t, o)
	if err := echo(t.Context(), late.rpc); err != nil {
		t.Fatal(err)
	}
	o.member.down.Store(true)
	wantKind(t, "asked of one that does not lead", b.Rotate(t.Context()), meta.Unavailable)
	o.member.down.Store(false)
	first := o.keys.Issuer()
	if err := b.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "b and a renew", func() bool { return b.keys.Issuer() != first && o.keys.Issuer() != first })
	until(t, "it is finished", func() bool {
		err := b.FinishRotation(t.Context())
		return err == nil
	})
	until(t, "the late one is cut off", func() bool { return errors.Is(echo(t.Context(), late.rpc), rpc.ErrDown) })
	until(t, "b goes on", func() bool { return echo(t.Context(), b.dial(t, o)) == nil })
	o.join(t, "late", trust.ReadWrite)
	list, err := client.Trust{Caller: o.member}.Identities(t.Context())
	if err != nil || len(list) != 3 {
		t.Errorf("on record are %+v, %v", list, err)
	}
}

// A tardy member has not caught up: it does not know who signs when it is first asked.
type tardy struct {
	admission.Member
	asked int
}

func (m *tardy) Local(op state.Op, req, resp any) error {
	if op == metatrust.OpSigner {
		if m.asked++; m.asked < 3 {
			return meta.NotExist
		}
	}
	return m.Member.Local(op, req, resp)
}

// Who has a token waits for the member that it names to catch up.
func TestTardy(t *testing.T) {
	m := newMember()
	keys := found(t, m, filepath.Join(t.TempDir(), "identity"))
	late := &tardy{Member: m}
	o := admission.NewOffice(admission.Config{Keys: keys, Member: late, Addr: "a:1", Log: slog.New(slog.DiscardHandler)})
	token, err := o.CreateToken(t.Context(), admission.TokenWish{Rights: trust.Member})
	if err != nil {
		t.Fatal(err)
	}
	late.asked = 0
	req, err := trust.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Admit(t.Context(), trust.Wish{Secret: token[strings.LastIndex(token, "/")+1:], Name: "b", Node: true, CSR: req.CSR}); err != nil || late.asked < 3 {
		t.Errorf("admitted: %v, after %d looks", err, late.asked)
	}
}

// FuzzJoin sends anything to who admits joiners.
func FuzzJoin(f *testing.F) {
	m := newMember()
	keys := found(f, m, filepath.Join(f.TempDir(), "identity"))
	o := admission.NewOffice(admission.Config{Keys: keys, Member: m, Addr: "a:1", Log: slog.New(slog.DiscardHandler)})
	token, err := o.CreateToken(f.Context(), admission.TokenWish{Rights: trust.Member})
	if err != nil {
		f.Fatal(err)
	}
	secret := token[strings.LastIndex(token, "/")+1:]
	f.Add("x", "b", true, []byte("csr"))
	f.Add(secret, "b", true, []byte("csr"))
	f.Add(secret, "", false, []byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, s, name string, node bool, csr []byte) {
		if _, err := o.Admit(t.Context(), trust.Wish{Secret: s, Name: name, Node: node, CSR: csr}); err == nil {
			t.Errorf("%q was admitted with the request %x", name, csr)
		}
		if _, err := o.Renew(t.Context(), trust.Peer{Identity: trust.Identity{Name: name, Rights: trust.ReadOnly}, Serial: s}, csr); err == nil {
			t.Errorf("%q got a certificate", name)
		}
	})
}
