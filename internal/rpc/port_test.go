package rpc_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/internal/trust"
)

const raw = "test-raw"

// realm makes identities of one cluster.
func realm(t testing.TB) func(name string, rights trust.Rights) *trust.Keyring {
	t.Helper()
	cluster := trust.ClusterID{1}
	ca, err := trust.NewAuthority(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return func(name string, rights trust.Rights) *trust.Keyring {
		req, err := trust.NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ca.Sign(req.CSR, trust.Identity{Cluster: cluster, Name: name, Rights: rights})
		if err != nil {
			t.Fatal(err)
		}
		text, err := req.Credentials(cert, ca.CertPEM())
		if err != nil {
			t.Fatal(err)
		}
		k, err := trust.NewKeyring(text)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
}

// startPort serves gRPC, which answers whose call it was, and an echo on one port.
func startPort(t testing.TB, keys *trust.Keyring) *rpc.Port {
	t.Helper()
	port := rpc.NewPort(rpctest.Listen(t), keys.ServerConfig(rpc.HTTP2, raw), slog.New(slog.DiscardHandler), rpc.HTTP2, raw)
	who := rpc.Service{Name: "test.echo", Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
		"Echo": func(ctx context.Context, _ *rpc.Frame) (*rpc.Frame, error) {
			state, ok := rpc.PeerState(ctx)
			if !ok {
				return nil, errors.New("no TLS state")
			}
			peer, err := keys.Peer(state)
			return &rpc.Frame{Header: []byte(peer.Name)}, err
		},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- port.Run(ctx) }()
	go func() { ended <- rpc.Serve(ctx, port.Listener(rpc.HTTP2), rpc.ServerConfig{}, who) }()
	go func() {
		for {
			conn, err := port.Listener(raw).Accept()
			if err != nil {
				ended <- nil
				return
			}
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return port
}

func TestPort(t *testing.T) {
	identity := realm(t)
	server, client := identity("a", trust.Member), identity("b", trust.ReadWrite)
	port := startPort(t, server)
	addr := port.Addr().String()

	// Who says nothing or nonsense is in nobody's way.
	for i := range 50 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			io.WriteString(conn, strings.Repeat("GET / HTTP/1.1\r\n", i))
		}
	}
	c := rpctest.Dial(t, addr, rpc.ClientConfig{TLS: client.ClientConfig("a", rpc.HTTP2)})
	if who, _, err := call(t.Context(), c, "", nil); who != "b" || err != nil {
		t.Errorf("the call was of %q, %v", who, err)
	}
	conn, err := tls.Dial("tcp", addr, client.ClientConfig("a", raw))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo := func() error {
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 5))
		return err
	}
	if err := echo(); err != nil {
		t.Errorf("the other protocol: %v", err)
	}

	// Who is turned out loses the connections that are open.
	serial := ""
	port.Drop(func(cs tls.ConnectionState) bool {
		peer, err := server.Peer(cs)
		serial = peer.Serial
		return err != nil
	})
	if err := echo(); err != nil {
		t.Errorf("after nobody was turned out: %v", err)
	}
	if err := server.Trust(server.Authorities(), []string{serial}); err != nil {
		t.Fatal(err)
	}
	port.Drop(func(cs tls.ConnectionState) bool { _, err := server.Peer(cs); return err != nil })
	if err := echo(); err == nil {
		t.Error("a revoked peer's connection is open still")
	}
	if _, _, err := call(t.Context(), c, "", nil); !errors.Is(err, rpc.ErrDown) {
		t.Errorf("a revoked peer's call: %v", err)
	}
	stranger := realm(t)("b", trust.ReadWrite)
	if _, _, err := call(t.Context(), rpctest.Dial(t, addr, rpc.ClientConfig{TLS: stranger.ClientConfig("", rpc.HTTP2)}), "", nil); !errors.Is(err, rpc.ErrDown) {
		t.Errorf("a stranger's call: %v", err)
	}
}

// A machine that is turned out loses the connections that others have made to it, too.
func TestDropDialled(t *testing.T) {
	identity := realm(t)
	server, client := identity("a", trust.Member), identity("b", trust.ReadWrite)
	port := startPort(t, server)
	among := new(rpc.Conns)
	c := rpctest.Dial(t, port.Addr().String(), rpc.ClientConfig{TLS: client.ClientConfig("a", rpc.HTTP2), Among: among})
	ask := func() error {
		_, _, err := call(t.Context(), c, "", nil)
		return err
	}
	open := func() (n int) {
		among.Drop(func(tls.ConnectionState) bool { n++; return false })
		return n
	}
	for range 4 { // over both of its connections
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	if n := open(); n != 2 {
		t.Errorf("%d connections are open", n)
	}
	if err := client.Trust(client.Authorities(), []string{server.Serial()}); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Errorf("before it is dropped: %v", err)
	}
	among.Drop(func(cs tls.ConnectionState) bool { _, err := client.Peer(cs); return err != nil })
	for end := time.Now().Add(10 * time.Second); open() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("connections to a machine that was turned out stay open")
		}
	}
	if err := ask(); !errors.Is(err, rpc.ErrDown) {
		t.Errorf("a machine that was turned out answers: %v", err)
	}
}

// http2 is the beginning of a connection, and a request for a path whose one
// message says that it is so long.
func http2(path string, length uint32) []byte {
	frame := func(kind, flags, stream byte, body []byte) []byte {
		n := len(body)
		return append([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, 0, 0, 0, stream}, body...)
	}
	var headers []byte // each as it is, under a new name (RFC 7541 §6.2.2)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", path}, {":authority", "a"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		headers = append(append(headers, 0, byte(len(h[0]))), h[0]...)
		headers = append(append(headers, byte(len(h[1]))), h[1]...)
	}
	return slices.Concat([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, nil), frame(1, 4, 1, headers),
		frame(0, 1, 1, append(binary.BigEndian.AppendUint32([]byte{0}, length), "DOSf and more"...)))
}

// FuzzPort sends anything to a port, from strangers and from a peer that is
// known. It is hung up on, and others are served all the same.
func FuzzPort(f *testing.F) {
	identity := realm(f)
	addr := startPort(f, identity("a", trust.Member)).Addr().String()
	good, bad := identity("b", trust.ReadWrite), identity("c", trust.ReadOnly)
	c := rpctest.Dial(f, addr, rpc.ClientConfig{TLS: good.ClientConfig("a", rpc.HTTP2)})
	for _, known := range []bool{false, true} {
		f.Add(known, []byte{})
		f.Add(known, []byte{22, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 3, 3}) // a greeting of 16 MiB
		f.Add(known, []byte("GET / HTTP/1.1\r\n\r\n"))
		f.Add(known, http2("/test.echo/Echo", 13))
		f.Add(known, http2("/test.echo/Echo", 1<<32-1))
		f.Add(known, http2("nonsense", 0))
	}
	f.Fuzz(func(t *testing.T, known bool, data []byte) {
		tcp, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		conn := tcp.(interface {
			net.Conn
			CloseWrite() error
		})
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if known {
			secure := tls.Client(tcp, bad.ClientConfig("a", rpc.HTTP2))
			if err := secure.Handshake(); err != nil {
				t.Fatal(err)
			}
			conn = secure
		}
		conn.Write(data)  // it may have been
		conn.CloseWrite() // hung up on already
		var timeout net.Error
		if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the connection is still open")
		}
		if who, _, err := call(t.Context(), c, "", nil); who != "b" || err != nil {
			t.Errorf("another's call was of %q, %v", who, err)
		}
	})
}
