package passwords

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dos/internal/trust"
	"dos/meta"
)

// A book is what passwords there are, by their hashes.
type book struct {
	known map[string]trust.Rights
	err   error // why nobody can be asked
}

func (b *book) Any(context.Context) (bool, error) { return len(b.known) > 0, b.err }
func (b *book) Check(_ context.Context, hash string) (trust.Rights, error) {
	return b.known[hash], b.err
}

// A shelf has one book at a time.
type shelf struct{ atomic.Pointer[book] }

func (s *shelf) Any(ctx context.Context) (bool, error) { return s.Load().Any(ctx) }
func (s *shelf) Check(ctx context.Context, hash string) (trust.Rights, error) {
	return s.Load().Check(ctx, hash)
}

// Who reaches a port without a password, by its address, and whether there are passwords.
func TestNeeded(t *testing.T) {
	some := map[string]trust.Rights{trust.HashSecret("x"): trust.ReadOnly}
	for _, c := range []struct {
		ip     string
		known  map[string]trust.Rights
		opens  bool
		needed bool
	}{
		{"127.0.0.1", nil, true, false}, {"127.8.8.8", nil, true, false}, {"::1", nil, true, false}, {"127.0.0.1", some, true, true},
		{"0.0.0.0", nil, false, true}, {"::", nil, false, true}, {"10.0.0.1", nil, false, true}, {"10.0.0.1", some, true, true},
	} {
		d, err := New(t.Context(), "--port", &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 7}, &book{known: c.known})
		switch {
		case (err == nil) != c.opens:
			t.Errorf("%s, %d passwords: %v", c.ip, len(c.known), err)
		case err == nil && d.Needed() != c.needed:
			t.Errorf("%s, %d passwords: needed: %v", c.ip, len(c.known), d.Needed())
		case err != nil && (!errors.Is(err, meta.Permission) || !strings.HasPrefix(err.Error(), "--port ") || !strings.Contains(err.Error(), "dosctl token create --password")):
			t.Errorf("%s: %v", c.ip, err)
		}
	}
	if _, err := New(t.Context(), "--port", &net.TCPAddr{IP: net.IPv4zero}, nil); !errors.Is(err, meta.Permission) {
		t.Errorf("without any records: %v", err)
	}
	if _, err := New(t.Context(), "--port", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &book{err: meta.Unavailable}); !errors.Is(err, meta.Unavailable) {
		t.Errorf("when nobody can be asked: %v", err)
	}
}

// The first password that is made locks the port of this machine, and the last that is
// deleted opens it again; that of others stays locked.
func TestLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shelf
		one := map[string]trust.Rights{"hash": trust.ReadWrite}
		s.Store(&book{known: one})
		ctx, stop := context.WithCancel(t.Context())
		var doors []*Door
		done := make(chan error)
		for _, ip := range []string{"127.0.0.1", "10.0.0.1"} {
			d, err := New(t.Context(), "--port", &net.TCPAddr{IP: net.ParseIP(ip)}, &s)
			if err != nil {
				t.Fatal(err)
			}
			doors = append(doors, d)
			go func() { done <- d.Run(ctx) }()
		}
		look := func(what string, local bool) {
			t.Helper()
			time.Sleep(lookEvery + time.Millisecond)
			synctest.Wait()
			if doors[0].Needed() != local || !doors[1].Needed() {
				t.Errorf("%s: needed: here %v, by others %v", what, doors[0].Needed(), doors[1].Needed())
			}
		}
		look("with one", true)
		s.Store(&book{})
		look("without", false)
		s.Store(&book{known: one})
		look("with one again", true)
		s.Store(&book{err: meta.Unavailable})
		look("when nobody can be asked", true)
		stop()
		for range doors {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
