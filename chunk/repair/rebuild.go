package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dos/chunk"
)

// lostLogMax bounds the lines about lost stripes for each comparison.
const lostLogMax = 10

// work rebuilds one stripe after the other.
func (r *Repairer) work(ctx context.Context) error {
	for {
		it, err := r.queue.take(ctx)
		if err != nil {
			return nil
		}
		r.begin()
		r.repair(ctx, it)
		r.queue.finish(it)
		r.end()
		r.noteFull()
	}
}

// repair looks at a stripe again, rebuilds what can be rebuilt, and looks once
// more: what is counted as full has been seen on the stores.
func (r *Repairer) repair(ctx context.Context, it *item) {
	row, ok, err := r.row(ctx, it.stripe)
	switch {
	case err != nil:
		r.postpone(ctx, it, fmt.Errorf("stripe table: %w", err))
		return
	case !ok:
		r.settle(it, full, true)
		return
	}
	l := r.inspect(ctx, row, it.suspect)
	if l.rebuildable() {
		if err := r.rebuild(ctx, l); err != nil {
			r.postpone(ctx, it, err)
			return
		}
		switch row, ok, err = r.row(ctx, it.stripe); {
		case err != nil:
			r.postpone(ctx, it, fmt.Errorf("stripe table: %w", err))
			return
		case !ok:
			r.settle(it, full, true)
			return
		}
		l = r.inspect(ctx, row, it.suspect)
	}
	class := classOf(row.Code, len(row.Stores)-l.count(present))
	if class == full {
		r.dropExtras(ctx, row, it.extras)
	}
	if class == lost {
		r.logLost(l)
	}
	if l.count(unknown) > 0 || l.rebuildable() {
		r.postpone(ctx, it, fmt.Errorf("%v", l))
		return
	}
	r.settle(it, class, false)
}

// postpone leaves an item to a later comparison.
func (r *Repairer) postpone(ctx context.Context, it *item, err error) {
	if ctx.Err() != nil {
		return
	}
	slog.Warn("repair: stripe could not be repaired now", "stripe", fmt.Sprintf("%016x", uint64(it.stripe)), "err", err)
	r.queue.again()
}

// row reads one row of the table.
func (r *Repairer) row(ctx context.Context, id chunk.StripeID) (chunk.Stripe, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	list, _, err := r.config.Table.Stripes(ctx, id-1, 1)
	if err != nil || len(list) == 0 || list[0].ID != id {
		return chunk.Stripe{}, false, err
	}
	s := list[0]
	if len(s.Stores) != s.Code.Shards() {
		return s, false, fmt.Errorf("%016x has %d stores for code %v", uint64(s.ID), len(s.Stores), s.Code)
	}
	return s, true, nil
}

// The states of a shard.
type state int

const (
	present state = iota
	missing       // its store lives and does not have it, or has it corrupt
	moving        // its store has been away for long
	absent        // its store is away, but may come back
	unknown       // its store does not say
)

// A look is what the stores say of one stripe.
type look struct {
	row    chunk.Stripe
	size   int64 // of each shard
	states []state
	wrong  []bool // a missing one is there, but of another size
	errs   []error
}

func (l *look) count(s state) int {
	n := 0
	for _, x := range l.states {
		if x == s {
			n++
		}
	}
	return n
}

// rebuildable reports whether something is to be rebuilt and can be.
func (l *look) rebuildable() bool {
	return l.count(present) >= int(l.row.Code.K) && l.count(missing)+l.count(moving) > 0
}

func (l *look) String() string {
	s := fmt.Sprintf("%d of %d shards", l.count(present), len(l.states))
	for i, err := range l.errs {
		if err != nil {
			s += fmt.Sprintf(", shard %d on store %d: %v", i, l.row.Stores[i], err)
		}
	}
	return s
}

var errAway = errors.New("store is away")

// inspect asks all stores of a stripe, at the same time. Suspect shards are
// read, the others looked up.
func (r *Repairer) inspect(ctx context.Context, row chunk.Stripe, suspect uint32) *look {
	n := len(row.Stores)
	l := &look{row: row, size: int64(row.Code.Cell(int(row.Len))),
		states: make([]state, n), wrong: make([]bool, n), errs: make([]error, n)}
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	var wg sync.WaitGroup
	spares := len(r.spares(row))
	for i, store := range row.Stores {
		s, live := r.config.Cluster.Store(store)
		if !live {
			r.missed(store)
			l.states[i], l.errs[i] = absent, errAway
			if spares > 0 && r.movable(store) {
				l.states[i] = moving
				spares--
			}
			continue
		}
		wg.Go(func() {
			id := chunk.ID{Stripe: row.ID, Index: uint8(i)}
			info, err := s.Stat(ctx, id)
			l.wrong[i] = err == nil && info.Size != l.size
			if err == nil && !l.wrong[i] && suspect>>i&1 == 1 {
				err = verify(ctx, s, info)
			}
			l.errs[i] = err
			switch {
			case l.wrong[i]:
				l.states[i], l.errs[i] = missing, fmt.Errorf("%d bytes, want %d", info.Size, l.size)
			case err == nil:
			case errors.Is(err, chunk.ErrNotExist), errors.Is(err, chunk.ErrCorrupt):
				l.states[i] = missing
			default:
				l.states[i] = unknown
			}
		})
	}
	wg.Wait()
	return l
}

// verify reads a whole shard where it lies if the store can, else from here.
func verify(ctx context.Context, s chunk.Store, info chunk.Info) error {
	if v, ok := s.(chunk.Scrubber); ok {
		return v.Verify(ctx, info.ID)
	}
	b := make([]byte, chunk.Block*16)
	for off := int64(0); off < info.Size; off += int64(len(b)) {
		b = b[:min(int64(len(b)), info.Size-off)]
		if n, err := s.ReadAt(ctx, info.ID, b, off); n < len(b) {
			return err
		}
	}
	return nil
}

// rebuild computes the shards that are missing or moving and puts them.
func (r *Repairer) rebuild(ctx context.Context, l *look) error {
	n := len(l.states)
	size := int(l.size)
	if err := r.rate.wait(ctx, int64(size)*int64(l.count(missing)+l.count(moving))); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	have := make([][]byte, n)
	defer func() {
		for _, b := range have {
			if b != nil {
				r.coder.Free(b)
			}
		}
	}()
	if err := r.read(ctx, l, have); err != nil {
		return err
	}
	dst := make([][]byte, n)
	defer func() {
		for _, b := range dst {
			if b != nil {
				r.coder.Free(b)
			}
		}
	}()
	for i, s := range l.states { // read may have found more that are missing
		if s == missing || s == moving {
			dst[i] = r.coder.Buffer(size)
		}
	}
	if err := r.coder.Reconstruct(l.row.Code, have, dst); err != nil {
		return err
	}

	var moves []Move
	var errs []error
	spares := r.spares(l.row)
	for i, s := range l.states {
		var err error
		id := chunk.ID{Stripe: l.row.ID, Index: uint8(i)}
		switch s {
		case missing:
			err = r.home(ctx, l, id, dst[i])
		case moving:
			var to chunk.StoreID
			if to, spares, err = r.spare(ctx, id, dst[i], spares); err == nil {
				moves = append(moves, Move{Stripe: l.row.ID, Index: id.Index, From: l.row.Stores[i], To: to})
			}
		default:
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("shard %v: %w", id, err))
			continue
		}
		r.rebuilt(int64(size))
	}
	if len(moves) > 0 {
		if err := r.config.Table.Move(ctx, moves); err != nil {
			errs = append(errs, fmt.Errorf("move: %w", err))
		}
	}
	return errors.Join(errs...)
}

// read fills have with K shards. What turns out to be corrupt or gone becomes
// missing, and another is read in its place.
func (r *Repairer) read(ctx context.Context, l *look, have [][]byte) error {
	need := int(l.row.Code.K)
	for {
		var todo []int
		got := 0
		for i, s := range l.states {
			switch {
			case have[i] != nil:
				got++
			case s == present && got+len(todo) < need:
				todo = append(todo, i)
			}
		}
		if got >= need {
			return nil
		}
		// A shard already read may lie after those chosen, so count again.
		todo = todo[:min(len(todo), need-got)]
		if len(todo) == 0 {
			return fmt.Errorf("%v: %w", l, chunk.ErrTooFew)
		}
		var wg sync.WaitGroup
		for _, i := range todo {
			wg.Go(func() { have[i], l.errs[i] = r.readShard(ctx, l, i) })
		}
		wg.Wait()
		for _, i := range todo {
			switch err := l.errs[i]; {
			case err == nil:
			case errors.Is(err, chunk.ErrNotExist), errors.Is(err, chunk.ErrCorrupt):
				l.states[i] = missing
			default:
				l.states[i] = unknown
			}
		}
	}
}

func (r *Repairer) readShard(ctx context.Context, l *look, i int) ([]byte, error) {
	s, live := r.config.Cluster.Store(l.row.Stores[i])
	if !live {
		return nil, errAway
	}
	b := r.coder.Buffer(int(l.size))
	n, err := s.ReadAt(ctx, chunk.ID{Stripe: l.row.ID, Index: uint8(i)}, b, 0)
	if n < len(b) {
		r.coder.Free(b)
		if err == nil {
			err = chunk.ErrCorrupt
		}
		return nil, err
	}
	return b, nil
}

// home puts a shard back where the table says that it is.
func (r *Repairer) home(ctx context.Context, l *look, id chunk.ID, b []byte) error {
	s, live := r.config.Cluster.Store(l.row.Stores[id.Index])
	if !live {
		return errAway
	}
	if l.wrong[id.Index] { // not what the table says, whatever it is
		if err := s.Delete(ctx, id); err != nil {
			return err
		}
	}
	return s.Put(ctx, id, b)
}

// spares lists the live stores that a stripe may lie on and does not.
func (r *Repairer) spares(row chunk.Stripe) []chunk.StoreID {
	var spares []chunk.StoreID
	for _, id := range r.config.Cluster.Group(row.ID).Members {
		if _, live := r.config.Cluster.Store(id); live && !slices.Contains(row.Stores, id) && !slices.Contains(spares, id) {
			spares = append(spares, id)
		}
	}
	return spares
}

// spare puts a shard on the first spare that takes it and returns the others.
func (r *Repairer) spare(ctx context.Context, id chunk.ID, b []byte, spares []chunk.StoreID) (chunk.StoreID, []chunk.StoreID, error) {
	errs := []error{errors.New("no spare store took it")}
	for len(spares) > 0 {
		to := spares[0]
		spares = spares[1:]
		s, live := r.config.Cluster.Store(to)
		if !live {
			continue
		}
		err := s.Put(ctx, id, b)
		if errors.Is(err, chunk.ErrExist) { // left by a write that went elsewhere; no row names it
			if err = s.Delete(ctx, id); err == nil {
				err = s.Put(ctx, id, b)
			}
		}
		if err == nil {
			return to, spares, nil
		}
		errs = append(errs, fmt.Errorf("store %d: %w", to, err))
	}
	return 0, nil, errors.Join(errs...)
}

// dropExtras deletes shards from stores where the table has none. Their stripe
// is full without them.
func (r *Repairer) dropExtras(ctx context.Context, row chunk.Stripe, extras []extra) {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	for _, e := range extras {
		if i := int(e.id.Index); i < len(row.Stores) && row.Stores[i] == e.store {
			continue // moved there meanwhile
		}
		if s, live := r.config.Cluster.Store(e.store); live && s.Delete(ctx, e.id) == nil {
			r.collected(1, 0)
		}
	}
}

func (r *Repairer) logLost(l *look) {
	r.mu.Lock()
	r.lostLogged++
	n := r.lostLogged
	r.mu.Unlock()
	if n <= lostLogMax {
		slog.Error("repair: stripe is lost unless stores come back", "stripe", fmt.Sprintf("%016x", uint64(l.row.ID)), "code", l.row.Code.String(), "found", l.String())
	}
}

func (r *Repairer) rebuilt(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.rebuilt++
	r.done.bytes += bytes
	r.spell.bytes += bytes
}

// begin and end are called before and after work on a stripe.
func (r *Repairer) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spell.began.IsZero() {
		r.spell.began = time.Now()
	}
}

func (r *Repairer) end() {
	busy, _ := r.queue.busy()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spell.stripes++; busy == 0 {
		r.spell = spell{}
	}
}

func (r *Repairer) collected(shards, stripes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.collected += shards
	r.done.buried += stripes
}
