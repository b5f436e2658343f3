package fuse

import (
	"context"

	raw "github.com/hanwen/go-fuse/v2/fuse"
)

// A Fence keeps some of the programs of this machine from changing anything: those that
// were to be dead by now.
type Fence interface {
	// Refuses says why a thread may not change anything; nil: it may. The number is
	// what the kernel names it by (process.go).
	Refuses(thread uint32) error
}

// A threadContext is the context of what a thread asked for: of what waits, it is asked once
// more who it is when it goes on (Thread).
type threadContext struct {
	context.Context
	thread uint32
}

type threadKey struct{}

func (c threadContext) Value(key any) any {
	if key == (threadKey{}) {
		return c.thread
	}
	return c.Context.Value(key)
}

// Thread is the thread that an operation is done for; false if it is for nobody in particular.
func Thread(ctx context.Context) (thread uint32, ok bool) {
	thread, ok = ctx.Value(threadKey{}).(uint32)
	return thread, ok && thread != 0
}

// by is the context of a plain operation that a thread asked for.
func (f *files) by(in *raw.InHeader) context.Context {
	if f.fence == nil {
		return f.ctx
	}
	return threadContext{f.ctx, in.Pid}
}

// fenced answers the kernel's requests, but what may change something not to those whom
// a Fence refuses. What is only looked at it lets pass, and so it does what is asked for
// by nobody in particular: giving up what is closed, and writing the pages of maps.
type fenced struct{ *files }

func (f fenced) refuses(op string, in *raw.InHeader) raw.Status {
	return f.status(op, f.fence.Refuses(in.Pid))
}

func (f fenced) SetAttr(cancel <-chan struct{}, in *raw.SetAttrIn, out *raw.AttrOut) raw.Status {
	if s := f.refuses("setattr", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.SetAttr(cancel, in, out)
}

func (f fenced) Mknod(cancel <-chan struct{}, in *raw.MknodIn, name string, out *raw.EntryOut) raw.Status {
	if s := f.refuses("mknod", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.Mknod(cancel, in, name, out)
}

func (f fenced) Mkdir(cancel <-chan struct{}, in *raw.MkdirIn, name string, out *raw.EntryOut) raw.Status {
	if s := f.refuses("mkdir", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.Mkdir(cancel, in, name, out)
}

func (f fenced) Symlink(cancel <-chan struct{}, in *raw.InHeader, target, name string, out *raw.EntryOut) raw.Status {
	if s := f.refuses("symlink", in); s != raw.OK {
		return s
	}
	return f.files.Symlink(cancel, in, target, name, out)
}

func (f fenced) Link(cancel <-chan struct{}, in *raw.LinkIn, name string, out *raw.EntryOut) raw.Status {
	if s := f.refuses("link", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.Link(cancel, in, name, out)
}

func (f fenced) Unlink(cancel <-chan struct{}, in *raw.InHeader, name string) raw.Status {
	if s := f.refuses("unlink", in); s != raw.OK {
		return s
	}
	return f.files.Unlink(cancel, in, name)
}

func (f fenced) Rmdir(cancel <-chan struct{}, in *raw.InHeader, name string) raw.Status {
	if s := f.refuses("rmdir", in); s != raw.OK {
		return s
	}
	return f.files.Rmdir(cancel, in, name)
}

func (f fenced) Rename(cancel <-chan struct{}, in *raw.RenameIn, name, newName string) raw.Status {
	if s := f.refuses("rename", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.Rename(cancel, in, name, newName)
}

func (f fenced) SetXAttr(cancel <-chan struct{}, in *raw.SetXAttrIn, name string, data []byte) raw.Status {
	if s := f.refuses("setxattr", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.SetXAttr(cancel, in, name, data)
}

func (f fenced) RemoveXAttr(cancel <-chan struct{}, in *raw.InHeader, name string) raw.Status {
	if s := f.refuses("removexattr", in); s != raw.OK {
		return s
	}
	return f.files.RemoveXAttr(cancel, in, name)
}

func (f fenced) Create(cancel <-chan struct{}, in *raw.CreateIn, name string, out *raw.CreateOut) raw.Status {
	if s := f.refuses("create", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.Create(cancel, in, name, out)
}

// Open may take something, or truncate.
func (f fenced) Open(cancel <-chan struct{}, in *raw.OpenIn, out *raw.OpenOut) raw.Status {
	if s := f.refuses("open", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.Open(cancel, in, out)
}

// Read may take something too.
func (f fenced) Read(cancel <-chan struct{}, in *raw.ReadIn, buf []byte) (raw.ReadResult, raw.Status) {
	if s := f.refuses("read", &in.InHeader); s != raw.OK {
		return nil, s
	}
	return f.files.Read(cancel, in, buf)
}

func (f fenced) Write(cancel <-chan struct{}, in *raw.WriteIn, data []byte) (uint32, raw.Status) {
	if s := f.refuses("write", &in.InHeader); s != raw.OK {
		return 0, s
	}
	return f.files.Write(cancel, in, data)
}

func (f fenced) Fallocate(cancel <-chan struct{}, in *raw.FallocateIn) raw.Status {
	if s := f.refuses("fallocate", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.Fallocate(cancel, in)
}

func (f fenced) SetLk(cancel <-chan struct{}, in *raw.LkIn) raw.Status {
	if s := f.refuses("lock", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.SetLk(cancel, in)
}

func (f fenced) SetLkw(cancel <-chan struct{}, in *raw.LkIn) raw.Status {
	if s := f.refuses("lock", &in.InHeader); s != raw.OK {
		return s
	}
	return f.files.SetLkw(cancel, in)
}
