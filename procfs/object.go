package procfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"dos/meta"
)

// An Object is what a whole-file object does (class D): what is written collects in
// the handle, and is stored at once when the opener closes. A writer that a signal
// killed stores nothing, also if it shares the handle with others. `>>` reads,
// appends and stores. Shells do not look at the errors of close(2), so a write that
// leaves no more than CheckMax bytes has been checked when it returns, and one that
// depends on a version (Only) has been stored. After a write that was refused nothing
// is stored any more.
type Object struct {
	Value
	Max int // bytes that it may have
}

// A Value is what is stored.
type Value interface {
	// Load returns what is stored, and its version; meta.NotExist if nothing is.
	Load(ctx context.Context) (data []byte, version uint64, err error)
	// Check says whether Store would succeed with size bytes.
	Check(ctx context.Context, size int, only *uint64) error
	// Store puts data, which it does not keep, in the place of what was there. If
	// only is set, and not the version of what is there, it is meta.Conflict; the
	// version of what does not exist is 0.
	Store(ctx context.Context, data []byte, only *uint64) (version uint64, err error)
	// Remove takes away what has the version given; meta.Conflict if it has another.
	Remove(ctx context.Context, version uint64) error
}

// CheckMax is how large an object may be, in bytes, for each write to be checked
// as if it were the last.
const CheckMax = 64 << 10

// appends bounds how often an append starts again because somebody else changed
// the value meanwhile. Each time somebody got on.
const appends = 64

// Open opens an object. With how.Create it need not exist, and with how.Exclusive
// it is made, empty, before Open returns, so that one of many gets to make it. It
// goes again if nothing is stored in it because its writer was killed or refused.
func (o Object) Open(ctx context.Context, how Open) (*ObjectHandle, error) {
	h := &ObjectHandle{object: o, atEnd: how.Append, append: how.Append && !how.Truncate, turn: newTurn()}
	if how.Create && how.Exclusive {
		version, err := o.Store(ctx, nil, new(uint64))
		if errors.Is(err, meta.Conflict) {
			return nil, meta.Exist
		}
		h.version, h.based, h.made = version, true, true
		return h, err
	}
	data, version, err := o.Load(ctx)
	switch {
	case errors.Is(err, meta.NotExist) && how.Create:
		h.emptied = true
	case err != nil:
		return nil, err
	case how.Truncate:
		h.emptied = true
	default:
		h.data, h.version, h.based = bytes.Clone(data), version, true
		h.size = len(data)
	}
	return h, nil
}

// Make opens an object that need not exist; info is what stat says of it until it
// does. It is for a Maker.
func (o Object) Make(ctx context.Context, how Open, info Info) (MadeHandle, error) {
	how.Create = true
	h, err := o.Open(ctx, how)
	if err != nil {
		return nil, err
	}
	return made{h, info}, nil
}

type made struct {
	*ObjectHandle
	info Info
}

func (m made) Stat(context.Context) (Info, error) {
	info := m.info
	info.Size = m.Size()
	return info, nil
}

// An ObjectHandle is a Flusher, a Sizer, a Truncater, a Settler and Conditional.
type ObjectHandle struct {
	object Object
	atEnd  bool // writes go there, whatever their offset

	turn turn
	// The following are owned by whose turn it is.
	data    []byte // what reading gives
	append  bool   // what is stored then is kept, and fresh put behind it
	fresh   []byte // what was appended and is not stored yet
	version uint64 // what data was made of
	based   bool   // it was made of what is stored, so that the version must still be that
	made    bool   // Open made it, and nothing was stored in it since
	dirty   bool   // there is something to store
	emptied bool   // truncation is to be stored, if nothing else is before the end
	flushed bool   // it was closed since it was written last
	spoiled error  // why nothing is stored any more: a writer was killed, or refused

	mu   sync.Mutex
	only *uint64 // what Only said; guarded by mu
	size int     // of data; guarded by mu
}

// Only makes what is stored next depend on the version of what it replaces.
func (h *ObjectHandle) Only(version uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.only = &version
}

func (h *ObjectHandle) condition() *uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.only
}

func (h *ObjectHandle) Size() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(h.size)
}

func (h *ObjectHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.turn.take(ctx); err != nil {
		return 0, err
	}
	defer h.turn.pass()
	return bytes.NewReader(h.data).ReadAt(p, off)
}

func (h *ObjectHandle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.turn.take(ctx); err != nil {
		return 0, err
	}
	defer h.turn.pass()
	if h.atEnd {
		off = int64(len(h.data))
	}
	end := off + int64(len(p))
	size := max(end, int64(len(h.data)))
	if err := h.fits(ctx, size); err != nil {
		return 0, err
	}
	if grown := end - int64(len(h.data)); grown > 0 {
		h.data = append(h.data, make([]byte, grown)...)
	}
	copy(h.data[off:], p)
	if h.append {
		h.fresh = append(h.fresh, p...)
	}
	h.changed()
	if size <= CheckMax && h.condition() != nil {
		if err := h.store(ctx); err != nil {
			return 0, h.spoil(err)
		}
	}
	return len(p), nil
}

// spoil has nothing stored any more if err says that something may not be. Whoever
// was interrupted will write it again.
func (h *ObjectHandle) spoil(err error) error {
	if !errors.Is(err, context.Canceled) {
		h.spoiled = err
	}
	return err
}

// Truncate sets the size.
func (h *ObjectHandle) Truncate(ctx context.Context, size int64) error {
	if err := h.turn.take(ctx); err != nil {
		return err
	}
	defer h.turn.pass()
	if size == 0 && len(h.data) == 0 {
		return nil // as `>` does to what is empty already
	}
	if err := h.fits(ctx, size); err != nil {
		return err
	}
	if grown := size - int64(len(h.data)); grown > 0 {
		h.data = append(h.data, make([]byte, grown)...)
	}
	h.data = h.data[:size]
	h.append, h.fresh = false, nil
	h.changed()
	return nil
}

func (h *ObjectHandle) fits(ctx context.Context, size int64) error {
	switch {
	case h.spoiled != nil:
		return h.spoiled
	case size > int64(h.object.Max):
		return h.spoil(fmt.Errorf("%d bytes, at most %d: %w", size, h.object.Max, meta.TooLarge))
	case size > CheckMax:
		return nil
	}
	if err := h.object.Check(ctx, int(size), h.depends()); err != nil {
		return h.spoil(err)
	}
	return nil
}

// depends is the version that must be there when it is stored.
func (h *ObjectHandle) depends() *uint64 {
	if only := h.condition(); only != nil {
		return only
	}
	if h.based && !h.append {
		version := h.version
		return &version
	}
	return nil
}

func (h *ObjectHandle) changed() {
	h.dirty, h.flushed = true, false
	h.mu.Lock()
	h.size = len(h.data)
	h.mu.Unlock()
}

func (h *ObjectHandle) Flush(ctx context.Context, by Closer) error {
	if err := h.turn.take(ctx); err != nil {
		return err
	}
	defer h.turn.pass()
	h.flushed = true
	if by.Killed && (by.Opener || by.Wrote) {
		h.spoiled = fmt.Errorf("a writer was killed, so nothing was stored: %w", meta.Canceled)
	}
	switch {
	case h.spoiled != nil && h.dirty:
		return h.spoiled
	case by.Opener && h.dirty:
		return h.store(ctx)
	}
	return nil
}

// Close stores what no Flush did: the last to close was not the opener, or there
// was nothing but a truncation. Without any Flush the end of the mount closes.
func (h *ObjectHandle) Close(ctx context.Context) error {
	if err := h.turn.take(ctx); err != nil {
		return err
	}
	defer h.turn.pass()
	switch {
	case !h.flushed:
		return nil
	case h.spoiled != nil && h.made:
		if err := h.object.Remove(ctx, h.version); !errors.Is(err, meta.Conflict) {
			return err
		}
		return nil
	case h.spoiled != nil || !h.dirty && !h.emptied:
		return nil
	}
	return h.store(ctx)
}

// Settle stores what there is.
func (h *ObjectHandle) Settle(ctx context.Context) error {
	if err := h.turn.take(ctx); err != nil {
		return err
	}
	defer h.turn.pass()
	if h.spoiled != nil || !h.dirty && !h.emptied {
		return nil
	}
	return h.store(ctx)
}

func (h *ObjectHandle) store(ctx context.Context) error {
	var err error
	if h.append {
		err = h.storeAppended(ctx)
	} else {
		h.version, err = h.object.Store(ctx, h.data, h.depends())
	}
	if err != nil {
		return err
	}
	h.dirty, h.emptied, h.made, h.fresh = false, false, false, nil
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.only != nil {
		version := h.version
		h.only = &version
	}
	return nil
}

func (h *ObjectHandle) storeAppended(ctx context.Context) error {
	only := h.condition()
	for range appends {
		data, version, err := h.object.Load(ctx)
		switch {
		case err != nil && !errors.Is(err, meta.NotExist):
			return err
		case len(data)+len(h.fresh) > h.object.Max:
			return fmt.Errorf("%d bytes, at most %d: %w", len(data)+len(h.fresh), h.object.Max, meta.TooLarge)
		case only != nil && *only != version:
			return fmt.Errorf("version %d, not %d: %w", version, *only, meta.Conflict)
		}
		h.version, err = h.object.Store(ctx, append(bytes.Clone(data), h.fresh...), &version)
		if !errors.Is(err, meta.Conflict) {
			return err
		}
	}
	return fmt.Errorf("others changed it %d times meanwhile: %w", appends, meta.Busy)
}
