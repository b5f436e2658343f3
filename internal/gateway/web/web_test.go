package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/internal/gateway/passwords"
	"dos/internal/rights"
	"dos/internal/trust"
)

// A door is one that a test locks.
type door struct {
	mu     sync.Mutex
	needed bool
	good   map[string]trust.Rights // by the password's hash
	err    error                   // why nobody can be asked
	asked  int
}

func (d *door) Needed() bool { return d.needed }

func (d *door) Check(_ context.Context, hash string) (trust.Rights, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	return d.good[hash], d.err
}

func (d *door) set(password string, r trust.Rights, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.good[trust.HashSecret(password)], d.err = r, err
}

func says(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

func newDoor(needed bool) (*door, http.Handler) {
	d := &door{needed: needed, good: make(map[string]trust.Rights)}
	for r := trust.ReadOnly; r <= trust.Admin; r++ {
		d.set(r.String(), r, nil)
	}
	return d, Handler(d, rights.Port, says("all"), says("strangers"))
}

// ask sends a request with headers, "Name: value" each, and returns the answer.
func ask(h http.Handler, method, path string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, "http://127.0.0.1:7680"+path, strings.NewReader("body"))
	for _, header := range headers {
		switch name, value, _ := strings.Cut(header, ": "); name {
		case "Host":
			r.Host = value
		case "Password":
			r.SetBasicAuth("somebody", value)
		default:
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

func TestWho(t *testing.T) {
	for _, c := range []struct {
		needed  bool
		ask     string
		headers []string
		status  int
		says    string
	}{
		{false, "GET /fs/a", nil, 200, "strangers"}, {false, "PUT /fs/a", nil, 200, "strangers"}, {false, "POST /rpc/x", nil, 200, "strangers"},
		{false, "GET /status", nil, 200, "strangers"}, {false, "POST /drain", nil, 403, "this is for admin, not for who has rw here"},
		{false, "POST /meta", nil, 403, "this is asked for on the machine itself"}, {false, "GET /none", nil, 403, "this is asked"},
		{true, "GET /fs/a", nil, 401, "a password is needed"}, {true, "GET /none", nil, 401, "a password is needed"},
		{true, "GET /fs/a", []string{"Authorization: Bearer x"}, 401, "a password is needed"},
		{true, "GET /fs/a", []string{"Authorization: Basic !"}, 401, "a password is needed"},
		{true, "GET /fs/a", []string{"Password: wrong"}, 401, "the password is not good"}, {true, "GET /fs/a", []string{"Password: "}, 401, ""},
		{false, "GET /fs/a", []string{"Password: wrong"}, 401, "the password is not good"}, {false, "GET /fs/a", []string{"Authorization: Bearer x"}, 401, ""},
		{false, "GET /fs/a", []string{"Password: admin"}, 200, "all"},
		{true, "GET /fs/a", []string{"Password: ro"}, 200, "strangers"}, {true, "GET /webhdfs/v1/a", []string{"Password: ro"}, 200, "strangers"},
		{true, "PUT /fs/a", []string{"Password: ro"}, 403, "this is for rw, not for who has ro here"}, {true, "POST /rpc/x", []string{"Password: ro"}, 403, ""},
		{true, "PUT /fs/a", []string{"Password: rw"}, 200, "strangers"}, {true, "POST /rpc/x", []string{"Password: rw"}, 200, "strangers"},
		{true, "POST /drain", []string{"Password: rw"}, 403, ""}, {true, "POST /drain", []string{"Password: admin"}, 200, "all"},
		{true, "GET /dump", []string{"Password: admin"}, 403, "this is asked for on the machine itself"},
		// Browsers.
		{false, "GET /fs/a", []string{"Host: evil.example"}, 403, "without a password this machine is called"},
		{false, "GET /fs/a", []string{"Host: 10.0.0.1:7680"}, 403, ""}, {false, "GET /fs/a", []string{"Host: "}, 403, ""}, {false, "GET /fs/a", []string{"Host: ["}, 403, ""},
		{false, "GET /fs/a", []string{"Host: localhost:7680"}, 200, ""}, {false, "GET /fs/a", []string{"Host: [::1]:7680"}, 200, ""}, {false, "GET /fs/a", []string{"Host: [::1]"}, 200, ""},
		{true, "GET /fs/a", []string{"Host: box", "Password: ro"}, 200, ""},
		{false, "POST /rpc/x", []string{"Origin: http://evil.example"}, 403, ""}, {true, "POST /rpc/x", []string{"Sec-Fetch-Site: cross-site", "Password: admin"}, 403, ""},
		{true, "PUT /fs/a", []string{"Sec-Fetch-Site: same-origin", "Password: admin"}, 200, "all"},
	} {
		_, h := newDoor(c.needed)
		method, path, _ := strings.Cut(c.ask, " ")
		resp := ask(h, method, path, c.headers...)
		got := text(resp)
		if resp.StatusCode != c.status || !strings.HasPrefix(got, c.says) {
			t.Errorf("%s %q, needed: %v: %d %q, want %d %q", c.ask, c.headers, c.needed, resp.StatusCode, got, c.status, c.says)
		}
		if basic := strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), `Basic realm="dos"`); basic != (c.status == 401) {
			t.Errorf("%s %q: %d with WWW-Authenticate: %v", c.ask, c.headers, resp.StatusCode, basic)
		}
		if resp.Header.Get("Content-Security-Policy") != "sandbox" {
			t.Errorf("%s: its pages run", c.ask)
		}
	}
}

// What a password is good for is asked now and then, and what was known counts while nobody
// can be asked.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, h := newDoor(true)
		get := func(want int) {
			t.Helper()
			if resp := ask(h, "PUT", "/fs/a", "Password: rw"); resp.StatusCode != want {
				t.Errorf("%d, want %d", resp.StatusCode, want)
			}
		}
		for range 100 {
			get(200)
		}
		if d.asked != 1 {
			t.Errorf("asked %d times", d.asked)
		}
		down := errors.New("nobody is there")
		d.set("other", trust.None, down)
		time.Sleep(time.Hour)
		get(200)
		if resp := ask(h, "GET", "/fs/a", "Password: ro"); resp.StatusCode != 503 || !strings.Contains(text(resp), "nobody is there") {
			t.Errorf("who is not known: %d", resp.StatusCode)
		}
		d.set("rw", trust.ReadOnly, nil)
		get(403)
		d.set("rw", trust.None, nil)
		time.Sleep(passwords.RecheckEvery)
		get(401)
		d.set("rw", trust.ReadWrite, nil)
		began := time.Now()
		get(200)
		for i := range knownMax + 10 {
			password := "rw" + strings.Repeat("x", i)
			d.set(password, trust.ReadWrite, nil)
			ask(h, "GET", "/fs/a", "Password: "+password)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("good passwords took %v", waited)
		}
		if n := len(h.(*handler).known); n > knownMax {
			t.Errorf("%d passwords are kept", n)
		}
		began = time.Now()
		ask(h, "GET", "/fs/a", "Password: wrong")
		if waited := time.Since(began); waited != passwords.FailWait {
			t.Errorf("a wrong one took %v", waited)
		}
	})
}

// Who is refused cannot have the server read for ever.
func TestRefusedBody(t *testing.T) {
	_, h := newDoor(true)
	web := httptest.NewServer(h)
	defer web.Close()
	body, send := io.Pipe()
	defer send.Close()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", web.URL+"/fs/a", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // of which nothing comes
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Error(resp.Status)
	}
}
