package tasks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"dos/meta/state"
	"dos/meta/task"
	"dos/test/cluster"
)

// A tap stands between a data directory's runner and its dos: on the socket that the runner
// asks. At one report it has something done, before the report is passed on, or when it was
// executed and the answer is not passed on.
type tap struct {
	sock   string
	server *http.Server

	mu    sync.Mutex
	what  task.What // 0: nothing is to be done; guarded by mu
	after bool      // guarded by mu
	do    func()    // guarded by mu
}

func (t *tap) behind() string { return t.sock + ".behind" }

// open takes the socket's place.
func (t *tap) open(tb testing.TB) {
	tb.Helper()
	if err := os.Rename(t.sock, t.behind()); err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("unix", t.sock)
	if err != nil {
		tb.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	to := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "dos" },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", t.behind())
		}},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.pass(to, w, r) })}
	t.server = server
	go func() { _ = server.Serve(l) }() // ends with close
}

// close gives the place back.
func (t *tap) close(tb testing.TB) {
	tb.Helper()
	t.server.Close()
	if err := os.Remove(t.sock); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(t.behind(), t.sock); err != nil {
		tb.Fatal(err)
	}
}

// arm has something done at the next report of a kind.
func (t *tap) arm(what task.What, after bool, do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.what, t.after, t.do = what, after, do
}

func (t *tap) pass(to http.Handler, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	do, after := t.due(body)
	if do == nil {
		to.ServeHTTP(w, r)
		return
	}
	if after {
		to.ServeHTTP(&nowhere{header: make(http.Header)}, r)
	}
	do()
	panic(http.ErrAbortHandler) // the connection breaks
}

// due is what is to be done at a request.
func (t *tap) due(body []byte) (do func(), after bool) {
	var cmd state.Command
	var reports task.Reports
	if state.Unmarshal(body, &cmd) != nil || cmd.Op != task.OpReport || state.Unmarshal(cmd.Body, &reports) != nil {
		return nil, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.what == 0 || !slices.ContainsFunc(reports.List, func(r task.Report) bool { return r.What == t.what }) {
		return nil, false
	}
	t.what = 0
	return t.do, t.after
}

// nowhere is where answers go that nobody hears.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header       { return n.header }
func (*nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (*nowhere) WriteHeader(int)             {}

// Whoever is killed, and at whatever step: a task ends as it ended, it is not lost, and
// there are never two of it at once. A runner that is killed takes its attempt with it; one
// of which the machine is killed goes on.
func TestSteps(t *testing.T) {
	m := start(t)
	awaitText(t, m.Path("tasks", "status"), "node ", soon)
	way := &tap{sock: filepath.Join(m.Data, "sock")}
	way.open(t)
	t.Cleanup(func() { way.server.Close() })
	for _, step := range []struct {
		name string
		what task.What
	}{{"claim", task.Claim}, {"start", task.Started}, {"end", task.Ended}} {
		for _, after := range []bool{false, true} {
			for _, machine := range []bool{false, true} {
				name := fmt.Sprintf("%s before", step.name)
				if after {
					name = fmt.Sprintf("%s after", step.name)
				}
				victim := "runner"
				if machine {
					victim = "machine"
				}
				t.Run(victim+" "+name, func(t *testing.T) {
					awaitField(t, submit(t, m.Point, "true"), "state", "done", soon) // the runner is there
					dir := cluster.Dir(t)
					pid := m.PID()
					if !machine {
						pid = runner(t, m.Data)
					}
					killed := make(chan error, 1)
					way.arm(step.what, after, func() { killed <- syscall.Kill(pid, syscall.SIGKILL) })
					id := submit(t, m.Point, script(dir))
					if step.what == task.Ended {
						process(t, dir, 1)
						if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
							t.Fatal(err)
						}
					}
					if err := <-killed; err != nil {
						t.Fatal(err)
					}
					if machine {
						way.close(t)
						m.Kill(t)
						m.Again(t)
						way.open(t)
					}
					attempts := 1
					if !machine && (step.what != task.Ended || !after) {
						attempts = 2 // as which one that was assigned counts too
					}
					finish(t, id, dir, attempts)
					if ran := strings.Count(read(filepath.Join(dir, "trace")), "attempt "); ran > attempts {
						t.Errorf("%d attempts ran, and %d are known:\n%s", ran, attempts, read(filepath.Join(dir, "trace")))
					}
				})
			}
		}
	}
}
