package node

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"dos/chunk"
	"dos/internal/admin"
	"dos/meta"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// measured is what was found out about a store's disk last. It is asked for by a
// goroutine of its own: a disk that hangs must not keep the machine from
// answering how it is.
type measured struct {
	chunk.Usage
	device uint64 // the number of the file system it lies on; 0: not known
}

// measureEvery is how often the disks are asked.
const measureEvery = time.Second

// measure asks a store's disk how full it is, again and again until ctx ends.
func (s *stores) measure(ctx context.Context, st *store) error {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		st.look(ctx)
		select {
		case <-tick.C:
		case <-news:
		case <-ctx.Done():
			return nil
		}
	}
}

// look asks the disk now.
func (st *store) look(ctx context.Context) {
	u, err := st.node.Usage(ctx)
	if err != nil {
		return // it is lost, which its state says
	}
	dev := device(st.member.Path)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.measured = measured{u, dev}
}

// last is what the disk said last.
func (st *store) last() measured {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.measured
}

// capacity is what the disk holds in GiB, to two digits: what a store may differ
// by from one start to the next without any rows to move.
func (st *store) capacity() uint32 {
	st.look(context.Background())
	gib := uint32(st.last().Capacity >> 30)
	step := uint32(1)
	for gib/step >= 100 {
		step *= 10
	}
	return gib / step * step
}

// disk names the file system that a store lies on.
func (s *stores) disk(id chunk.StoreID) string {
	if st := s.find(id); st != nil {
		if dev := st.last().device; dev != 0 {
			return fmt.Sprintf("device %d", dev)
		}
	}
	return fmt.Sprintf("store %d", id)
}

// status describes the stores for people.
func (s *stores) status() []cluster.Store {
	list := make([]cluster.Store, 0, len(s.list))
	for _, st := range s.list {
		now := st.node.State()
		c := cluster.Store{ID: uint32(st.member.ID), Node: s.node, Path: st.member.Path, State: cluster.Up}
		switch {
		case !now.Up:
			c.State = cluster.Lost
		case st.isRebuilding():
			c.State = cluster.Rebuilding
		}
		if now.Why != nil {
			c.Error = now.Why.Error()
			if unmounted, ok := errors.AsType[*unmountedError](now.Why); ok {
				c.Unmounted = unmounted.point
			}
		}
		if now.Up {
			u := st.last().Usage
			c.Capacity, c.Free, c.Used, c.Shards = u.Capacity, u.Free, u.Used, u.Shards
		}
		list = append(list, c)
	}
	return list
}

// scrubbed adds up what scrubbing does: the shards read in the rounds that are
// under way or ended last, what was damaged since the start, and when every
// store had been read as a whole.
func (s *stores) scrubbed() (records, corrupt int64, oldest time.Time) {
	for i, st := range s.list {
		found := st.node.Scrubbed()
		records += found.Round.Records
		corrupt += found.Corrupt
		if i == 0 || found.Round.Finished.Before(oldest) {
			oldest = found.Round.Finished
		}
	}
	return records, corrupt, oldest
}

// disks describes the stores as a machine shows them.
func (s *stores) disks() []nodes.Disk {
	var list []nodes.Disk
	for i, st := range s.status() {
		found := s.list[i].node.Scrubbed()
		d := nodes.Disk{ID: st.ID, State: st.State, Path: st.Path, Device: s.list[i].last().device,
			Capacity: st.Capacity, Free: st.Free, Used: st.Used, Shards: st.Shards, Error: st.Error, Unmounted: st.Unmounted,
			Scrubbed: found.Round.Records, Bad: found.Corrupt}
		if !found.Round.Finished.IsZero() {
			d.Finished = meta.At(found.Round.Finished)
		}
		list = append(list, d)
	}
	return list
}

// device is the number of the file system that a path lies on; 0 if nobody can say.
func device(path string) uint64 {
	var stat syscall.Stat_t
	if syscall.Stat(path, &stat) != nil {
		return 0
	}
	return stat.Dev
}

// scrub reads all stores, one after another: they may share a disk. It returns
// how many shards were bad.
func (s *stores) scrub(ctx context.Context, to admin.Report) (int, error) {
	var all, before int64
	for _, st := range s.list {
		all += st.last().Shards
	}
	problems := 0
	for _, st := range s.list {
		stop := every(tellEvery, func() { to.At(before+min(st.node.Scrubbed().Round.Records, all-before), all) })
		round, err := st.node.ScrubNow(ctx)
		stop()
		if err != nil {
			return problems, fmt.Errorf("store %d (%s): %w", st.member.ID, st.member.Path, err)
		}
		before = min(all, before+round.Records)
		problems += int(round.Corrupt)
		to.Say(fmt.Sprintf("store %d: %d shards read, %d bad", st.member.ID, round.Records, round.Corrupt))
	}
	if problems > 0 {
		to.Say(fmt.Sprintf("%d bad shards are being rebuilt; see dosctl status", problems))
	}
	return problems, nil
}

// every calls f again and again until the function that it returns is called,
// which waits for a call under way.
func every(pause time.Duration, f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}
