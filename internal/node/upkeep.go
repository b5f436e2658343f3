package node

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/chunk/erasure"
	"dos/chunk/fold"
	"dos/chunk/repair"
	"dos/chunk/stripe"
	"dos/meta/client"
	"dos/procfs/cluster"
)

// advanceEvery is how often the low-water mark is told to the metadata service
// when no write carries it, so that what died or what failed writes left can be
// collected.
const advanceEvery = 5 * time.Second

// A wholeCluster is all stores of a cluster, as the data path and repair see them.
type wholeCluster interface {
	stripe.Cluster
	repair.Cluster
}

// An upkeep is the work that one process does for a whole cluster: it repairs
// and folds, and clears up after tasks that were forgotten. It speaks for one session, whose low-water mark it tells.
type upkeep struct {
	all    wholeCluster
	caller client.Caller // of the session

	path   *stripe.Path
	repair *repair.Repairer
	fold   *fold.Folder
	files  client.Files
}

// newUpkeep prepares the work. disk names the file system that a store lies on.
func newUpkeep(all wholeCluster, caller client.Caller, disk func(chunk.StoreID) string) (*upkeep, error) {
	u := &upkeep{all: all, caller: caller, files: client.Files{Caller: caller}}
	coder := new(erasure.Coder)
	var err error
	if u.repair, err = repair.New(repair.Config{Cluster: all, Table: table{u.stripes()}, Coder: coder}); err != nil {
		return nil, err
	}
	if u.path, err = stripe.New(stripe.Config{
		Cluster: all, IDs: client.Session{Caller: caller}, Coder: coder,
		Damaged: u.repair.Damaged, Disk: disk,
	}); err != nil {
		return nil, err
	}
	files := foldFiles{u.stripes(), u.shortCode}
	u.fold, err = fold.New(fold.Config{Files: files, Data: u.path})
	return u, err
}

func (u *upkeep) stripes() client.Stripes { return client.Stripes{Caller: u.caller} }

// Run works until ctx ends.
func (u *upkeep) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return u.repair.Run(ctx) })
	g.Go(func() error { return u.fold.Run(ctx) })
	g.Go(func() error { return advance(ctx, u.path, u.caller) })
	g.Go(func() error { return clearTasks(ctx, u.caller) })
	return g.Wait()
}

// advance tells the metadata service the low-water mark now and then.
func advance(ctx context.Context, path *stripe.Path, caller client.Caller) error {
	tick := time.NewTicker(advanceEvery)
	defer tick.Stop()
	var told chunk.StripeID
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		low := path.Low()
		if low == told {
			continue
		}
		if err := (client.Session{Caller: caller}).Advance(ctx, low); err != nil {
			slog.Warn("node: the low-water mark was not told", "err", err)
			continue
		}
		told = low
	}
}

// live is how many stores work.
func (u *upkeep) live() int {
	n := 0
	for _, id := range u.all.Stores() {
		if _, up := u.all.Store(id); up {
			n++
		}
	}
	return n
}

// shortCode is the wanted code if stripes with a narrower one can be written
// again with it now, else the zero Code.
func (u *upkeep) shortCode() chunk.Code {
	if u.repair.Status().Short == 0 || u.live() < u.all.Code().Shards() {
		return chunk.Code{}
	}
	return u.all.Code()
}

// status adds what the work knows.
func (u *upkeep) status(ctx context.Context, s *cluster.Status) {
	want, live, r := u.all.Code(), u.live(), u.repair.Status()
	s.Want, s.Code = want.String(), codeOf(want, live)
	s.Stripes = cluster.Redundancy{
		Full: r.Full, Short: r.Short, Degraded: r.Degraded, Endangered: r.Endangered, Lost: r.Lost,
	}
	s.Repair = cluster.Repair{Running: r.Running, Done: r.Done, Total: r.Done + r.Queued, Rate: r.Rate, Left: r.Left.Round(time.Second)}
	s.Spare = spare(want, len(u.all.Stores()), live, r)
	folding := u.fold.Status()
	s.Fold = cluster.Fold{Waiting: folding.Candidates, Done: folding.Files}
	if usage, err := u.files.Usage(ctx); err == nil {
		s.Files, s.Used = usage.Inodes, usage.Bytes
	}
	var err error
	if s.Capacity, s.Free, err = u.path.Capacity(ctx); err != nil {
		s.Capacity, s.Free = 0, 0 // no store answers; the stores' lines say so
	}
}
