package trust

import (
	"crypto/tls"
	"net"
	"testing"
)

// Who was turned out learns it from any machine, also when the authority that
// signed its certificate is gone; who is of another cluster learns nothing.
func TestStanding(t *testing.T) {
	r := newRealm(t, 1)
	server, in, out, old := r.ring("a", Member), r.ring("b", Member), r.ring("c", Member), newRealm(t, 1)
	gone := old.ring("d", Member)
	if err := server.Trust(server.Authorities(), []string{out.Serial(), gone.Serial()}); err != nil {
		t.Fatal(err)
	}
	// It knows the new authority, and shows a certificate of the one before.
	if err := gone.Trust(append(gone.Authorities(), server.Authorities()...), nil); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			tcp, err := l.Accept()
			if err != nil {
				return
			}
			conn := tls.Server(tcp, server.ServerConfig("h2"))
			if conn.Handshake() != nil {
				conn.Close()
				continue
			}
			server.ServeStanding(conn, conn.ConnectionState()) //nolint:errcheck // the asker sees it
		}
	}()
	for _, c := range []struct {
		name    string
		ring    *Keyring
		want    bool
		refused bool
	}{
		{name: "a machine that is in", ring: in},
		{name: "one that is not", ring: out, want: true},
		{name: "one whose authority was replaced", ring: gone, want: true},
		{name: "of another cluster", ring: newRealm(t, 2).ring("c", Member), refused: true},
		{name: "whom the authority never knew", ring: old.ring("c", Member), refused: true},
	} {
		got, err := c.ring.TurnedOut(t.Context(), l.Addr().String())
		if got != c.want || (err != nil) != c.refused {
			t.Errorf("%s: turned out %v, %v", c.name, got, err)
		}
		if c.ring.Revoked() {
			t.Errorf("%s: it knows already", c.name)
		}
	}
	if s, c := meet(t, server.ServerConfig("h2"), out.ClientConfig("", StandingProto, "h2")); s == nil || c == nil {
		t.Errorf("one that is not asks for more: %v, %v", s, c)
	}
}
