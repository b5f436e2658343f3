package node

import (
	"testing"
	"time"

	"dos/chunk"
	"dos/chunk/repair"
)

func TestCodeOf(t *testing.T) {
	for _, test := range []struct {
		want chunk.Code
		live int
		code string
	}{
		{chunk.Code{K: 4, M: 2}, 9, "4+2"}, {chunk.Code{K: 4, M: 2}, 6, "4+2"}, {chunk.Code{K: 4, M: 2}, 4, "2+2"},
		{chunk.Code{K: 4, M: 2}, 3, "1+2"}, {chunk.Code{K: 4, M: 2}, 2, ""}, {chunk.Code{K: 1, M: 1}, 1, ""}, {chunk.Code{K: 2, M: 1}, 0, ""},
	} {
		if got := codeOf(test.want, test.live); got != test.code {
			t.Errorf("%v with %d stores: %q, want %q", test.want, test.live, got, test.code)
		}
	}
}

func TestSpare(t *testing.T) {
	want := chunk.Code{K: 4, M: 2}
	whole := repair.Status{Stripes: 9, Full: 9, Complete: true}
	for _, test := range []struct {
		name      string
		all, live int
		stripes   repair.Status
		spare     int
	}{
		{"all is well", 6, 6, whole, 2},
		{"few stores, which is all there are", 3, 3, whole, 2},
		{"one is away, and what it had is elsewhere by now", 8, 7, whole, 2},
		{"one went just now", 6, 5, repair.Status{Stripes: 9, Full: 9}, 1},
		{"one is away", 6, 5, repair.Status{Stripes: 9, Full: 2, Degraded: 7}, 1},
		{"all were there, and it is being looked again", 6, 6, repair.Status{Stripes: 9, Full: 9, LastFull: time.Unix(1, 0)}, 2},
		{"one went just now, after all were there", 6, 5, repair.Status{Stripes: 9, Full: 9, LastFull: time.Unix(1, 0)}, 1},
		{"a shard rotted", 6, 6, repair.Status{Stripes: 9, Full: 8, Degraded: 1}, 1},
		{"two are away", 6, 4, repair.Status{Stripes: 9, Endangered: 9}, 0},
		{"three are away", 6, 3, repair.Status{Stripes: 9, Lost: 9}, 0},
		{"one is left", 3, 1, repair.Status{}, 0},
		{"one is all there is", 1, 1, repair.Status{Complete: true}, 0},
	} {
		if got := spare(want, test.all, test.live, test.stripes); got != test.spare {
			t.Errorf("%s: %d may be lost, want %d", test.name, got, test.spare)
		}
	}
}
