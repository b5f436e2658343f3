package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lookEvery is how often it is looked whether the mount is there, and hangs how
	// long it may take to say so.
	lookEvery = 500 * time.Millisecond
	hangs     = 3 * time.Second
)

// A tree is the machine's mount.
type tree struct {
	mount string
	is    func() error // says why it is not there

	mu      sync.Mutex
	why     string        // it is not there; "": it is; guarded by mu
	changed chan struct{} // closed when why changes; guarded by mu
}

func newTree(mount string, is func() error) *tree {
	if is == nil {
		is = func() error { return mounted(mount) }
	}
	return &tree{mount: mount, is: is, why: unknown, changed: make(chan struct{})}
}

// tasks is the directory of the tree that only a mount has.
const tasks = "tasks"

// unknown is why before the first look.
const unknown = "it is not known yet whether the tree is mounted"

// mounted says why nothing is mounted at a point.
func mounted(point string) error {
	var at, above, below unix.Stat_t
	for path, st := range map[string]*unix.Stat_t{point: &at, filepath.Dir(point): &above, filepath.Join(point, tasks): &below} {
		if err := unix.Stat(path, st); err != nil {
			return err
		}
	}
	if at.Dev == above.Dev || below.Dev != at.Dev {
		return errors.New("nothing is mounted")
	}
	return nil
}

// away says why the mount is not there, "" if it is, and when that changes.
func (t *tree) away() (changed <-chan struct{}, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed, t.why
}

// await returns when the mount is there.
func (t *tree) await(ctx context.Context) error {
	for {
		changed, why := t.away()
		if why == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *tree) set(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != why {
		t.why = why
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

// look says why the mount is not there.
func (t *tree) look() string {
	if err := t.is(); err != nil {
		return fmt.Sprintf("the tree is away from %s: %v", t.mount, err)
	}
	return ""
}

// run looks at the mount until ctx ends. One that hangs may hold the goroutine that looks.
func (t *tree) run(ctx context.Context) error {
	answer := make(chan string, 1)
	for {
		go func() { answer <- t.look() }() // it ends with the mount, if not before
		hang := time.NewTimer(hangs)
	wait:
		for {
			select {
			case why := <-answer:
				t.set(why)
				break wait
			case <-hang.C:
				t.set("the tree at " + t.mount + " does not answer")
			case <-ctx.Done():
				hang.Stop()
				return nil
			}
		}
		hang.Stop()
		if pause(ctx, lookEvery) != nil {
			return nil
		}
	}
}
