package replica

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dos/meta"
)

// watchLog shuts the gate while a write to the log takes too long, and ends the
// member when it takes far too long: a leader whose disk hangs would go on
// sending heartbeats and keep the others from electing one that works. It does
// no I/O itself. Time in which this process itself stood still is no fault of the
// disk's, and does not end it.
func (r *Replica) watchLog() {
	tick := time.NewTicker(r.cfg.limits.slow / 20)
	defer tick.Stop()
	slow := false
	var seen watched
	for {
		select {
		case <-tick.C:
		case <-r.quit:
			return
		case <-r.dead:
			return
		}
		began, took := r.logs.writing()
		switch hung := seen.look(time.Now(), began, took); {
		case hung > r.cfg.limits.hung:
			r.fatal(fmt.Errorf("a write to the log in %s has taken %v", r.cfg.Dir, took.Round(time.Millisecond)))
			return
		case took > r.cfg.limits.slow && !slow:
			slow = true
			r.cfg.Log.Warn("replica: the log hangs; nothing is answered", "took", took)
			r.gate.shut()
		case took == 0 && slow:
			slow = false
			r.cfg.Log.Warn("replica: the log answers again")
			r.reopen()
		}
	}
}

// standstill is how long after the one before a look at the log is so late that
// the process has stood still: it was stopped, or the machine was.
const standstill = time.Second

// watched is a write to the log as somebody sees who looks all the time.
type watched struct {
	at    time.Time     // of the last look
	began int64         // which write it was, or 0
	stood time.Duration // how much of it the process stood still
}

// look returns for how long the write that began then, and has taken so long by the
// clock, kept a process waiting that was running.
func (w *watched) look(now time.Time, began int64, took time.Duration) time.Duration {
	if began != w.began {
		w.stood = 0
	}
	if late := now.Sub(w.at); !w.at.IsZero() && late > standstill {
		w.stood = min(w.stood+late, took) // it may have begun just before, unseen
	}
	w.at, w.began = now, began
	return took - w.stood
}

// reopen opens the gate, unless the replica is stopping, which shuts it for good.
func (r *Replica) reopen() {
	r.gate.open()
	select {
	case <-r.quit:
		r.gate.shut()
	case <-r.dead:
		r.gate.shut()
	default:
	}
}

const (
	// tendEvery is how often the replica tends to itself.
	tendEvery = time.Second
	// lookEvery is how often it looks at the disk when there is nothing to
	// propose: Badger writes by itself at times, and must find the reserve given
	// up when others filled the disk. It looks more often when less than
	// nearFree is left, which a fast disk fills in two seconds.
	lookEvery, lookOften = 100 * time.Millisecond, 10 * time.Millisecond
	nearFree             = 4 << 30
)

// tend does what must be done all the time: record what was acknowledged, drop
// old versions, look at the disk.
func (r *Replica) tend() {
	next := time.NewTimer(0)
	defer next.Stop()
	tended := time.Now()
	for {
		select {
		case <-next.C:
		case <-r.quit:
			return
		case <-r.dead:
			return
		}
		near, err := r.lookAtDisk()
		if err != nil {
			r.fatal(err)
			return
		}
		if near {
			next.Reset(lookOften)
		} else {
			next.Reset(lookEvery)
		}
		if time.Since(tended) < tendEvery {
			continue
		}
		tended = time.Now()
		if err := r.logs.recordAcked(); err != nil {
			r.fatal(err)
			return
		}
		r.fsm.current().discard()
	}
}

// lookAtDisk finds out whether little space is left, and whether the directory is
// still there: if it was deleted, its open files go on working, and what they
// took would be gone at the next start.
func (r *Replica) lookAtDisk() (near bool, err error) {
	path := filepath.Join(r.cfg.Dir, "current")
	switch err := unix.Access(path, unix.F_OK); {
	case errors.Is(err, unix.ENOENT):
		return false, fmt.Errorf("%s is gone: the directory was deleted: %w", path, meta.Lost)
	case err != nil:
		r.cfg.Log.Warn("replica: looking for the directory", "err", err)
	}
	disk, err := r.space.look()
	r.space.report(disk, err)
	if err != nil {
		return false, nil
	}
	r.space.keep()
	return disk.writable < nearFree, nil
}

// cutLog takes a snapshot whenever the log has grown by enough.
func (r *Replica) cutLog() {
	tick := time.NewTicker(r.cfg.limits.cut)
	defer tick.Stop()
	// What the log held at the start is not known in bytes. It is less than
	// snapshotBytes and what went on during one snapshot.
	written := int64(0)
	var notBefore time.Time
	for {
		select {
		case <-tick.C:
		case <-r.quit:
			return
		case <-r.dead:
			return
		}
		// A snapshot fills a memtable and writes it out.
		if time.Now().Before(notBefore) || r.space.level() == full {
			continue
		}
		now := r.logs.written.Load()
		beyond := r.logs.last() - min(r.logs.last(), r.snap.record().Index)
		if now-written < r.cfg.limits.snapshotBytes && beyond < r.cfg.limits.snapshotEntries {
			continue
		}
		// Raft itself says why if there is none. It is tried again, not at once.
		if r.raft.Snapshot().Error() == nil {
			written = now
		} else {
			notBefore = time.Now().Add(25 * r.cfg.limits.cut)
		}
	}
}
