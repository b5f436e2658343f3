package fuse

import (
	"context"
	"time"
)

// A waiting is the context of an operation that may wait for somebody else:
// opening, reading and writing special files. It ends when the caller is
// interrupted or the mount goes, and only then: a caller that is killed stays
// in D state until it is answered. It costs nothing but itself.
//
// Plain file operations get the mount's own context, which never ends. They do
// not look at interrupts, because Go programs send themselves SIGURG all the
// time and each becomes one: a file system that answered EINTR to open or write
// would break them. Package vfs bounds how long they wait.
type waiting struct {
	interrupted <-chan struct{}
}

func (waiting) Deadline() (time.Time, bool) { return time.Time{}, false }
func (w waiting) Done() <-chan struct{}     { return w.interrupted }
func (waiting) Value(any) any               { return nil }

func (w waiting) Err() error {
	select {
	case <-w.interrupted:
		return context.Canceled
	default:
		return nil
	}
}
