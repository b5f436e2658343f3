package fuse

import (
	"context"
	"time"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/procfs"
)

// A waiting is the context of an operation that may wait for somebody else:
// opening and reading special files, and writing those that are Blockers. It ends
// when the caller is interrupted or the mount goes, and only then: a caller that is
// killed stays in D state until it is answered. It costs nothing but itself.
//
// Whoever changes something under it lets only the waiting look at it. A change
// that was sent and is not waited for has happened or not, nobody knows, and the
// program makes it once more.
//
// All other operations get the mount's own context, which never ends. They do
// not look at interrupts, because Go programs send themselves SIGURG all the
// time and each becomes one: a file system that answered EINTR to open or write
// would break them. Package vfs bounds how long they wait.
type waiting struct {
	interrupted <-chan struct{}
	thread      uint32 // see Thread
}

func (waiting) Deadline() (time.Time, bool) { return time.Time{}, false }
func (w waiting) Done() <-chan struct{}     { return w.interrupted }

func (w waiting) Value(key any) any {
	if key == (threadKey{}) {
		return w.thread
	}
	return nil
}

func (w waiting) Err() error {
	select {
	case <-w.interrupted:
		return context.Canceled
	default:
		return nil
	}
}

// writing is the context of a write to a special file.
func (f *files) writing(n procfs.Node, cancel <-chan struct{}, in *raw.InHeader) context.Context {
	if _, waits := n.(procfs.Blocker); waits {
		return waiting{cancel, in.Pid}
	}
	return f.by(in)
}
