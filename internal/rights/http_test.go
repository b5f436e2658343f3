package rights

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/internal/trust"
)

func TestHTTP(t *testing.T) {
	c := newCluster(t)
	keys := c.ring("a", trust.Member)
	const proto = "http/1.1"
	port := rpc.NewPort(rpctest.Listen(t), keys.ServerConfig(proto), slog.New(slog.DiscardHandler), proto)
	h := HTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "done") }), Port, keys)
	server := &http.Server{Handler: h, ConnContext: Conn}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- port.Run(ctx) }()
	go func() { ended <- server.Serve(port.Listener(proto)) }()
	t.Cleanup(func() {
		server.Close()
		cancel()
		<-ended
		<-ended
	})
	ask := func(ring *trust.Keyring, method, path string, protos ...string) (int, string) {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: ring.ClientConfig("a", protos...), DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+port.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(text)
	}
	for right := trust.ReadOnly; right <= trust.Member; right++ {
		ring := c.ring("x", right)
		for path, need := range Admin {
			code, text := ask(ring, "GET", path, proto)
			if ok := right >= need; ok != (code == http.StatusOK && text == "done") || !ok && code != http.StatusForbidden {
				t.Errorf("%v asks for %s: %d %s", right, path, code, text)
			}
		}
		for _, path := range []string{"/", "/status/", "//status", "/new", "/dump?x"} {
			if code, text := ask(ring, "GET", path, proto); code != http.StatusForbidden || !strings.Contains(text, "machine itself") {
				t.Errorf("%v asks for %s: %d %s", right, path, code, text)
			}
		}
	}
	for _, turn := range []struct {
		method, path string
		need         trust.Rights
	}{
		{"GET", "/fs/", trust.ReadOnly}, {"GET", "/fs/a/b", trust.ReadOnly}, {"HEAD", "/fs/a", trust.ReadOnly}, {"GET", "/webhdfs/v1/a?op=OPEN", trust.ReadOnly},
		{"PUT", "/fs/a", trust.ReadWrite}, {"DELETE", "/fs/a", trust.ReadWrite}, {"PATCH", "/fs/", trust.ReadWrite},
		{"PUT", "/webhdfs/v1/a", trust.ReadWrite}, {"POST", "/webhdfs/v1/a", trust.ReadWrite},
	} {
		for right := trust.ReadOnly; right <= trust.Member; right++ {
			code, text := ask(c.ring("x", right), turn.method, turn.path) // names no protocol
			if ok := right >= turn.need; ok != (code == http.StatusOK && (text == "done" || turn.method == "HEAD")) || !ok && code != http.StatusForbidden {
				t.Errorf("%v sends %s %s: %d %s", right, turn.method, turn.path, code, text)
			}
		}
	}
	// Without a connection that was admitted there is nobody to ask about.
	plain := rpctest.Listen(t)
	other := &http.Server{Handler: h, ConnContext: Conn}
	go func() { ended <- other.Serve(plain) }()
	t.Cleanup(func() { other.Close(); <-ended })
	conn, err := net.Dial("tcp", plain.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /status HTTP/1.0\r\n\r\n")
	if text, err := io.ReadAll(conn); err != nil || !strings.Contains(string(text), "403") || strings.Contains(string(text), "done") {
		t.Errorf("%s, %v", text, err)
	}
}
