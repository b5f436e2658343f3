package cache

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	pageBits = 16
	pageSize = 1 << pageBits
	// arenaBits is the address space that is asked of the kernel at a time: few
	// mappings, of which it allows a process 65,530, even for a terabyte. It costs
	// nothing until it is written to.
	arenaBits = 26
	arenaSize = 1 << arenaBits
	// freeMax is how many free pages are kept (4 MiB: the largest value), so that
	// values coming and going do not pay the kernel for each.
	freeMax = 64
	// slotMin is the smallest slot in bytes.
	slotMin = 96
)

// A ref is the place of something in the pages: the page's index, then 16 bits of
// offset. Page 0 is not used, so zero is none.
type ref uint64

// slots are the sizes of slots in bytes, ascending: as many as fit into a page, each
// about an eighth larger than the last, and multiples of 8.
var slots = func() []int {
	var sizes []int
	for n := 1; pageSize/n >= slotMin; n = max(n+1, n*9/8) {
		sizes = append(sizes, pageSize/n&^7)
	}
	slices.Reverse(sizes)
	return sizes
}()

// A page is cut into slots of a class, or is used as a whole.
type page struct {
	prev, next uint32 // neighbours in the class's list of pages with room
	free       uint16 // the first slot that was freed, plus one
	used       uint16 // slots in use
	cut        uint16 // slots ever in use; the others are behind them
	class      uint8
	listed     bool
}

// pages is the memory: pages out of large mappings. It keeps no limit.
type pages struct {
	arenas [][]byte
	page   []page   // of each page ever used
	room   []uint32 // for each class the first page with room; 0: none
	free   []uint32 // free, and still memory
	gone   []uint32 // free, and given back to the kernel
	used   int      // pages in use
}

// resident is the bytes of memory in pages.
func (p *pages) resident() int64 { return int64(p.used+len(p.free)) << pageBits }

func (p *pages) bytes(r ref, n int) []byte {
	off := int(r & (arenaSize - 1))
	return p.arenas[r>>arenaBits][off : off+n : off+n]
}

// at returns the header at r. The memory is not Go's, and the header has no pointers.
func (p *pages) at(r ref) *header {
	return (*header)(unsafe.Pointer(&p.arenas[r>>arenaBits][r&(arenaSize-1)]))
}

// take returns a page.
func (p *pages) take() (uint32, error) {
	var i uint32
	switch {
	case len(p.free) > 0:
		i = p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
	case len(p.gone) > 0:
		i = p.gone[len(p.gone)-1]
		p.gone = p.gone[:len(p.gone)-1]
	default:
		i = uint32(max(1, len(p.page)))
		if int(i)>>(arenaBits-pageBits) >= len(p.arenas) {
			a, err := unix.Mmap(-1, 0, arenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
			if err != nil {
				return 0, fmt.Errorf("cache: memory: %w", err)
			}
			// Huge pages would be more memory than was written to. A kernel without
			// them refuses, and is right.
			_ = unix.Madvise(a, unix.MADV_NOHUGEPAGE)
			p.arenas = append(p.arenas, a)
		}
		for len(p.page) <= int(i) {
			p.page = append(p.page, page{})
		}
	}
	p.page[i] = page{}
	p.used++
	return i, nil
}

// put makes a page free.
func (p *pages) put(i uint32) {
	p.used--
	p.free = append(p.free, i)
	p.trim(freeMax)
}

// trim gives free pages but for n back to the kernel.
func (p *pages) trim(n int) {
	for len(p.free) > n {
		i := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		if err := unix.Madvise(p.bytes(ref(i)<<pageBits, pageSize), unix.MADV_DONTNEED); err != nil {
			panic(fmt.Sprintf("cache: giving page %d back: %v", i, err))
		}
		p.gone = append(p.gone, i)
	}
}

// slot returns a slot, if there is one without another page.
func (p *pages) slot(class uint8) (ref, bool) {
	if p.room == nil {
		p.room = make([]uint32, len(slots))
	}
	i := p.room[class]
	if i == 0 {
		return 0, false
	}
	pg := &p.page[i]
	var n uint16
	if pg.free != 0 {
		n = pg.free - 1
		pg.free = uint16(p.at(p.nth(i, n)).next)
	} else {
		n = pg.cut
		pg.cut++
	}
	pg.used++
	if int(pg.used) == pageSize/slots[class] {
		p.unlist(i)
	}
	return p.nth(i, n), true
}

// cutUp makes a page that was taken one of slots.
func (p *pages) cutUp(i uint32, class uint8) {
	p.page[i].class = class
	p.list(i)
}

// nth is the place of a page's slot, by index.
func (p *pages) nth(i uint32, n uint16) ref {
	return ref(i)<<pageBits + ref(int(n)*slots[p.page[i].class])
}

// freeSlot frees a slot, and its page if it was the last one.
func (p *pages) freeSlot(r ref) {
	i := uint32(r >> pageBits)
	pg := &p.page[i]
	h := p.at(r)
	h.state = free
	h.next = ref(pg.free)
	pg.free = uint16(int(r&(pageSize-1))/slots[pg.class]) + 1
	pg.used--
	if pg.used == 0 {
		p.unlist(i)
		p.put(i)
		return
	}
	p.list(i)
}

func (p *pages) list(i uint32) {
	pg := &p.page[i]
	if pg.listed {
		return
	}
	if p.room == nil {
		p.room = make([]uint32, len(slots))
	}
	first := p.room[pg.class]
	pg.listed, pg.prev, pg.next = true, 0, first
	if first != 0 {
		p.page[first].prev = i
	}
	p.room[pg.class] = i
}

func (p *pages) unlist(i uint32) {
	pg := &p.page[i]
	if !pg.listed {
		return
	}
	if pg.prev != 0 {
		p.page[pg.prev].next = pg.next
	} else {
		p.room[pg.class] = pg.next
	}
	if pg.next != 0 {
		p.page[pg.next].prev = pg.prev
	}
	pg.listed = false
}

func (p *pages) close() error {
	for _, a := range p.arenas {
		if err := unix.Munmap(a); err != nil {
			return fmt.Errorf("cache: memory: %w", err)
		}
	}
	*p = pages{}
	return nil
}
