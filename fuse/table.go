package fuse

import (
	"encoding/binary"
	"hash/fnv"
	"reflect"
	"sync"
	"sync/atomic"

	"dos/procfs"
)

// Node ids are inode numbers. Those of stored files come from the metadata
// service, whose shards have small numbers; special nodes have a range of
// their own, which no shard may take.
const (
	specialShard = 0xFFFF // the high 16 bits
	specialBase  = uint64(specialShard) << 48
	specialMask  = uint64(1)<<48 - 1
)

func isSpecial(nodeid uint64) bool { return nodeid >= specialBase }

// A specialNode is a node of a special directory that the kernel knows of.
type specialNode struct {
	procfs.Node
	id     uint64
	ino    uint64         // the inode number that people see: its first id
	parent uint64         // its directory
	refs   uint64         // lookups that the kernel has not forgotten; guarded by table.mu
	open   []*specialOpen // in the order they were opened; guarded by table.mu
	// told is what the kernel was told last of what it may believe for a while; nil: nothing.
	told atomic.Pointer[procfs.Info]
}

// A table holds the special nodes that the kernel knows of, each until it is
// forgotten. The number of a node is a hash of where it was found, so that it
// is the same again after the kernel forgot it, and as long as two nodes are
// equal they have one number.
type table struct {
	mu     sync.Mutex
	byID   map[uint64]*specialNode      // guarded by mu
	byNode map[procfs.Node]*specialNode // guarded by mu; only nodes that canShare
}

func (t *table) get(id uint64) (*specialNode, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.byID[id]
	return n, ok
}

// add counts a lookup of n, which was found as name in the directory parent.
func (t *table) add(parent uint64, name string, n procfs.Node) *specialNode {
	shared := canShare(n)
	t.mu.Lock()
	defer t.mu.Unlock()
	if shared {
		if known, ok := t.byNode[n]; ok {
			known.refs++
			return known
		}
	}
	if t.byID == nil {
		t.byID = make(map[uint64]*specialNode)
		t.byNode = make(map[procfs.Node]*specialNode)
	}
	ino := numberOf(parent, name)
	id := ino
	for t.byID[id] != nil { // another object was at this name before, or a collision
		id = next(id)
	}
	s := &specialNode{Node: n, id: id, ino: ino, parent: parent, refs: 1}
	t.byID[id] = s
	if shared {
		t.byNode[n] = s
	}
	return s
}

// number returns what add would return the id of, as far as it can be known
// without looking the node up: a directory lists it.
func (t *table) number(parent uint64, name string) uint64 { return numberOf(parent, name) }

func (t *table) forget(id, lookups uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.byID[id]
	if !ok {
		return
	}
	if n.refs > lookups {
		n.refs -= lookups
		return
	}
	delete(t.byID, id)
	if canShare(n.Node) {
		delete(t.byNode, n.Node)
	}
}

// canShare reports whether all lookups of a node may have the same number.
func canShare(n procfs.Node) bool {
	_, blocks := n.(procfs.Blocker)
	return !blocks && reflect.ValueOf(n).Comparable()
}

func numberOf(parent uint64, name string) uint64 {
	h := fnv.New64a()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], parent)
	h.Write(b[:])
	h.Write([]byte(name))
	sum := h.Sum64()
	return clampSpecial(sum ^ sum>>48)
}

func next(id uint64) uint64 { return clampSpecial(id + 1) }

// clampSpecial puts n into the special range. Its last number is not used: go-fuse
// has a node of its own there.
func clampSpecial(n uint64) uint64 {
	if n &= specialMask; n == specialMask {
		n = 0
	}
	return specialBase | n
}
