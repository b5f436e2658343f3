package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	chunkdisk "dos/chunk/disk"
	chunknode "dos/chunk/node"
	"dos/internal/disk"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/procfs/cluster"
)

const (
	// settleTime is how long a store stays lost before it may start empty: time
	// to notice that others are lost too, and for somebody who moves folders
	// about to be done.
	settleTime = 3 * time.Second
	// scrubAgain is the least time between two extra rounds that damage brings about.
	scrubAgain = 10 * time.Minute
)

// stores are the chunk stores of this machine.
type stores struct {
	storesConfig
	list   []*store // in order of their ordinals
	mounts *mounts

	repaired func() bool    // whether redundancy is full; set before Run
	changed  func()         // a store came or went; set before Run
	corrupt  func(chunk.ID) // a shard was found damaged; set before Run

	news chan struct{} // closed by the next change of a state, and replaced; guarded by mu
	mu   sync.Mutex
}

// store is one of them.
type store struct {
	member members.Store // ID, Ordinal and Path never change, the rest is guarded by mu
	node   *chunknode.Node
	bad    chan struct{} // one token: damage was found

	mu       sync.Mutex
	replace  bool     // the administrator gave up what it had; guarded by mu
	unsaved  bool     // the metadata does not know member as it is; guarded by mu
	measured measured // guarded by mu
}

// storesConfig says what a machine's stores work with.
type storesConfig struct {
	node    string
	cluster members.ClusterID
	members client.Members
	events  *cluster.Journal
	data    *dataDir
	losses  int // stores that may be lost without loss of data: M
	// row is what the metadata says of a store of this machine, for one that does
	// not find out by itself when a store is whole again (repaired); optional.
	row func(id chunk.StoreID) (members.Store, bool)
	// elsewhere is how many stores of other machines are lost or being rebuilt.
	elsewhere func() int
}

// newStores prepares the stores that are registered, in order of their
// ordinals, each with the path it has now.
func newStores(c storesConfig, list []members.Store) (*stores, error) {
	s := &stores{storesConfig: c, news: make(chan struct{})}
	var err error
	if s.mounts, err = loadMounts(filepath.Join(c.data.path, "mounts")); err != nil {
		return nil, err
	}
	for i, member := range list {
		if int(member.Ordinal) != i {
			return nil, fmt.Errorf("store %d is registered as number %d: %w", member.ID, member.Ordinal, meta.Invalid)
		}
		if err := os.MkdirAll(filepath.Dir(member.Path), 0o700); err != nil {
			return nil, err
		}
		st := &store{member: member, bad: make(chan struct{}, 1)}
		st.node, err = chunknode.New(chunknode.Config{
			Dir:           member.Path,
			Disk:          chunkdisk.Config{FS: disk.Real{}, Cluster: fmt.Sprintf("%x", c.cluster), Store: member.ID},
			MayStartEmpty: func(context.Context) bool { return s.mayStartEmpty(st) && s.hasParent(st) },
			Absent:        func() error { return s.absent(st) },
			Changed:       func(now chunknode.State) { s.noticed(st, now) },
			Corrupt:       func(id chunk.ID) { s.damaged(st, id) },
		})
		if err != nil {
			return nil, err
		}
		s.list = append(s.list, st)
	}
	return s, nil
}

// Run keeps the stores open until ctx ends.
func (s *stores) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.watchRebuilt(ctx) })
	for _, st := range s.list {
		g.Go(func() error { return st.node.Run(ctx) })
		g.Go(func() error { return st.scrubOnDamage(ctx) })
		g.Go(func() error { return s.measure(ctx, st) })
	}
	return g.Wait()
}

// Ready returns when each store is open or known to be lost.
func (s *stores) Ready(ctx context.Context) error {
	for {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		waiting := false
		for _, st := range s.list {
			now := st.node.State()
			waiting = waiting || errors.Is(now.Why, chunknode.ErrNotYet)
		}
		if !waiting {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// noticed hears of each change of a store's state.
func (s *stores) noticed(st *store, now chunknode.State) {
	if now.Up {
		s.register(st, now)
	} else {
		s.comesOrGoes()
		if now.Why != nil && !errors.Is(now.Why, context.Canceled) && !errors.Is(now.Why, chunknode.ErrNotYet) { // else we stop or start
			s.events.Add("store %d is lost: %v", st.member.ID, now.Why)
			slog.Warn("node: a store is lost", "store", st.member.ID, "path", st.member.Path, "err", now.Why)
		}
	}
	s.mu.Lock()
	close(s.news)
	s.news = make(chan struct{})
	s.mu.Unlock()
}

// registerWait bounds how long a store's change waits for the metadata service.
const registerWait = 10 * time.Second

// register tells the metadata service which contents a store has now, so that
// a later start knows a store that lost them from one that is new, and goes on
// to rebuild what was not rebuilt.
func (s *stores) register(st *store, now chunknode.State) {
	incarnation := binary.LittleEndian.Uint64(now.Incarnation[:]) | 1 // zero means none yet
	capacity := st.capacity()
	st.mu.Lock()
	before, known := st.member.Incarnation, st.member.Capacity
	st.member.Incarnation = incarnation
	if err := s.mounts.saw(st.member.ID, st.member.Path); err != nil {
		slog.Warn("node: where a store is mounted is not noted", "store", st.member.ID, "err", err)
	}
	if before != 0 && before != incarnation {
		st.member.Rebuilding = true
	}
	if now.Empty {
		st.replace = false
	}
	if capacity > 0 {
		st.member.Capacity = capacity
	}
	s.comesOrGoes() // before anybody can see it without the mark, or the mark without the change
	member := st.member
	st.mu.Unlock()
	switch {
	case before == 0:
		s.events.Add("store %d is new, in %s", member.ID, member.Path)
	case before != incarnation:
		s.events.Add("store %d starts empty; its shards are being rebuilt", member.ID)
		slog.Warn("node: a store starts empty, its shards are being rebuilt", "store", member.ID, "path", member.Path)
	default:
		s.events.Add("store %d is up", member.ID)
		if member.Capacity == known {
			return
		}
	}
	s.put(st)
}

func (s *stores) comesOrGoes() {
	if s.changed != nil {
		s.changed()
	}
}

// put tells the metadata service what a store is now. If it cannot be told it is
// tried again.
func (s *stores) put(st *store) {
	ctx, cancel := context.WithTimeout(context.Background(), registerWait)
	defer cancel()
	st.mu.Lock()
	member := st.member
	st.unsaved = false
	st.mu.Unlock()
	if _, err := s.members.PutStore(ctx, member); err != nil {
		slog.Warn("node: a store is not registered, will be tried again", "store", member.ID, "err", err)
		st.mu.Lock()
		st.unsaved = true
		st.mu.Unlock()
	}
}

// rebuiltEvery is how often it is looked whether stores are rebuilt.
const rebuiltEvery = time.Second

// watchRebuilt takes the mark from stores that have all their shards again.
func (s *stores) watchRebuilt(ctx context.Context) error {
	tick := time.NewTicker(rebuiltEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, st := range s.list {
			done := s.rebuilt(st)
			st.mu.Lock()
			save := st.unsaved || done
			st.mu.Unlock()
			if done {
				s.events.Add("store %d is whole again", st.member.ID)
			}
			if save {
				s.put(st)
			}
		}
	}
}

// rebuilt takes the mark from a store if it has all its shards again, and
// reports whether the metadata is to be told.
func (s *stores) rebuilt(st *store) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.member.Rebuilding || st.unsaved || !st.node.State().Up {
		return false
	}
	if s.row != nil { // who is in charge of repair has said so
		row, ok := s.row(st.member.ID)
		st.member.Rebuilding = !ok || row.Rebuilding || row.Incarnation != st.member.Incarnation
		return false
	}
	st.member.Rebuilding = s.repaired == nil || !s.repaired()
	return !st.member.Rebuilding
}

// mayStartEmpty decides whether a store whose folder is gone is given up. It is
// not while that many are lost that stripes may be unreadable without it: then
// its folder may still come back and be what saves them, and the administrator
// decides (dosctl replace).
func (s *stores) mayStartEmpty(st *store) bool {
	st.mu.Lock()
	first, replace := st.member.Incarnation == 0, st.replace
	st.mu.Unlock()
	if first || replace {
		return true
	}
	if time.Since(st.node.State().Since) < settleTime {
		return false
	}
	lost := 1 + s.elsewhere()
	for _, other := range s.list {
		if other != st && (!other.node.State().Up || other.isRebuilding()) {
			lost++
		}
	}
	return lost <= s.losses
}

// absent reports an *unmountedError if a store's file system is not mounted,
// unless the administrator gave up what was there.
func (s *stores) absent(st *store) error {
	st.mu.Lock()
	replace := st.replace
	st.mu.Unlock()
	if replace {
		return nil
	}
	return s.mounts.check(st.member.ID, st.member.Path)
}

// hasParent makes the folder that a store of the data directory lies in, if
// somebody took it away with the store. What a disk lies in is not made: it may
// not be mounted.
func (s *stores) hasParent(st *store) bool {
	parent := filepath.Dir(st.member.Path)
	if filepath.Dir(parent) != s.data.path {
		return true
	}
	err := os.Mkdir(parent, 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		slog.Warn("node: a store cannot start empty", "store", st.member.ID, "err", err)
		return false
	}
	return true
}

// isRebuilding says whether a store that started empty still lacks shards.
func (st *store) isRebuilding() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.member.Rebuilding
}

// Replace gives up what a lost store had.
func (s *stores) Replace(id chunk.StoreID) error {
	st := s.find(id)
	switch {
	case st == nil:
		return fmt.Errorf("no store %d: %w", id, meta.NotExist)
	case st.node.State().Up:
		return fmt.Errorf("store %d is not lost: %w", id, meta.Busy)
	}
	st.mu.Lock()
	st.replace = true
	st.mu.Unlock()
	s.events.Add("store %d was given up by the administrator", id)
	return nil
}

func (s *stores) damaged(st *store, id chunk.ID) {
	if s.corrupt != nil {
		s.corrupt(id)
	}
	st.suspect()
}

// suspect asks for an extra round of scrubbing: where one record has rotted
// there may be others.
func (st *store) suspect() {
	select {
	case st.bad <- struct{}{}:
	default:
	}
}

func (st *store) scrubOnDamage(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-st.bad:
		}
		slog.Warn("node: damage was found, the whole store is being checked", "store", st.member.ID, "path", st.member.Path)
		if _, err := st.node.ScrubNow(ctx); err != nil && ctx.Err() == nil {
			slog.Warn("node: checking a store", "store", st.member.ID, "err", err)
		}
		select { // what the round itself found
		case <-st.bad:
		default:
		}
		wait := time.NewTimer(scrubAgain)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
	}
}

func (s *stores) find(id chunk.StoreID) *store {
	for _, st := range s.list {
		if st.member.ID == id {
			return st
		}
	}
	return nil
}

// Store is one of this machine's stores, and whether it works.
func (s *stores) Store(id chunk.StoreID) (chunk.Store, bool) {
	st := s.find(id)
	if st == nil {
		return nil, false
	}
	return st.node, st.node.State().Up
}

// where is the folder of a store.
func (s *stores) where(id chunk.StoreID) string {
	if st := s.find(id); st != nil {
		return st.member.Path
	}
	return ""
}
