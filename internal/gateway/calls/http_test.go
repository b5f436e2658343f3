package calls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dos/internal/access"
	"dos/meta"
	"dos/meta/call"
	"dos/meta/client"
	"dos/meta/exchange"
	"dos/meta/metatest"
	"dos/meta/node"
)

// here leads to one exchange.
type here struct{ x *exchange.Exchange }

func (h here) Open(_ context.Context, _ call.Instance, work bool) (exchange.Conn, error) {
	return h.x.Local(work), nil
}
func (here) Where(context.Context, string) (string, string, error) { return "here", "", nil }

func TestCalls(t *testing.T) {
	service := metatest.NewMemory(node.Machine())
	ways := here{new(exchange.Exchange)}
	dialer := client.NewDialer(client.Direct(service, 0), ways, "test")
	defer dialer.Close()
	info, err := client.Session{Caller: client.Direct(service, 0)}.Open(t.Context(), "test", "m", 0)
	if err != nil {
		t.Fatal(err)
	}
	server := client.NewServer(client.Always(client.Direct(service, info.ID), info.ID), ways, "m")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = server.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	for name, mode := range map[string]uint32{"upper": 0o755, "mine": 0o700, "idle": 0o755} {
		if err := dialer.Make(t.Context(), call.Make{Name: name, UID: 4242, GID: 4242, Mode: mode}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"upper", "mine"} {
		started, err := server.Start(t.Context(), name, client.Who{}, 4, func(ctx context.Context, in *exchange.Incoming) error {
			request, err := in.ReadAll(ctx, 64<<20)
			switch {
			case err != nil:
				return err
			case string(request) == "fail":
				return fmt.Errorf("no: %w", meta.NotEmpty)
			case string(request) == "slow":
				in.Accept()
				<-in.Gone()
				return meta.Canceled
			case string(request) == "cut":
				if _, err := in.Write(ctx, []byte("half")); err != nil {
					return err
				}
				return meta.Protocol
			}
			return in.Reply(ctx, bytes.ToUpper(request))
		})
		if err != nil {
			t.Fatal(err)
		}
		defer started.Stop()
	}
	web := httptest.NewServer(Handler(dialer, access.Named))
	defer web.Close()
	large := strings.Repeat("abc", 1<<20)
	for _, c := range []struct {
		method, path, body, timeout string
		status                      int
		want                        string
	}{
		{"POST", "/rpc/upper", "hello", "", 200, "HELLO"},
		{"POST", "/rpc/upper", "", "", 200, ""},
		{"POST", "/rpc/upper", large, "", 200, strings.ToUpper(large)},
		{"GET", "/rpc/upper", "", "", 405, ""},
		{"POST", "/rpc/none", "x", "", 404, ""},
		{"POST", "/rpc/idle", "x", "", 503, ""},
		{"POST", "/rpc/upper", "fail", "", 502, "service \"upper\": no: directory not empty\n"},
		{"POST", "/rpc/upper", "slow", "50ms", 504, ""},
		{"POST", "/rpc/upper", "x", "soon", 400, ""},
		{"POST", "/rpc/mine", "x", "", 200, "X"},
		{"POST", "/rpc/mine?user=4242", "x", "", 200, "X"},
		{"POST", "/rpc/mine?user=4243", "x", "", 403, ""},
		{"POST", "/rpc/mine?user=no-such-user", "x", "", 403, ""},
	} {
		for _, chunked := range []bool{false, true} {
			var body io.Reader = strings.NewReader(c.body)
			if chunked {
				body = io.MultiReader(body) // of unknown length
			}
			req, err := http.NewRequestWithContext(t.Context(), c.method, web.URL+c.path, body)
			if err != nil {
				t.Fatal(err)
			}
			if c.timeout != "" {
				req.Header.Set("Dos-Timeout", c.timeout)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != c.status || err != nil || c.want != "" && string(got) != c.want {
				t.Errorf("%s %s %.10q: %s, %d bytes %.100q, %v; want %d %.20q", c.method, c.path, c.body, resp.Status, len(got), got, err, c.status, c.want)
			}
		}
	}
	resp, err := http.Post(web.URL+"/rpc/upper", "", strings.NewReader("cut"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a reply that is cut: %q, %v", got, err)
	}
}
