package kv

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/meta"
)

var seed = flag.Uint64("seed", 0, "of the random test; 0: another each time")

// A twin is what tables should hold.
type twin struct {
	rev    uint64
	tables map[string]map[string]twinValue
	feed   []Change
}

type twinValue struct {
	data    string
	version uint64
	ttl     time.Duration
	expires time.Time
}

// TestModel does random things to a world and its twin, a few maps.
func TestModel(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed=%d", s)
	r := rand.New(rand.NewPCG(s, 0))
	w := newWorld(t, 2)
	m := twin{tables: map[string]map[string]twinValue{"a": {}, "b": {}}}
	w.make("a")
	w.make("b")
	keys := []string{"k", "l", "d/x", "d/y", "d/e/z", "d", "d/", "k/x", "q/"}
	for step := range 8_000 {
		table := []string{"a", "b"}[r.IntN(2)]
		key := keys[r.IntN(len(keys))]
		old, was := m.tables[table][key]
		var only *uint64
		if r.IntN(3) == 0 {
			only = p(old.version)
			if r.IntN(2) == 0 {
				*only = uint64(r.IntN(int(m.rev) + 1))
			}
		}
		what := fmt.Sprintf("step %d: %s/%s only %v", step, table, key, only)
		switch r.IntN(8) {
		case 0, 1, 2:
			data := strings.Repeat("v", r.IntN(5))
			req := Put{Table: table, Key: key, Data: []byte(data), Only: only}
			if isDir(key) {
				req.Data, data = nil, ""
			} else if r.IntN(4) == 0 {
				req.TTL = p(time.Duration(r.IntN(50)) * time.Millisecond)
			}
			got, err := call[Written](w, 1, OpPut, req)
			want := m.put(table, key, data, req.TTL, only, w.now)
			if !errors.Is(err, want) || err == nil && got.Version != m.rev {
				t.Fatalf("%s: put gives %v, %v, want %v, %v", what, got, err, m.rev, want)
			}
		case 3:
			got, err := call[Written](w, 1, OpDelete, Delete{Table: table, Key: key, Only: only})
			var want error
			switch {
			case only != nil && *only != old.version:
				want = meta.Conflict
			case isDir(key) && m.below(table, key):
				want = meta.NotEmpty
			case !was:
				want = meta.NotExist
			default:
				delete(m.tables[table], key)
				m.change(WasDeleted, table, key)
			}
			if !errors.Is(err, want) || err == nil && got.Version != m.rev {
				t.Fatalf("%s: delete gives %v, %v, want %v", what, got, err, want)
			}
		case 4:
			to, toKey := []string{"a", "b"}[r.IntN(2)], keys[r.IntN(len(keys))]
			noReplace := r.IntN(2) == 0
			_, err := call[Written](w, 1, OpRename, Rename{table, key, to, toKey, noReplace})
			if want := m.rename(table, key, to, toKey, noReplace, w.now); !errors.Is(err, want) || err != nil && want == nil {
				t.Fatalf("%s to %s/%s: rename gives %v, want %v", what, to, toKey, err, want)
			}
		case 5:
			got, err := call[Entry](w, 0, OpGet, Get{Table: table, Key: key, Data: true})
			switch {
			case was:
				if err != nil || string(got.Data) != old.data || got.Version != old.version || got.TTL != old.ttl || got.Dir != isDir(key) {
					t.Fatalf("%s: get gives %+v, %v, want %+v", what, got, err, old)
				}
			case m.tables[table][key+"/"].version > 0 || m.below(table, strings.TrimSuffix(key, "/")+"/"):
				if err != nil || !got.Dir {
					t.Fatalf("%s: get of a directory gives %+v, %v", what, got, err)
				}
			case !errors.Is(err, meta.NotExist) && !errors.Is(err, meta.NotDir):
				t.Fatalf("%s: get of nothing gives %+v, %v", what, got, err)
			}
		case 6:
			got := must[Expired](w, 0, OpExpire, none{})
			if got.More {
				t.Fatalf("%s: more than there are expire", what)
			}
			m.expire(w.now)
		case 7:
			w.check(what, &m)
		}
	}
	w.check("at the end", &m)
	for table, want := range m.tables {
		for _, key := range slices.Backward(slices.Sorted(maps.Keys(want))) {
			must[Written](w, 1, OpDelete, Delete{Table: table, Key: key})
		}
		must[none](w, 0, OpDrop, Named{table})
	}
	for k := range w.store.Scan([]byte("7"), []byte("7h")) {
		if string(k) != "7c" {
			t.Errorf("row %q is left when all tables are gone", k)
		}
	}
}

func (m *twin) change(verb Verb, table, key string) {
	m.rev++
	m.feed = append(m.feed, Change{Rev: m.rev, Verb: verb, Table: table, Key: key})
}

func (m *twin) below(table, dir string) bool {
	for key := range m.tables[table] {
		if strings.HasPrefix(key, dir) && key != dir {
			return true
		}
	}
	return false
}

// place is why a key cannot be.
func (m *twin) place(table, key string) error {
	values := m.tables[table]
	for other, v := range values {
		if v.version > 0 && !isDir(other) && strings.HasPrefix(key, other+"/") {
			if key == other+"/" {
				return meta.Exist
			}
			return meta.NotDir
		}
	}
	if !isDir(key) && (values[key+"/"].version > 0 || m.below(table, key+"/")) {
		return meta.IsDir
	}
	return nil
}

func (m *twin) put(table, key, data string, ttl *time.Duration, only *uint64, now time.Time) error {
	old, was := m.tables[table][key]
	switch {
	case only != nil && *only != old.version:
		return meta.Conflict
	case was && isDir(key):
		return meta.Exist
	case !was:
		if err := m.place(table, key); err != nil {
			return err
		}
		if isDir(key) && m.below(table, key) {
			return meta.Exist
		}
	}
	if ttl != nil {
		old.ttl = *ttl
	}
	m.change(WasPut, table, key)
	m.give(table, key, twinValue{data: data, version: m.rev, ttl: old.ttl}, now)
	return nil
}

func (m *twin) give(table, key string, v twinValue, now time.Time) {
	if v.expires = (time.Time{}); v.ttl > 0 {
		v.expires = now.Add(v.ttl)
	}
	m.tables[table][key] = v
}

func (m *twin) rename(table, key, to, toKey string, noReplace bool, now time.Time) error {
	v, was := m.tables[table][key]
	_, over := m.tables[to][toKey]
	switch {
	case isDir(key) || isDir(toKey):
		return meta.Unsupported
	case !was:
		return meta.NotExist
	case over && noReplace:
		return meta.Exist
	case table == to && key == toKey:
		return nil
	}
	delete(m.tables[table], key)
	if !over {
		if err := m.place(to, toKey); err != nil {
			m.tables[table][key] = v
			return err
		}
	}
	m.change(WasDeleted, table, key)
	m.change(WasPut, to, toKey)
	v.version = m.rev
	m.give(to, toKey, v, now)
	return nil
}

func (m *twin) expire(now time.Time) {
	type at struct {
		t          time.Time
		table, key string
	}
	var over []at
	for table, values := range m.tables {
		for key, v := range values {
			if !v.expires.IsZero() && !v.expires.After(now) {
				over = append(over, at{v.expires, table, key})
			}
		}
	}
	slices.SortFunc(over, func(a, b at) int {
		if c := a.t.Compare(b.t); c != 0 {
			return c
		}
		return strings.Compare(a.table+"\x00"+a.key, b.table+"\x00"+b.key)
	})
	for _, o := range over {
		delete(m.tables[o.table], o.key)
		m.change(WasExpired, o.table, o.key)
	}
}

// check compares all that can be asked for.
func (w *world) check(what string, m *twin) {
	w.t.Helper()
	for table, values := range m.tables {
		t := must[Table](w, 0, OpTable, Named{table})
		size := 0
		var want, listed []string
		for _, key := range slices.Sorted(maps.Keys(values)) {
			size += len(key) + len(values[key].data)
			if !isDir(key) {
				want = append(want, fmt.Sprint(key, values[key].version))
			}
			name, _, in := strings.Cut(key, "/")
			if in {
				name += "/"
			}
			if !slices.Contains(listed, name) {
				listed = append(listed, name)
			}
		}
		if t.Count != int64(len(values)) || t.Bytes != int64(size) {
			w.t.Fatalf("%s: table %s has %d keys with %d bytes, want %d with %d", what, table, t.Count, t.Bytes, len(values), size)
		}
		var got, names []string
		for from := ""; ; {
			reply := must[Scanned](w, 0, OpScan, Scan{Table: table, From: from, Limit: 2})
			for _, e := range reply.Entries {
				got = append(got, fmt.Sprint(e.Key, e.Version))
				from = e.Key + "\x00"
			}
			if !reply.More {
				break
			}
		}
		for after := ""; ; {
			reply := must[Scanned](w, 0, OpList, List{Table: table, After: after, Limit: 2})
			for _, e := range reply.Entries {
				names = append(names, e.Key)
				after = e.Key
			}
			if !reply.More {
				break
			}
		}
		if !slices.Equal(got, want) || !slices.Equal(names, listed) {
			w.t.Fatalf("%s: table %s has %q, listed as %q, want %q, %q", what, table, got, names, want, listed)
		}
		after := uint64(max(0, int(m.rev)-100))
		var feed, wanted []string
		reply := must[Changes](w, 0, OpFollow, Follow{Table: table, After: after, Limit: 1000})
		for _, c := range reply.Changes {
			feed = append(feed, fmt.Sprint(c.Rev, c.Verb, c.Table, c.Key))
		}
		for _, c := range m.feed[after:] {
			if c.Table == table {
				wanted = append(wanted, fmt.Sprint(c.Rev, c.Verb, c.Table, c.Key))
			}
		}
		if !slices.Equal(feed, wanted) || reply.Rev != m.rev {
			w.t.Fatalf("%s: the feed of %s is %q to %d, want %q to %d", what, table, feed, reply.Rev, wanted, m.rev)
		}
	}
}
