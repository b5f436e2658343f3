package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"dos/fuse"
	"dos/internal/boottime"
	"dos/internal/run"
	"dos/meta"
	"dos/meta/client"
)

// A fence keeps the attempts of a machine's tasks from doing anything through its mount
// when their hour has passed, for then others may have begun. As a rule they are dead then. But
// where all of the machine stood still, the mount may go on before those who kill them
// (package run), and it opens a new session, in which it would do what they ask for.
//
// A runner writes down until when its session is certainly not over; what it has
// started is dead before it writes that of another session. So who is of a runner whose hour
// has passed is of what has to die. As long as no hour has passed nobody is looked at.
//
// What was asked for before the hour, and is on its way still, happens in the mount's
// session of that time or not at all (client.Presence.Admit), and while that lasts and is not
// renewed the service does not end the runner's (package meta/node).
type fence struct {
	data string // the data directory
	last atomic.Pointer[look]
}

// A look found that no hour passes for a while.
type look struct {
	at   time.Time
	wall time.Time     // the same, by the wall clock alone
	good time.Duration // how long after at
}

// holds reports whether it is good still. It is asked at each operation, so by the clocks
// that need no system call: one of them does not go on while a machine is suspended, the other is
// set back at times, but hardly at the moment and by as much that neither shows how much time has passed.
func (l *look) holds() bool {
	if l == nil {
		return false
	}
	now := time.Now()
	wall := now.Round(0).Sub(l.wall)
	return now.Sub(l.at) < l.good && 0 <= wall && wall < l.good
}

func hourFile(dir string) string { return filepath.Join(dir, "hour") }

// fenceLook is how long the fence believes what it has read of hours. A session that begins
// then has longer to go.
const fenceLook = time.Second

// Refuses implements fuse.Fence.
func (f *fence) Refuses(thread uint32) error {
	if thread == 0 || f.last.Load().holds() {
		return nil
	}
	at := time.Now()
	now := boottime.Now()
	names, _ := filepath.Glob(hourFile(filepath.Join(runsDir(f.data), "*")))
	until := now + fenceLook
	var err error
	for _, name := range names {
		hour, ok := readHour(name, now)
		if !ok {
			continue
		}
		until = min(until, hour)
		if dir := filepath.Dir(name); hour <= now && err == nil && run.Owns(dir, runnerOf(dir), int(thread)) {
			err = errHour
		}
	}
	f.last.Store(&look{at, at.Round(0), until - now})
	return err
}

var errHour = fmt.Errorf("what a task does after its machine was cut off does not count: it may run elsewhere by now: %w", meta.Fenced)

// admits is for client.Presence.
func (f *fence) admits(ctx context.Context) error {
	if f.last.Load().holds() {
		return nil
	}
	if thread, ok := fuse.Thread(ctx); ok {
		return f.Refuses(thread)
	}
	return nil
}

// readHour reads an hour. False: the session has just ended, or is of before the machine was
// started, as one is that nobody can have now: nothing of its runner is there any more. One that
// cannot be read has passed.
func readHour(name string, now time.Duration) (hour time.Duration, ok bool) {
	for range hourTries {
		text, err := os.ReadFile(name)
		if err != nil {
			return 0, false
		}
		var again time.Duration
		if n, _ := fmt.Sscanf(string(text), hourFormat, &hour, &again); n != 2 {
			return 0, true // it is only just being made
		}
		if hour == again { // else it was just being written
			return hour, hour <= now+client.SessionTTL
		}
	}
	return 0, true
}

// hourTries is how often a file is read that is just being written.
const hourTries = 100

// runnerOf is the process that has a runner's folder, or had it last; 0 if nobody knows.
func runnerOf(dir string) (pid int) {
	lock, err := os.Open(lockFile(dir))
	if err != nil {
		return 0
	}
	defer lock.Close()
	_, _ = fmt.Sscanf(holder(lock), "process %d", &pid)
	return pid
}

// hourEvery is how often a runner looks whether its hour is another: more often than its session
// is renewed, so that the fence does not come down too early.
const hourEvery = 500 * time.Millisecond

// An hour is a runner's, as the fence reads it.
type hour struct {
	file *os.File
	left func() time.Duration // for how long the session is certainly not over
	told time.Duration
}

// beginHour writes down the hour of a session in which nothing runs yet.
func beginHour(dir string, left func() time.Duration) (*hour, error) {
	file, err := os.OpenFile(hourFile(dir), os.O_CREATE|os.O_WRONLY|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	h := &hour{file: file, left: left}
	if err = h.tell(); err == nil && left() < 2*fenceLook {
		err = errors.New("it took as long as the session lasts")
	}
	if err != nil {
		return nil, errors.Join(err, h.end())
	}
	return h, nil
}

// hourFormat has the hour twice, in nanoseconds, so that it need not be written to another file,
// for which a full disk has no room.
const hourFormat = "%020d %020d\n"

func (h *hour) tell() error {
	now := boottime.Now() + h.left()
	if now-h.told < hourEvery/4 {
		return nil
	}
	if _, err := h.file.WriteAt(fmt.Appendf(nil, hourFormat, now, now), 0); err != nil {
		return err
	}
	h.told = now
	return nil
}

// run writes down when the session was renewed, until ctx ends.
func (h *hour) run(ctx context.Context) {
	for sleep(ctx, hourEvery) == nil {
		if err := h.tell(); err != nil {
			slog.Error("runner: the machine's mount will refuse what the tasks want", "err", err)
		}
	}
}

// end says that nothing of the session runs any more.
func (h *hour) end() error {
	return errors.Join(h.file.Close(), os.Remove(h.file.Name()))
}
