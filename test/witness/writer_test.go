package witness

import "testing"

// TestAllows holds the checker itself to its word.
func TestAllows(t *testing.T) {
	s := func(text string) *[]byte { b := []byte(text); return &b }
	for _, c := range []struct {
		f     file
		found *[]byte
		want  bool
	}{
		{file{acked: s("old")}, s("old"), true},
		{file{acked: s("old")}, s("odd"), false},
		{file{acked: s("old")}, nil, false},
		{file{acked: nil}, nil, true},
		{file{acked: nil}, s("old"), false},
		{file{acked: s("old"), next: s("new"), busy: true, whole: true}, s("new"), true},
		{file{acked: s("old"), next: s("new"), busy: true, whole: true}, s("nld"), false},
		{file{acked: s("old"), next: s("new"), busy: true}, s("nld"), true},
		{file{acked: s("old"), next: s("new"), busy: true}, s("xld"), false},
		{file{acked: s("old"), next: s("old+more"), busy: true}, s("old+m"), true},
		{file{acked: s("old"), next: s("old+more"), busy: true}, s("ol"), false},
		{file{acked: s("old"), next: nil, busy: true, whole: true}, nil, true},
		{file{acked: s("old"), next: s("new")}, s("new"), false},
	} {
		if got := c.f.allows(c.found); got != c.want {
			t.Errorf("acked %s, next %s, busy %v, whole %v, found %s: got %v, want %v",
				describe(c.f.acked), describe(c.f.next), c.f.busy, c.f.whole, describe(c.found), got, c.want)
		}
	}
}
