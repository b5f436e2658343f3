package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A realm is a cluster's authority.
type realm struct {
	t       testing.TB
	cluster ClusterID
	ca      *Authority
}

func newRealm(t testing.TB, n byte) *realm {
	t.Helper()
	r := &realm{t: t, cluster: ClusterID{n}}
	var err error
	if r.ca, err = NewAuthority(r.cluster); err != nil {
		t.Fatal(err)
	}
	return r
}

// admit gives an identity to a new key.
func (r *realm) admit(id Identity) []byte {
	r.t.Helper()
	req, err := NewRequest()
	if err != nil {
		r.t.Fatal(err)
	}
	cert, err := r.ca.Sign(req.CSR, id)
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := req.Credentials(cert, r.ca.CertPEM())
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

func (r *realm) ring(name string, rights Rights) *Keyring {
	r.t.Helper()
	k, err := NewKeyring(r.admit(Identity{r.cluster, name, rights}))
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

// meet has a client connect to a server, and says what each side thought.
func meet(t *testing.T, server, client *tls.Config) (atServer, atClient error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			s := tls.Server(conn, server)
			if err = s.Handshake(); err == nil {
				_, err = s.Write([]byte("hello"))
			}
			conn.Close()
		}
		served <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Client(conn, client)
	err = c.Handshake()
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 5))
	}
	conn.Close()
	return <-served, err
}

func TestWhoIsAdmitted(t *testing.T) {
	r, other := newRealm(t, 1), newRealm(t, 1) // the same cluster ID, another authority
	server := r.ring("a", Member)
	config := server.ServerConfig("h2", "raft")
	out := r.ring("out", Member)
	leaf := out.certificate().Leaf
	if err := server.Trust(server.Authorities(), []string{leaf.SerialNumber.Text(16)}); err != nil {
		t.Fatal(err)
	}
	unnamed := r.ring("c", ReadOnly).ClientConfig("")
	for _, test := range []struct {
		name           string
		server, client *tls.Config
		sFails, cFails bool
		sSays, cSays   string
	}{
		{name: "a machine", server: config, client: r.ring("b", Member).ClientConfig("a", "h2")},
		{name: "any machine", server: config, client: r.ring("b", Member).ClientConfig("", "raft")},
		{name: "a client", server: config, client: r.ring("c", ReadOnly).ClientConfig("", "h2")},
		{name: "another machine's name", server: config, client: r.ring("b", Member).ClientConfig("x", "h2"), sFails: true, cFails: true, cSays: "node a answers, where node x should"},
		{name: "another authority", server: config, client: other.ring("b", Member).ClientConfig("", "h2"), sFails: true, cFails: true, cSays: "not a certificate of this cluster"},
		{name: "a server of another authority", server: other.ring("a", Member).ServerConfig("h2"), client: r.ring("b", Member).ClientConfig("", "h2"), sFails: true, cFails: true, cSays: "not a certificate of this cluster"},
		{name: "a client as a server", server: r.ring("c", Admin).ServerConfig("h2"), client: r.ring("b", Member).ClientConfig("", "h2"), sFails: true, cFails: true, cSays: "client c (admin) answers"},
		{name: "revoked", server: config, client: out.ClientConfig("", "h2"), sFails: true, cFails: true, sSays: "was revoked"},
		{name: "without a certificate", server: config, client: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, sFails: true, cFails: true, sSays: "certificate"},
		{name: "without a protocol", server: config, client: &tls.Config{InsecureSkipVerify: true}, sFails: true, cFails: true},
		{name: "HTTP without a protocol", server: server.ServerConfig("h2", "http/1.1"), client: unnamed},
		{name: "HTTP without a protocol or certificate", server: server.ServerConfig("h2", "http/1.1"), client: &tls.Config{InsecureSkipVerify: true}, sFails: true, cFails: true, sSays: "certificate"},
		{name: "a certificate without a protocol", server: config, client: unnamed, sFails: true, cFails: true, sSays: "speaks none of"},
		{name: "another protocol", server: config, client: r.ring("b", Member).ClientConfig("", "http/1.1"), sFails: true, cFails: true},
		{name: "joining and more", server: config, client: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{JoinProto, "h2"}}, sFails: true, cFails: true},
		{name: "TLS 1.2", server: config, client: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{JoinProto}, MaxVersion: tls.VersionTLS12}, sFails: true, cFails: true},
		{name: "joining", server: config, client: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{JoinProto}}},
	} {
		atServer, atClient := meet(t, test.server, test.client)
		if (atServer != nil) != test.sFails || (atClient != nil) != test.cFails {
			t.Errorf("%s: the server says %v, the client %v", test.name, atServer, atClient)
			continue
		}
		if test.sSays != "" && !strings.Contains(atServer.Error(), test.sSays) || test.cSays != "" && !strings.Contains(atClient.Error(), test.cSays) {
			t.Errorf("%s: the server says %v, want %q; the client %v, want %q", test.name, atServer, test.sSays, atClient, test.cSays)
		}
	}
}

// The authority and certificates are exchanged while connections are made.
func TestRotation(t *testing.T) {
	old, next := newRealm(t, 1), newRealm(t, 1)
	server, client := old.ring("a", Member), old.ring("b", Member)
	sc, cc := server.ServerConfig("h2"), client.ClientConfig("a", "h2")
	works := func(step string) {
		t.Helper()
		if s, c := meet(t, sc, cc); s != nil || c != nil {
			t.Errorf("%s: %v, %v", step, s, c)
		}
	}
	works("before")
	both := append(old.ca.CertPEM(), next.ca.CertPEM()...)
	for _, k := range []*Keyring{server, client} {
		if err := k.Trust(both, nil); err != nil {
			t.Fatal(err)
		}
	}
	works("both authorities trusted")
	if err := server.Replace(append(next.admit(Identity{next.cluster, "a", Member}), old.ca.CertPEM()...)); err != nil {
		t.Fatal(err)
	}
	works("one certificate replaced")
	if err := client.Replace(next.admit(Identity{next.cluster, "b", Member})); err != nil {
		t.Fatal(err)
	}
	if err := server.Trust(next.ca.CertPEM(), nil); err != nil {
		t.Fatal(err)
	}
	works("the old authority is gone")
	if s, c := meet(t, sc, old.ring("late", Member).ClientConfig("", "h2")); s == nil || c == nil {
		t.Error("a certificate of the old authority is still good")
	}
	if err := client.Replace(next.admit(Identity{next.cluster, "x", Member})); err == nil {
		t.Error("a machine took another's name")
	}
}

// vouched is a new authority of a realm, and what is trusted while it follows.
func (r *realm) vouched() (next *realm, authorities []byte) {
	r.t.Helper()
	next = &realm{t: r.t, cluster: r.cluster}
	var err error
	if next.ca, err = NewAuthority(r.cluster); err != nil {
		r.t.Fatal(err)
	}
	voucher, err := r.ca.Vouch(next.ca)
	if err != nil {
		r.t.Fatal(err)
	}
	return next, slices.Concat(next.ca.CertPEM(), r.ca.CertPEM(), voucher)
}

// Who has not heard yet of a new authority trusts it because the old one vouches for it.
func TestVouch(t *testing.T) {
	old := newRealm(t, 1)
	late := old.ring("late", Member)
	next, both := old.vouched()
	if roots, err := Roots(both); err != nil || !slices.Equal(roots, []string{next.ca.Hash(), old.ca.Hash()}) {
		t.Errorf("the authorities are %v, %v", roots, err)
	}
	ahead, err := NewKeyring(slices.Concat(next.admit(Identity{next.cluster, "ahead", Member}), both))
	if err != nil || ahead.Issuer() != next.ca.Hash() || late.Issuer() != old.ca.Hash() {
		t.Fatal(err)
	}
	if s, c := meet(t, ahead.ServerConfig("h2"), late.ClientConfig("ahead", "h2")); s != nil || c != nil {
		t.Errorf("a client that is late: %v, %v", s, c)
	}
	if s, c := meet(t, late.ServerConfig("h2"), ahead.ClientConfig("late", "h2")); s != nil || c != nil {
		t.Errorf("a server that is late: %v, %v", s, c)
	}
	// A token of before names the old authority.
	addr, _ := serve(t, ahead.ServerConfig("h2"), func(_ context.Context, w Wish) (Grant, error) {
		cert, err := next.ca.Sign(w.CSR, Identity{next.cluster, w.Name, Member})
		return Grant{Cert: cert, Authorities: both}, err
	})
	if _, _, err := Join(t.Context(), NewToken(addr, old.ca.Hash()), "n", true); err != nil {
		t.Errorf("an old token: %v", err)
	}
	// Then the old one goes.
	if err := ahead.Trust(next.ca.CertPEM(), nil); err != nil {
		t.Fatal(err)
	}
	if s, _ := meet(t, ahead.ServerConfig("h2"), late.ClientConfig("ahead", "h2")); s == nil {
		t.Error("a certificate of the old authority is good still")
	}
	if _, _, err := Join(t.Context(), NewToken(addr, old.ca.Hash()), "n", true); err == nil || !strings.Contains(err.Error(), "was replaced since") {
		t.Errorf("an old token, late: %v", err)
	}
	// A certificate that vouches is no authority, and neither is a machine's.
	stranger, _ := newRealm(t, 1).vouched()
	if s, _ := meet(t, ahead.ServerConfig("h2"), stranger.ring("x", Member).ClientConfig("", "h2")); s == nil {
		t.Error("another cluster's next authority is trusted")
	}
	if err := ahead.Trust(bytes.TrimPrefix(both, slices.Concat(next.ca.CertPEM(), old.ca.CertPEM())), nil); err == nil {
		t.Error("a voucher alone is trusted")
	}
}

func TestTurnedOut(t *testing.T) {
	r := newRealm(t, 1)
	k, peer := r.ring("a", Member), r.ring("b", ReadOnly)
	cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{peer.certificate().Leaf}}
	if p, err := k.Admitted(cs); err != nil || p != (Peer{Identity{r.cluster, "b", ReadOnly}, peer.Serial()}) {
		t.Errorf("%v, %v", p, err)
	}
	if err := k.Trust(k.Authorities(), []string{"1", peer.Serial()}); err != nil {
		t.Fatal(err)
	}
	text, err := k.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewKeyring(text)
	if err != nil || again.Self() != k.Self() || again.Serial() != k.Serial() {
		t.Fatal(err)
	}
	if twice, err := again.Credentials(); err != nil || !bytes.Equal(twice, text) {
		t.Errorf("%s\nbecame\n%s, %v", text, twice, err)
	}
	for name, k := range map[string]*Keyring{"told": k, "restarted": again} {
		if _, err := k.Admitted(cs); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := k.Peer(cs); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := k.Admitted(tls.ConnectionState{}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s, no certificate: %v", name, err)
		}
	}
	for range knownMax + 1 { // however many there were
		if _, err := k.Admitted(tls.ConnectionState{PeerCertificates: []*x509.Certificate{{URIs: []*url.URL{k.Self().uri()}, SerialNumber: big.NewInt(7)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.known) > knownMax {
		t.Errorf("%d certificates are remembered", len(k.known))
	}
	serial, until, err := Inspect(certPEM(peer.own.Leaf.Raw))
	if err != nil || serial != peer.Serial() || until.Before(time.Now()) {
		t.Errorf("%s, %v, %v", serial, until, err)
	}
}

// BenchmarkAdmitted is what every call over a connection pays to know whose it is.
func BenchmarkAdmitted(b *testing.B) {
	r := newRealm(b, 1)
	k := r.ring("a", Member)
	cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{r.ring("b", ReadWrite).certificate().Leaf}}
	for b.Loop() {
		if _, err := k.Admitted(cs); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRealm(t, 1)
		k := r.ring("a", Member)
		state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{r.ring("b", ReadWrite).certificate().Leaf}}
		check := func(when string, ok, due bool) {
			t.Helper()
			peer, err := k.Peer(state)
			if (err == nil) != ok || ok && (peer.Name != "b" || peer.Rights != ReadWrite) || err != nil && !strings.Contains(err.Error(), "is a clock wrong?") {
				t.Errorf("%s: %v, %v", when, peer, err)
			}
			if k.Due(time.Now()) != due {
				t.Errorf("%s: due for renewal: %v", when, !due)
			}
		}
		check("at once", true, false)
		time.Sleep(certificateLife / 2)
		check("after half its life", true, false)
		time.Sleep(certificateLife / 4)
		check("after three quarters", true, true)
		time.Sleep(certificateLife / 3)
		check("after its end", false, true)
	})
}

func TestIdentities(t *testing.T) {
	for _, id := range []Identity{{ClusterID{7}, "node-1", Member}, {ClusterID{7}, "me", ReadOnly}, {ClusterID{7}, "a.b_c", Admin}} {
		if got, err := parseURI(id.uri()); err != nil || got != id {
			t.Errorf("%v: %v, %v", id, got, err)
		}
	}
	cluster := strings.Repeat("0a", 16)
	for _, bad := range []string{
		"", "http://" + cluster + "/node/a", "dos://0a/node/a", "dos://" + cluster, "dos://" + cluster + "/node/", "dos://" + cluster + "/nod/a",
		"dos://" + cluster + "/node/a/b", "dos://" + cluster + "/node/a?rights=admin", "dos://" + cluster + "/client/a", "dos://" + cluster + "/client/a?rights=member",
		"dos://" + cluster + "/client/a?rights=ro&rights=admin", "dos://" + cluster + "/node/a#x", "dos://u@" + cluster + "/node/a", "dos://" + cluster + "/node/%61",
	} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := parseURI(u); !errors.Is(err, ErrRefused) {
			t.Errorf("%q is %v, %v", bad, id, err)
		}
	}
}

func TestSign(t *testing.T) {
	r := newRealm(t, 1)
	req, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(req.CSR)
	forged[len(forged)-1] ^= 1 // in the signature
	for name, csr := range map[string][]byte{"forged": forged, "empty": nil, "garbage": []byte("garbage")} {
		if _, err := r.ca.Sign(csr, Identity{r.cluster, "a", Member}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "a/b", "-a", ".", "ä", strings.Repeat("a", NameMax+1), "a\n"} {
		if _, err := r.ca.Sign(req.CSR, Identity{r.cluster, name, Member}); !errors.Is(err, ErrRefused) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for name, want := range map[string]bool{"a": true, "a.example.org": true, "a_b": false, "a.": false, "a..b": false, "a-": false, "a.-b": false} {
		for _, right := range []Rights{Member, Admin} {
			k, err := NewKeyring(r.admit(Identity{r.cluster, name, right}))
			if err != nil {
				t.Fatalf("name %q: %v", name, err)
			}
			if got := k.own.Leaf.VerifyHostname(name) == nil; got != (want && right == Member) {
				t.Errorf("%v %q is a host by its certificate: %v", right, name, got)
			}
		}
	}
	secret, err := r.ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseAuthority(secret)
	if err != nil || again.Hash() != r.ca.Hash() {
		t.Fatal(err)
	}
	r.ca = again
	if _, err := NewKeyring(r.admit(Identity{r.cluster, "a", Member})); err != nil {
		t.Error(err)
	}
	mine := r.admit(Identity{r.cluster, "a", Member})
	for name, text := range map[string][]byte{
		"no key": r.ca.CertPEM(), "nothing": nil, "another's key": bytes.Replace(mine, keyOf(t, mine), keyOf(t, r.admit(Identity{r.cluster, "a", Member})), 1),
		"no authority": bytes.Replace(mine, r.ca.CertPEM(), nil, 1),
	} {
		if _, err := NewKeyring(text); err == nil {
			t.Errorf("%s: taken for an identity", name)
		}
	}
}

func keyOf(t *testing.T, text []byte) []byte {
	t.Helper()
	_, key, err := parsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := keyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFiles(t *testing.T) {
	r := newRealm(t, 1)
	want := r.admit(Identity{r.cluster, "a", Admin})
	path := filepath.Join(t.TempDir(), "identity")
	for range 2 {
		if err := Save(path, want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Load(path); err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 1 {
		t.Errorf("left are %v", list)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("a key that others can read: %v", err)
	}
}

// serve answers joiners until the test ends.
func serve(t *testing.T, config *tls.Config, admit func(context.Context, Wish) (Grant, error)) (addr string, failed chan error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	failed = make(chan error, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			failed <- ServeJoin(t.Context(), conn, admit)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String(), failed
}

func TestJoin(t *testing.T) {
	r := newRealm(t, 1)
	server := r.ring("a", Member)
	var token Token
	addr, failed := serve(t, server.ServerConfig("h2"), func(_ context.Context, w Wish) (Grant, error) {
		if HashSecret(w.Secret) != HashSecret(token.Secret) {
			return Grant{}, errors.New("the token is not known here, or was used")
		}
		cert, err := r.ca.Sign(w.CSR, Identity{r.cluster, w.Name, Member})
		return Grant{cert, r.ca.CertPEM(), []string{"10.0.0.1:7000"}}, err
	})
	token = NewToken(addr, r.ca.Hash())
	parsed, err := ParseToken(token.String() + "\n")
	if err != nil || parsed != token {
		t.Fatalf("%v, %v", parsed, err)
	}
	credentials, members, err := Join(t.Context(), token, "b", true)
	if err != nil || len(members) != 1 {
		t.Fatal(members, err)
	}
	k, err := NewKeyring(credentials)
	if err != nil || k.Self() != (Identity{r.cluster, "b", Member}) {
		t.Fatal(err)
	}
	if s, c := meet(t, server.ServerConfig("h2"), k.ClientConfig("a", "h2")); s != nil || c != nil {
		t.Errorf("the new machine is not admitted: %v, %v", s, c)
	}

	wrong := token
	wrong.Secret = NewToken(addr, "").Secret
	if _, _, err := Join(t.Context(), wrong, "b", true); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "or was used") {
		t.Errorf("a wrong secret: %v", err)
	}
	wrong = token
	wrong.CA = newRealm(t, 1).ca.Hash()
	if _, _, err := Join(t.Context(), wrong, "b", true); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not of the cluster") {
		t.Errorf("another cluster's token: %v", err)
	}
	if _, _, err := Join(t.Context(), token, "b/c", true); err == nil {
		t.Error("a bad name was sent")
	}

	// Anything may be sent to the port.
	for name, sent := range map[string][]byte{
		"nothing": nil, "half a length": {0, 0}, "too long": {0xff, 0xff, 0xff, 0xff}, "half a message": {0, 0, 0, 9, '{'},
		"not JSON": append(binary.BigEndian.AppendUint32(nil, 3), "abc"...), "another type": append(binary.BigEndian.AppendUint32(nil, 2), "[]"...),
	} {
		for len(failed) > 0 {
			<-failed
		}
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{JoinProto}})
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(sent)
		conn.CloseWrite()
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("%s was answered: %q", name, got)
		}
		conn.Close()
		if err := <-failed; err == nil {
			t.Errorf("%s was taken for a request", name)
		}
	}
}

func TestBadTokens(t *testing.T) {
	good := NewToken("host:7000", strings.Repeat("0a", 32)).String()
	for _, bad := range []string{"", "x", good + "/x", strings.Replace(good, ":7000", "", 1), good[:len(good)-1], strings.Replace(good, "0a0a", "0a", 1), "host:/" + good[10:], strings.ReplaceAll(good, "a", "!")} {
		if token, err := ParseToken(bad); err == nil || !strings.HasPrefix(err.Error(), "join token: ") {
			t.Errorf("%q is %v, %v", bad, token, err)
		}
	}
}

// A token may be where others cannot see it.
func TestReadToken(t *testing.T) {
	good := NewToken("host:7000", strings.Repeat("0a", 32))
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(good.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{good.String(), "@" + file, "-"} {
		if got, err := ReadToken(arg, strings.NewReader(good.String()+"\n")); err != nil || got != good {
			t.Errorf("%q: %v, %v", arg, got, err)
		}
	}
	if _, err := ReadToken("@"+file+"x", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	if _, err := ReadToken("-", io.MultiReader(strings.NewReader(strings.Repeat("x", tokenMax)), strings.NewReader(good.String()))); err == nil {
		t.Error("a token after much else was found")
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(append(binary.BigEndian.AppendUint32(nil, 17), `{"secret":"abcd"}`...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var req joinRequest
		if receive(bytes.NewReader(b), &req) == nil && len(b) < 4 {
			t.Error("a request of less than a length")
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add(NewToken("host:1", strings.Repeat("0a", 32)).String())
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		if again, err := ParseToken(token.String()); err != nil || again != token {
			t.Errorf("%q: %v, %v", text, again, err)
		}
	})
}

func FuzzPEM(f *testing.F) {
	r := newRealm(f, 1)
	f.Add(r.admit(Identity{r.cluster, "a", Member}))
	f.Fuzz(func(t *testing.T, text []byte) { NewKeyring(text) })
}
