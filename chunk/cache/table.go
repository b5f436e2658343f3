package cache

import (
	"math/bits"
	"unsafe"
)

// slotsPerPage is how many chains' heads a page of the table has.
const slotsPerPage = pageSize / 8

// A table finds entries by hash: linear hashing, which grows and shrinks by one chain
// at a time, so that no call pays for all.
type table struct {
	p     *pages
	heads []uint32 // pages of heads
	n     uint64   // chains
	low   uint64   // the least n since Retain set it
	items uint64
}

func (t *table) init(p *pages) error {
	t.p = p
	if err := t.addPage(); err != nil {
		return err
	}
	t.n = slotsPerPage
	return nil
}

func (t *table) addPage() error {
	i, err := t.p.take()
	if err != nil {
		return err
	}
	clear(t.p.bytes(ref(i)<<pageBits, pageSize))
	t.heads = append(t.heads, i)
	return nil
}

func (t *table) head(slot uint64) *ref {
	r := ref(t.heads[slot/slotsPerPage])<<pageBits + ref(slot%slotsPerPage*8)
	return (*ref)(unsafe.Pointer(t.p.at(r)))
}

func (t *table) slot(hash uint64) uint64 {
	mask := uint64(1)<<bits.Len64(t.n-1) - 1
	if i := hash & mask; i < t.n {
		return i
	}
	return hash & (mask >> 1)
}

// find returns the entry of a life under a key; 0: none.
func (t *table) find(hash uint64, life uint32, key string) ref {
	for r := *t.head(t.slot(hash)); r != 0; {
		h := t.p.at(r)
		if h.hash == hash && h.life == life && string(t.p.key(r)) == key {
			return r
		}
		r = h.chain
	}
	return 0
}

// add adds an entry. The table grows if it may: withPage says whether it may take one.
func (t *table) add(r ref, withPage bool) {
	h := t.p.at(r)
	head := t.head(t.slot(h.hash))
	h.chain, *head = *head, r
	t.items++
	if t.items > t.n {
		t.grow(withPage)
	}
}

func (t *table) remove(r ref) {
	h := t.p.at(r)
	at := t.head(t.slot(h.hash))
	for *at != r {
		at = &t.p.at(*at).chain
	}
	*at = h.chain
	t.items--
	// Four at a time, so that it is small when all is gone.
	for i := 0; i < 4 && t.items < t.n/4 && t.n > slotsPerPage; i++ {
		t.shrink()
	}
}

func (t *table) grow(withPage bool) {
	if t.n == uint64(len(t.heads))*slotsPerPage && (!withPage || t.addPage() != nil) {
		return // longer chains, that is all
	}
	buddy := t.n - 1<<(bits.Len64(t.n)-1)
	t.n++
	r := *t.head(buddy)
	*t.head(buddy), *t.head(t.n - 1) = 0, 0
	for r != 0 {
		h := t.p.at(r)
		next := h.chain
		head := t.head(t.slot(h.hash))
		h.chain, *head = *head, r
		r = next
	}
}

func (t *table) shrink() {
	t.n--
	t.low = min(t.low, t.n)
	buddy := t.n - 1<<(bits.Len64(t.n)-1)
	at := t.head(buddy)
	for *at != 0 {
		at = &t.p.at(*at).chain
	}
	*at = *t.head(t.n)
	if t.n%slotsPerPage == 0 {
		last := len(t.heads) - 1
		t.p.put(t.heads[last])
		t.heads = t.heads[:last]
	}
}
