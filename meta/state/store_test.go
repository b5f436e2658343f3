package state

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "seed of the random tests; 0 takes one from the clock")

func random(t *testing.T) *rand.Rand {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// model is the dumb twin of an Overlay.
type model map[string]string

func (m model) scan(from, to string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k >= from && (to == "" || k < to) {
			list = append(list, k+"="+m[k])
		}
	}
	return list
}

func TestOverlayAgainstModel(t *testing.T) {
	rnd := random(t)
	for round := range 200 {
		below := NewOverlay(nil)
		twin := model{}
		key := func() string { return fmt.Sprintf("%0*d", 1+rnd.IntN(2), rnd.IntN(30)) }
		for range rnd.IntN(30) {
			k := key()
			below.Set([]byte(k), []byte("below"))
			twin[k] = "below"
		}
		for layer := range 1 + rnd.IntN(3) {
			o := NewOverlay(below)
			if round%4 == 0 && layer == 0 {
				o, twin = NewOverlay(nil), model{}
			}
			for step := range 60 {
				k := key()
				switch rnd.IntN(5) {
				case 0, 1:
					v := fmt.Sprint(layer, step)
					o.Set([]byte(k), []byte(v))
					twin[k] = v
				case 2:
					o.Delete([]byte(k))
					delete(twin, k)
				case 3:
					got, ok := o.Get([]byte(k))
					if want, has := twin[k]; ok != has || string(got) != want {
						t.Fatalf("round %d: Get(%q) = %q %v, want %q %v", round, k, got, ok, want, has)
					}
				case 4:
					from, to := key(), key()
					if rnd.IntN(4) == 0 {
						to = ""
					}
					var got []string
					for k, v := range o.Scan([]byte(from), []byte(to)) {
						got = append(got, string(k)+"="+string(v))
					}
					if want := twin.scan(from, to); !slices.Equal(got, want) {
						t.Fatalf("round %d: Scan(%q, %q) = %q, want %q", round, from, to, got, want)
					}
				}
				checkSize(t, o)
			}
			below = o
		}
	}
}

func checkSize(t *testing.T, o *Overlay) {
	t.Helper()
	count, size := 0, 0
	for k, v := range o.Changes() {
		count++
		size += len(k) + len(v)
	}
	if c, s := o.Size(); c != count || s != size {
		t.Fatalf("Size() = %d, %d; the changes are %d, %d", c, s, count, size)
	}
}

// A scan whose user writes sees the same whatever lies in which layer: batches
// are cut at different places on different replicas.
func TestOverlayScanWhileWriting(t *testing.T) {
	rnd := random(t)
	for round := range 300 {
		type edit struct {
			key string
			del bool
		}
		start, edits := map[string]int{}, map[string]edit{}
		for range 10 {
			start[fmt.Sprint(rnd.IntN(20))] = rnd.IntN(2)
			edits[fmt.Sprint(rnd.IntN(20))] = edit{fmt.Sprint(rnd.IntN(20)), rnd.IntN(2) == 0}
		}
		// mode 0: all below; 1: all changes; 2: as drawn.
		var results []string
		for mode := range 3 {
			below := NewOverlay(nil)
			o := NewOverlay(below)
			for k, layer := range start {
				if mode == 0 || mode == 2 && layer == 0 {
					below.Set([]byte(k), []byte("old"))
				} else {
					o.Set([]byte(k), []byte("old"))
				}
			}
			var got []string
			for k, v := range o.Scan(nil, nil) {
				got = append(got, string(k)+"="+string(v))
				e, ok := edits[string(k)]
				switch {
				case ok && e.del:
					o.Delete([]byte(e.key))
				case ok:
					o.Set([]byte(e.key), []byte("new"))
				}
			}
			results = append(results, fmt.Sprint(got))
		}
		if results[0] != results[1] || results[0] != results[2] {
			t.Fatalf("round %d: rows below %s, as changes %s, mixed %s", round, results[0], results[1], results[2])
		}
	}
}

func TestOverlayValues(t *testing.T) {
	o := NewOverlay(NewOverlay(nil))
	o.Set([]byte("nil"), nil)
	if v, ok := o.Get([]byte("nil")); !ok || len(v) != 0 {
		t.Errorf("a nil value: %v %v, want an empty one", v, ok)
	}
	o.Delete([]byte("gone"))
	for k, v := range o.Changes() {
		if (v == nil) != (string(k) == "gone") {
			t.Errorf("change of %s: %v", k, v)
		}
	}
	for range o.Scan(nil, nil) {
		break // a scan may be left early
	}
}

func TestAfter(t *testing.T) {
	for _, tc := range []struct{ prefix, want []byte }{
		{[]byte("a"), []byte("b")},
		{[]byte("a\xff"), []byte("b")},
		{[]byte("\xff\xff"), nil},
		{nil, nil},
		{[]byte{1, 0}, []byte{1, 1}},
	} {
		if got := After(tc.prefix); !bytes.Equal(got, tc.want) {
			t.Errorf("After(%x) = %x, want %x", tc.prefix, got, tc.want)
		}
	}
}
