package admin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/internal/admin"
)

type service struct{ fail error }

func (s service) Status(context.Context) (any, error) { return map[string]int{"stripes": 7}, s.fail }
func (service) Nodes(context.Context) (any, error)    { return []string{"n1"}, nil }

func (s service) Events(_ context.Context, after uint64) (any, error) {
	return []uint64{after + 1}, s.fail
}
func (s service) Fsck(_ context.Context, data bool, to admin.Report) (int, error) {
	to.Say("one")
	to.At(1, 2)
	if data {
		to.Say("two")
	}
	return 3, s.fail
}
func (s service) Scrub(ctx context.Context, to admin.Report) (int, error) {
	if admin.Here(ctx) {
		to.Say("here")
	}
	return 0, s.fail
}
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

// record is the rest of the services: it notes what it is asked.
type record struct{ asked *[]string }

func (r record) note(format string, args ...any) error {
	*r.asked = append(*r.asked, fmt.Sprintf(format, args...))
	return nil
}

func (r record) Drain(_ context.Context, name string, on bool) error {
	return r.note("drain %s %v", name, on)
}
func (r record) Remove(_ context.Context, name string) error { return r.note("remove %s", name) }
func (r record) CreateToken(_ context.Context, w admin.Wish) (string, error) {
	return "secret", r.note("token %+v", w)
}
func (r record) Tokens(context.Context) ([]admin.Token, error) {
	return []admin.Token{{Hash: "h", Kind: "client", Expires: 5}}, r.note("tokens")
}
func (r record) DeleteToken(_ context.Context, hash string) error { return r.note("untoken %s", hash) }
func (r record) Identities(context.Context) ([]admin.Identity, error) {
	return []admin.Identity{{Kind: "machine", Name: "a", Until: 7}}, r.note("identities")
}
func (r record) Revoke(_ context.Context, node bool, name string) error {
	return r.note("revoke %v %s", node, name)
}
func (r record) Rotate(context.Context) error { return r.note("rotate") }
func (r record) Retire(context.Context) error { return r.note("retire") }
func (r record) Rotation(context.Context) (admin.Rotation, error) {
	return admin.Rotation{Underway: true, Waiting: []string{"a"}, More: 2}, r.note("rotation")
}

func dial(t *testing.T, s admin.Data) *admin.Client {
	t.Helper()
	return dialAll(t, admin.Services{Data: s})
}

func dialAll(t *testing.T, s admin.Services) *admin.Client {
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
		var at, of int64
		n, err := c.Fsck(t.Context(), test.data, admin.Report{
			Say: func(line string) { said = append(said, line) },
			At:  func(done, all int64) { at, of = done, all },
		})
		if n != 3 || err != nil || !slices.Equal(said, test.want) || at != 1 || of != 2 {
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
	if _, err := c.Fsck(t.Context(), false, quiet); err == nil || err.Error() != "no such luck" {
		t.Errorf("Fsck = %v", err)
	}
	if err := c.Dump(t.Context(), io.Discard); err == nil {
		t.Error("a dump that broke off was taken for whole")
	}
	gone := admin.Dial(filepath.Join(t.TempDir(), "none"))
	if _, err := gone.Scrub(t.Context(), quiet); err == nil {
		t.Error("Scrub without a server succeeded")
	}
}

var quiet = admin.Report{Say: func(string) {}, At: func(int64, int64) {}}

// What is asked of a cluster of machines arrives as it was said.
func TestMachinesAndAccess(t *testing.T) {
	var asked []string
	r := record{&asked}
	c := dialAll(t, admin.Services{Data: service{}, Machines: r, Access: r})
	ctx := t.Context()
	token, err := c.CreateToken(ctx, admin.Wish{Name: "a b&c", Rights: "rw", Life: 90 * time.Second})
	if token != "secret" || err != nil {
		t.Errorf("CreateToken = %q, %v", token, err)
	}
	if list, err := c.Tokens(ctx); err != nil || len(list) != 1 || list[0] != (admin.Token{Hash: "h", Kind: "client", Expires: 5}) {
		t.Errorf("Tokens = %v, %v", list, err)
	}
	if list, err := c.Identities(ctx); err != nil || len(list) != 1 || list[0] != (admin.Identity{Kind: "machine", Name: "a", Until: 7}) {
		t.Errorf("Identities = %v, %v", list, err)
	}
	if now, err := c.Rotation(ctx); err != nil || !now.Underway || now.More != 2 || !slices.Equal(now.Waiting, []string{"a"}) {
		t.Errorf("Rotation = %v, %v", now, err)
	}
	for _, err := range []error{
		c.Drain(ctx, "b", true), c.Drain(ctx, "b", false), c.Remove(ctx, "b"), c.DeleteToken(ctx, "h"),
		c.Revoke(ctx, true, "b"), c.Rotate(ctx), c.Retire(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"token {Node:false Name:a b&c Rights:rw Life:1m30s Password:false}", "tokens", "identities", "rotation",
		"drain b true", "drain b false", "remove b", "untoken h", "revoke true b", "rotate", "retire",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	if err := dial(t, service{}).Remove(ctx, "b"); err == nil || !strings.Contains(err.Error(), "embedded") {
		t.Errorf("an embedded cluster removes a machine: %v", err)
	}
}

// What is asked of one machine alone says so.
func TestHere(t *testing.T) {
	c := dial(t, service{})
	for _, test := range []struct {
		client *admin.Client
		want   int
	}{{c, 0}, {c.Here(), 1}} {
		said := 0
		_, err := test.client.Scrub(t.Context(), admin.Report{Say: func(string) { said++ }, At: quiet.At})
		if err != nil || said != test.want {
			t.Errorf("said %d lines, want %d; %v", said, test.want, err)
		}
	}
}
