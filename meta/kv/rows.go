package kv

import (
	"encoding/binary"
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// value is a row "7v": an Entry without its key.
type value = Entry

type counters struct {
	Rev    uint64 `cbor:"1,keyasint,omitempty"` // of the last change
	Tables int    `cbor:"2,keyasint,omitempty"`
}

// staged is what a session has staged under a number.
type staged struct {
	Parts uint32 `cbor:"1,keyasint,omitempty"`
	Size  int    `cbor:"2,keyasint,omitempty"`
}

var counterKey = []byte("7c")

const (
	tables7  = "7t"
	values7  = "7v"
	parts7   = "7p"
	staged7  = "7s"
	expires7 = "7e"
	feed7    = "7h"
)

// FollowKey is the row that changes when a table does.
func FollowKey(table string) []byte { return []byte(tables7 + table) }

func valueKey(table, key string) []byte { return []byte(values7 + table + "\x00" + key) }

func number(prefix string, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefix), n)
}

func blobKey(prefix string, b Blob) []byte {
	return binary.BigEndian.AppendUint64(number(prefix, uint64(b.Session)), b.Number)
}

func partKey(b Blob, part uint32) []byte {
	return binary.BigEndian.AppendUint32(blobKey(parts7, b), part)
}

func expireKey(at meta.Time, table, key string) []byte {
	return append(number(expires7, uint64(at)), table+"\x00"+key...)
}

func load[T any](r state.Reader, key []byte) (v T, ok bool) {
	val, ok := r.Get(key)
	if ok {
		state.MustUnmarshal(val, &v)
	}
	return v, ok
}

func loadTable(r state.Reader, name string) (Table, error) {
	t, ok := load[Table](r, FollowKey(name))
	if !ok {
		return Table{}, fmt.Errorf("table %.80q: %w", name, meta.NotExist)
	}
	return t, nil
}

// parts is how many parts a blob has.
func (b Blob) parts() uint32 { return uint32((b.Size + PartMax - 1) / PartMax) }

// checkTable refuses what is no name of a table.
func checkTable(name string) error {
	if err := meta.CheckName(name); err != nil {
		return fmt.Errorf("table %.80q: %w", name, err)
	}
	if name[0] == '.' {
		return fmt.Errorf("table %q: names that begin with a dot are reserved: %w", name, meta.Invalid)
	}
	return nil
}

// checkKey refuses what is no key. A file of that name could not be.
func checkKey(key string) error {
	if len(key) == 0 || len(key) > KeyMax {
		return fmt.Errorf("key of %d bytes, 1 to %d: %w", len(key), KeyMax, meta.NameTooLong)
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(key, "/"), "/") {
		if part == "" || part[0] == '.' {
			return fmt.Errorf("key %.80q: a part is empty or begins with a dot: %w", key, meta.Invalid)
		}
	}
	return nil
}

func isDir(key string) bool { return strings.HasSuffix(key, "/") }

// below reports whether keys have a directory as their prefix, itself aside.
func below(r state.Reader, table, dir string) bool {
	prefix := valueKey(table, dir)
	for range r.Scan(append(prefix[:len(prefix):len(prefix)], 0), state.After(prefix)) {
		return true
	}
	return false
}

// place refuses a key that cannot be because a value or a directory is in the way.
func place(r state.Reader, table, key string) error {
	for i, c := range []byte(strings.TrimSuffix(key, "/")) {
		if c != '/' {
			continue
		}
		if _, is := r.Get(valueKey(table, key[:i])); is {
			return fmt.Errorf("%.80q is a value: %w", key[:i], meta.NotDir)
		}
	}
	if dir, is := strings.CutSuffix(key, "/"); is {
		if _, is := r.Get(valueKey(table, dir)); is {
			return fmt.Errorf("%.80q is a value: %w", dir, meta.Exist)
		}
		return nil
	}
	_, made := r.Get(valueKey(table, key+"/"))
	if made || below(r, table, key+"/") {
		return fmt.Errorf("%.80q is a directory: %w", key, meta.IsDir)
	}
	return nil
}
