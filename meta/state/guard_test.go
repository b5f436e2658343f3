package state_test

import (
	"errors"
	"testing"

	"dos/meta"
	"dos/meta/state"
)

// A guard keeps a session out before anything of it is executed or kept.
func TestGuard(t *testing.T) {
	var m state.Machine
	open := []byte("open")
	runs := 0
	state.Handle(&m, 1, "test.run", func(tx *state.Tx, _ struct{}) (int, error) {
		runs++
		return runs, nil
	})
	state.Handle(&m, 2, "test.close", func(tx *state.Tx, _ struct{}) (struct{}, error) {
		tx.Delete(open)
		state.ForgetSlots(tx, 7)
		return struct{}{}, nil
	})
	m.Guard(func(r state.Reader, s meta.SessionID) error {
		if _, ok := r.Get(open); s != 7 || !ok {
			return meta.Expired
		}
		return nil
	})
	s := state.NewOverlay(nil)
	s.Set(open, nil)
	empty := state.Marshal(struct{}{})
	steps := []struct {
		cmd  state.Command
		want meta.Kind
		runs int
	}{
		{state.Command{Op: 1, Session: 0, Body: empty}, 0, 1},
		{state.Command{Op: 1, Session: 7, Seq: 1, Body: empty}, 0, 2},
		{state.Command{Op: 1, Session: 7, Seq: 1, Body: empty}, 0, 2}, // again: kept
		{state.Command{Op: 1, Session: 8, Seq: 1, Body: empty}, meta.Expired, 2},
		{state.Command{Op: 2, Session: 7, Slot: 1, Seq: 1, Body: empty}, 0, 2},
		{state.Command{Op: 1, Session: 7, Seq: 1, Body: empty}, meta.Expired, 2}, // the kept reply is gone too
		{state.Command{Op: 1, Session: 7, Seq: 2, Body: empty}, meta.Expired, 2},
	}
	for i, st := range steps {
		err := m.Apply(s, st.cmd).Err()
		if st.want == 0 && err != nil || st.want != 0 && !errors.Is(err, st.want) || runs != st.runs {
			t.Errorf("step %d: %v after %d runs, want kind %v after %d", i, err, runs, st.want, st.runs)
		}
	}
	if n, _ := s.Size(); n != 0 {
		t.Errorf("%d rows are left of the session", n)
	}
}
