package cache

import "slices"

// The states of a slot.
const (
	free   = iota
	memory // its value is in memory
	onDisk // its value is on disk, under the number in more
)

// headerSize is the bytes before a key.
const headerSize = 80

// A header is the first headerSize bytes of an entry's slot. The key follows it and
// then the value. What does not fit into the largest slot, a whole page, is in more
// pages, each of which begins with the ref of the next.
type header struct {
	chain      ref // the next entry in the chain of the table
	prev, next ref // in the list it is on
	more       ref // the first page of the rest of the value, or its number on disk
	hash       uint64
	version    uint64
	expires    int64  // nanoseconds since 1970; 0: never
	life       uint32 // the bucket's generation it is of
	size       uint32 // of the value, in bytes
	level      uint32 // of lfu
	hits       uint16 // on this level
	keySize    uint16
	class      uint8
	state      uint8
}

// perPage is how much of a value fits into a page that is no slot.
const perPage = pageSize - 8

// shape returns the class of the slot of an entry and the number of pages beside it.
func shape(key, value int) (class uint8, more int) {
	n := headerSize + key + value
	i, _ := slices.BinarySearch(slots, n)
	if i < len(slots) {
		return uint8(i), 0
	}
	return uint8(len(slots) - 1), (n - pageSize + perPage - 1) / perPage
}

// cost is the bytes of memory of an entry with a key and a value of so many bytes.
func cost(key, value int) int64 {
	class, more := shape(key, value)
	return int64(slots[class]) + int64(more)<<pageBits
}

func (h *header) cost() int64 {
	if h.state == onDisk {
		return int64(slots[h.class])
	}
	return cost(int(h.keySize), int(h.size))
}

func (p *pages) key(r ref) []byte {
	return p.bytes(r+headerSize, int(p.at(r).keySize))
}

// value appends the value of the entry at r to dst.
func (p *pages) value(dst []byte, r ref) []byte {
	h := p.at(r)
	left := int(h.size)
	dst = slices.Grow(dst, left)
	start := headerSize + int(h.keySize)
	n := min(left, slots[h.class]-start)
	dst = append(dst, p.bytes(r+ref(start), n)...)
	left -= n
	for m := h.more; left > 0; m = *p.link(m) {
		n := min(left, perPage)
		dst = append(dst, p.bytes(m+8, n)...)
		left -= n
	}
	return dst
}

// link is the ref of the next page of a value.
func (p *pages) link(m ref) *ref { return &p.at(m).chain }

// write fills a slot, whose header has class and more, with key and value.
func (p *pages) write(r ref, key string, value []byte) {
	h := p.at(r)
	h.keySize, h.size = uint16(len(key)), uint32(len(value))
	slot := p.bytes(r, slots[h.class])[headerSize:]
	copy(slot, key)
	value = value[copy(slot[len(key):], value):]
	for m := h.more; len(value) > 0; m = *p.link(m) {
		n := copy(p.bytes(m+8, perPage), value)
		value = value[n:]
	}
}

// release frees an entry's memory.
func (p *pages) release(r ref) {
	if h := p.at(r); h.state == memory {
		p.releasePages(h.more)
	}
	p.freeSlot(r)
}

func (p *pages) releasePages(m ref) {
	for m != 0 {
		next := *p.link(m)
		p.put(uint32(m >> pageBits))
		m = next
	}
}

// A list is a list of entries, the next victim first.
type list struct{ first, last ref }

func (l *list) push(p *pages, r ref) {
	h := p.at(r)
	h.prev, h.next = l.last, 0
	if l.last != 0 {
		p.at(l.last).next = r
	} else {
		l.first = r
	}
	l.last = r
}

func (l *list) remove(p *pages, r ref) {
	h := p.at(r)
	if h.prev != 0 {
		p.at(h.prev).next = h.next
	} else {
		l.first = h.next
	}
	if h.next != 0 {
		p.at(h.next).prev = h.prev
	} else {
		l.last = h.prev
	}
}

// splice puts all of other at the end of l.
func (l *list) splice(p *pages, other *list) {
	switch {
	case other.first == 0:
		return
	case l.last == 0:
		*l = *other
	default:
		p.at(l.last).next = other.first
		p.at(other.first).prev = l.last
		l.last = other.last
	}
	*other = list{}
}
