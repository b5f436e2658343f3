// Package replica runs a state.Machine as one member of a Raft group, on
// Badger, with raft-wal as the log: it owns the log, applying, snapshots, the
// read barrier and the notice that the state has moved. hashicorp/raft, raft-wal
// and Badger are known here and nowhere else. It does not know what a command
// means, and it speaks to other members only through a Stream that it is given.
//
// # What is durable
//
// The log is the only write-ahead log. A proposal is answered once its entry is
// committed, which means synced in the log of a majority, and applied. Badger is
// never synced by us: what its memtables hold is lost with the process and is
// applied again from the log. For that to be exact,
//
//   - the timestamp of everything in Badger is the index of the entry (of the
//     last one of the batch) that wrote it, and each batch also writes the applied
//     index, in the same transaction;
//   - Badger's own logs of its memtables (*.mem) are deleted before every open:
//     they are not synced when a memtable is rotated and could bring back later
//     writes without earlier ones. Without them the tables hold an exact prefix;
//   - a snapshot, which is what allows the log to be cut, is recorded only at an
//     index ≤ F, the durable index: the largest version that any table holds.
//
// A snapshot is a record, not data: the tables are the data. It stands in
// DIR/current together with the name of the folder that holds the state, so that
// a follower which gets the whole state from the leader swaps to it and records
// the snapshot in one atomic step.
//
// # What is checked
//
// Entries carry seals (seal.go), tables their checksums, and current, acked and
// snapshots one each: damage is found at Open, or when it is read. Raft's term and
// vote are in raft-wal's Bolt file, which has checksums on its two meta pages
// alone. A bit that flips there makes the file unreadable, which is Lost, or
// changes a number unseen: a member might then vote twice in one term, which
// does harm only if two candidates get a majority by it in the very same one. The
// term is held to be at least that of the snapshot.
//
// # The directory
//
//	DIR/lock      held while a process uses the directory
//	DIR/current   which state is current, and the snapshot (current.go)
//	DIR/acked     the highest index that was acknowledged to Raft (acked.go)
//	DIR/raft/     the log: raft-wal's segments, its index, term and vote
//	DIR/state.N/  Badger, generation N
//	DIR/incoming  a snapshot from the leader, while it arrives
//	DIR/reserve   room on the disk that is given up when it is full (space.go)
package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"dos/meta"
)

// A Replica is one running member. Its methods may be called concurrently.
type Replica struct {
	cfg  Config
	lock *os.File
	raft *raft.Raft
	logs *logs
	fsm  *fsm
	snap *snapshots

	space *space // the disk's

	trans io.Closer
	peers *peers // nil in a group of one that can have no other

	// Proposals (propose.go).
	queue    chan *proposal
	room     *semaphore.Weighted // bytes of waiting proposals
	lastTime atomic.Int64        // of a command: time never runs backwards in the log
	gate     gate

	// Reads (view.go).
	verify verifier
	term   atomic.Uint64 // the term in which this leader knows that it has applied all of earlier ones
	since  atomic.Uint64 // the index of the entry that showed it
	ready  sync.Mutex    // held while that is found out

	quit    chan struct{} // closed by Close
	ended   chan struct{} // closed when Raft has ended
	dead    chan struct{} // closed by fatal
	failure atomic.Pointer[error]
	fail    sync.Once
	tasks   tasks
	close   sync.Once
	closed  error
}

// Open starts the member. A group of one is ready when Open returns: it leads,
// and has applied all that its log holds.
func Open(cfg Config) (*Replica, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	r := &Replica{
		cfg:   cfg,
		queue: make(chan *proposal, queueLength),
		room:  semaphore.NewWeighted(queueBytes),
		quit:  make(chan struct{}),
		ended: make(chan struct{}),
		dead:  make(chan struct{}),
	}
	r.gate.open()
	err := r.openFiles()
	if err == nil {
		err = r.startRaft()
	}
	if err != nil {
		return nil, errors.Join(err, r.release())
	}
	for _, task := range []func(){r.propose, r.watchLog, r.tend, r.cutLog} {
		r.tasks.start(task)
	}
	if cfg.Stream != nil {
		r.tasks.start(r.keepAddress)
	} else {
		if err := r.soleVoter(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		if err := r.awaitLead(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// openFiles opens the parts of the directory, from the outside in, and checks
// that they belong together.
func (r *Replica) openFiles() error {
	dir := r.cfg.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var err error
	if r.lock, err = lockDir(dir); err != nil {
		return err
	}
	cur, err := loadCurrent(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if cur, err = r.firstCurrent(); err != nil {
			return err
		}
	case err != nil:
		return err
	case cur.ID != r.cfg.ID:
		return fmt.Errorf("replica: %s belongs to member %s, not to %s: %w", dir, cur.ID, r.cfg.ID, meta.Invalid)
	}
	if err := removeOthers(dir, cur.Generation); err != nil {
		return err
	}
	// It gives room back, and would be done anyway.
	if err := removeMemtables(stateDir(dir, cur.Generation)); err != nil {
		return err
	}
	if r.space, err = openSpace(&r.cfg); err != nil {
		return err
	}
	if r.logs, err = openLogs(dir, &r.cfg); err != nil {
		return r.refuse(err)
	}
	r.logs.fatal = r.fatal
	st, err := openStore(stateDir(dir, cur.Generation), cur.Generation, &r.cfg)
	if err != nil {
		return err
	}
	r.fsm = newFSM(r, st)
	r.advance(st.time())
	r.snap = &snapshots{dir: dir, fsm: r.fsm, current: cur, quit: r.quit, log: r.cfg.Log}
	r.fsm.snap = r.snap
	return r.check()
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // it holds nothing
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("replica: %s is in use by another process: %w", dir, meta.Busy)
		}
		return nil, fmt.Errorf("replica: locking %s: %w", dir, err)
	}
	return f, nil
}

func (r *Replica) startRaft() error {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.cfg.ID)
	// A leader without a majority goes on for a beat: it answers nothing meanwhile,
	// since reads ask and writes wait, and a moment's silence costs no election.
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = r.cfg.Beat, r.cfg.Beat, r.cfg.Beat
	c.CommitTimeout = min(c.CommitTimeout, r.cfg.Beat/2)
	c.MaxAppendEntries = entriesAtOnce
	c.BatchApplyCh = true
	c.TrailingLogs = r.cfg.limits.trailing
	c.ShutdownOnRemove = false        // it is for whoever runs this member to stop it, see Removed
	c.NoSnapshotRestoreOnStart = true // the state is there already
	// Snapshots are taken when we say (cutLog).
	c.SnapshotInterval, c.SnapshotThreshold = 24*time.Hour, 1<<62
	c.Logger = raftLogger(r.cfg.Log, r.cfg.Stream != nil, r.quit)
	c.NoLegacyTelemetry = true

	addr, trans := r.transport(c)
	if r.cfg.Bootstrap && r.fresh() {
		alone := raft.Configuration{Servers: []raft.Server{{ID: c.LocalID, Address: addr}}}
		if err := raft.BootstrapCluster(c, r.logs, r.logs.stable, r.snap, trans, alone); err != nil {
			return fmt.Errorf("replica: making a new group: %w", err)
		}
	}
	r.logs.needed = r.fsm.needs()
	node, err := raft.NewRaft(c, r.fsm, r.logs, r.logs.stable, r.snap, trans)
	if err != nil {
		return fmt.Errorf("replica: starting: %w", err)
	}
	r.raft = node
	return nil
}

// entriesAtOnce is how many entries go to a follower, or to Apply, at once. An
// entry is a batch already, of up to maxEntry bytes.
const entriesAtOnce = 64

func (r *Replica) transport(c *raft.Config) (raft.ServerAddress, raft.Transport) {
	if r.cfg.Stream == nil {
		addr, trans := raft.NewInmemTransport(raft.ServerAddress(r.cfg.Address))
		r.trans = trans
		return addr, trans
	}
	r.peers = &peers{last: r.logs.last, NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                  stream{r.cfg.Stream, r.cfg.ID, r.cfg.Address},
		MaxPool:                 3,
		MaxRPCsInFlight:         2,
		Timeout:                 10 * time.Second,
		Logger:                  c.Logger,
		MsgpackUseNewTimeFormat: true,
	})}
	r.trans = r.peers
	return raft.ServerAddress(r.cfg.Address), r.peers
}

// fresh reports whether nothing was ever written to the group.
func (r *Replica) fresh() bool {
	return r.logs.last() == 0 && r.snap.record().Index == 0
}

// awaitLead waits until this only member leads and has applied its log. It has
// no rival, so an election takes a moment; applying takes as long as it takes.
func (r *Replica) awaitLead() error {
	ctx, cancel := context.WithTimeout(context.Background(), leadWait)
	defer cancel()
	for tick := time.NewTicker(2 * time.Millisecond); ; {
		if r.raft.State() == raft.Leader {
			tick.Stop()
			return r.caughtUp(context.Background())
		}
		select {
		case <-tick.C:
		case <-r.dead:
			tick.Stop()
			return r.gone()
		case <-ctx.Done():
			tick.Stop()
			return fmt.Errorf("replica: %s: a group without this member as its only voter does not start alone: %w", r.cfg.Dir, meta.Unavailable)
		}
	}
}

// leadWait is a hundred elections long.
const leadWait = 10 * time.Second

// fatal ends what the replica does, once, and tells who runs it.
func (r *Replica) fatal(err error) {
	r.fail.Do(func() {
		err = fmt.Errorf("replica: %w", err)
		r.failure.Store(&err)
		close(r.dead)
		r.gate.shut()
		r.cfg.Fatal(err)
	})
}

// gone is the error of everything once the replica is dead or closed.
func (r *Replica) gone() error {
	if err := r.failure.Load(); err != nil {
		return fmt.Errorf("%w: %w", meta.Unavailable, *err)
	}
	return fmt.Errorf("replica: stopped: %w", meta.Unavailable)
}

// Close stops the member, and hands the lead over first if it has it. Proposals under way are answered with Unavailable;
// Views must have returned or return soon. The state is flushed, so that the
// next Open applies nothing again.
func (r *Replica) Close() error {
	r.close.Do(func() {
		r.resign()
		close(r.quit)
		r.gate.shut()
		err := r.raft.Shutdown().Error()
		close(r.ended)
		r.tasks.wait()
		r.closed = errors.Join(err, r.release())
	})
	return r.closed
}

// release closes the files, in the order that leaves the most on disk.
func (r *Replica) release() error {
	var errs []error
	keep := func(err error) { errs = append(errs, err) }
	if r.trans != nil {
		keep(r.trans.Close())
	}
	if r.logs != nil {
		keep(r.logs.recordAcked())
	}
	if r.fsm != nil {
		keep(r.fsm.stop())
	}
	if r.logs != nil {
		keep(r.logs.close())
	}
	if r.lock != nil {
		keep(r.lock.Close())
	}
	return errors.Join(errs...)
}

// tasks are the goroutines of a replica. None starts once Close waits for them.
type tasks struct {
	mu      sync.Mutex
	stopped bool
	group   sync.WaitGroup
}

func (t *tasks) start(task func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.group.Go(task)
	return true
}

func (t *tasks) wait() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.group.Wait()
}
