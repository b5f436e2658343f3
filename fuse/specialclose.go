package fuse

import (
	"context"
	"slices"
	"sync"
	"time"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/procfs"
)

// A usage of a handle is what a Flusher wants to know: who opened it and who wrote.
type usage struct {
	opener uint32 // the process that opened the handle; 0 if nobody knows

	mu      sync.Mutex
	last    uint32   // the thread that wrote last; guarded by mu
	writers []uint32 // the processes that have written; guarded by mu
}

// writersMax bounds how many writers of one handle are remembered. Those that
// come later may be killed without spoiling what they wrote.
const writersMax = 64

// wrote remembers that a thread writes.
func (u *usage) wrote(id uint32) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == id {
		return
	}
	u.last = id
	if process := threadOf(id).process; len(u.writers) < writersMax && !slices.Contains(u.writers, process) {
		u.writers = append(u.writers, process)
	}
}

// closer says who a thread is that closes a descriptor.
func (u *usage) closer(id uint32) procfs.Closer {
	t := threadOf(id)
	if t.process == 0 {
		return procfs.Closer{}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return procfs.Closer{
		Known:  true,
		Opener: t.process == u.opener,
		Wrote:  slices.Contains(u.writers, t.process),
		Killed: t.ends && killed(id),
	}
}

// closeTime bounds how long closing a special file may take, so that neither a
// program that was killed nor the end of the mount is held up.
const closeTime = 30 * time.Second

// specialFlush comes at each close of a descriptor. A thread that is being killed
// has a signal pending, so the request counts as interrupted from the beginning:
// that is not looked at.
func (f *files) specialFlush(o *specialOpen, in *raw.FlushIn) raw.Status {
	flusher, ok := o.Handle.(procfs.Flusher)
	if !ok {
		return raw.OK
	}
	ctx, cancel := context.WithTimeout(f.by(&in.InHeader), closeTime)
	defer cancel()
	by := o.use.closer(in.Pid)
	if f.fence != nil && f.fence.Refuses(in.Pid) != nil {
		by.Killed = true // as it should have been
	}
	return f.status("close", flusher.Flush(ctx, by))
}

// specialRelease closes a handle. The program's close(2) returned before, so
// an error is for the log.
func (f *files) specialRelease(o *specialOpen) {
	f.special.closed(o.node, o)
	ctx, cancel := context.WithTimeout(f.ctx, closeTime)
	defer cancel()
	if err := o.Close(ctx); err != nil {
		f.status("close", err)
	}
}
