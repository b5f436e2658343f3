package admin_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dos/internal/admin"
)

type service struct{ fail error }

func (s service) Status(context.Context) (any, error) { return map[string]int{"stripes": 7}, s.fail }
func (s service) Events(_ context.Context, after uint64) (any, error) {
	return []uint64{after + 1}, s.fail
}
func (s service) Fsck(_ context.Context, data bool, say func(string)) (int, error) {
	say("one")
	if data {
		say("two")
	}
	return 3, s.fail
}
func (s service) Scrub(_ context.Context, say func(string)) (int, error) { return 0, s.fail }
func (s service) Replace(_ context.Context, store uint32) error {
	if store != 4 {
		return errors.New("wrong store")
	}
	return s.fail
}
func (s service) Dump(_ context.Context, w io.Writer) error {
	io.WriteString(w, "dump")
	return s.fail
}

func dial(t *testing.T, s admin.Service) *admin.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), strings.Repeat("d", 120)) // too long for a socket's address
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(path, "sock")
	l, err := admin.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: admin.Handler(s)}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return admin.Dial(path)
}

func TestAsk(t *testing.T) {
	c := dial(t, service{})
	var status struct{ Stripes int }
	if err := c.Status(t.Context(), &status); err != nil || status.Stripes != 7 {
		t.Errorf("Status = %+v, %v", status, err)
	}
	var events []uint64
	if err := c.Events(t.Context(), 41, &events); err != nil || !slices.Equal(events, []uint64{42}) {
		t.Errorf("Events = %v, %v", events, err)
	}
	for _, test := range []struct {
		data bool
		want []string
	}{{false, []string{"one"}}, {true, []string{"one", "two"}}} {
		var said []string
		n, err := c.Fsck(t.Context(), test.data, func(line string) { said = append(said, line) })
		if n != 3 || err != nil || !slices.Equal(said, test.want) {
			t.Errorf("Fsck(%v) = %d, %v and said %q, want 3 and %q", test.data, n, err, said, test.want)
		}
	}
	for _, test := range []struct {
		store string
		ok    bool
	}{{"4", true}, {"5", false}, {"x", false}, {"", false}} {
		if err := c.Replace(t.Context(), test.store); (err == nil) != test.ok {
			t.Errorf("Replace(%q) = %v, want success %v", test.store, err, test.ok)
		}
	}
	var dump bytes.Buffer
	if err := c.Dump(t.Context(), &dump); err != nil || dump.String() != "dump" {
		t.Errorf("Dump = %q, %v", dump.String(), err)
	}
}

// What fails there is an error here, also after the answer has begun.
func TestFailure(t *testing.T) {
	c := dial(t, service{fail: errors.New("no such luck")})
	if err := c.Status(t.Context(), new(any)); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("Status = %v", err)
	}
	if _, err := c.Fsck(t.Context(), false, func(string) {}); err == nil || err.Error() != "no such luck" {
		t.Errorf("Fsck = %v", err)
	}
	if err := c.Dump(t.Context(), io.Discard); err == nil {
		t.Error("a dump that broke off was taken for whole")
	}
	gone := admin.Dial(filepath.Join(t.TempDir(), "none"))
	if _, err := gone.Scrub(t.Context(), func(string) {}); err == nil {
		t.Error("Scrub without a server succeeded")
	}
}
