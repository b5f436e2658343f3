// Package statetest helps the tests of rooms: it executes their commands as a
// replica does, and holds what they store and send to golden files.
package statetest

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"dos/meta/state"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Do executes a request on a store in memory, which keeps what it changed. The
// test ends if a command that failed has changed something.
func Do(t testing.TB, m *state.Machine, store *state.Overlay, cmd state.Command) state.Reply {
	t.Helper()
	if m.IsQuery(cmd.Op) {
		return m.Answer(store, cmd)
	}
	changes := state.NewOverlay(store)
	reply := m.Apply(changes, cmd)
	for k, v := range changes.Changes() {
		old, had := store.Get(k)
		switch {
		case reply.Kind != 0 && (had != (v != nil) || !bytes.Equal(v, old)):
			t.Fatalf("op %#x failed with %v and changed row %q", uint16(cmd.Op), reply.Err(), k)
		case v != nil:
			store.Set(k, v)
		default:
			store.Delete(k)
		}
	}
	return reply
}

// Golden compares what is stored or sent with the file of that name, so that
// nobody changes it unawares. With -update the file is written.
func Golden(t testing.TB, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}
