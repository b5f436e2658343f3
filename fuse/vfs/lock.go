package vfs

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// A lock is held across calls to the metadata service, so whoever waits for it
// can give up. It is fair: a writer is not starved by readers.
type lock struct{ sem *semaphore.Weighted }

const allReaders = 1 << 30

func newLock() lock { return lock{semaphore.NewWeighted(allReaders)} }

func (l lock) Lock(ctx context.Context) error  { return l.sem.Acquire(ctx, allReaders) }
func (l lock) Unlock()                         { l.sem.Release(allReaders) }
func (l lock) RLock(ctx context.Context) error { return l.sem.Acquire(ctx, 1) }
func (l lock) RUnlock()                        { l.sem.Release(1) }
