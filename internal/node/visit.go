package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"dos/chunk/stripe"
	"dos/meta"
	"dos/meta/client"
)

// A visit is a session that a machine has with its own cluster, and the way to data under it.
type visit struct {
	here *client.Presence
	path *stripe.Path
	// below has something run that what the visit is for stands on: it ends after that.
	below func(run func(context.Context) error)
}

// visitAgain visits the cluster, as soon as that can be reached, and again when a visit has
// ended because it could not be any more, until ctx ends.
func (m *Machine) visitAgain(ctx context.Context, what, name string, begin func(v visit) (client.User, func(context.Context) error)) error {
	return insist(ctx, what, func(ctx context.Context) error {
		reach, cancel := context.WithTimeout(ctx, reachWait)
		defer cancel()
		if err := awaitGroups(reach, m.fleet); err != nil {
			return fmt.Errorf("%w: %w", meta.Unavailable, err)
		}
		return m.visit(ctx, name, begin)
	})
}

// visit opens a session, does what begin returns, with who uses the session, until that ends
// or something it stands on does, and leaves. Its context ends in the latter case, and with ctx.
func (m *Machine) visit(ctx context.Context, name string, begin func(v visit) (client.User, func(context.Context) error)) error {
	here, err := client.NewPresence(ctx, m.service, name, m.data.node)
	if err != nil {
		return err
	}
	leave := func(end func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
		defer cancel()
		if err := end(ctx); err != nil {
			slog.Warn("node: leaving", "err", err)
		}
	}
	defer leave(here.End)
	path, err := stripe.New(stripe.Config{Cluster: m.fleet, IDs: client.Session{Caller: here}, Disk: m.fleet.Disk, Changed: m.fleet.Changed})
	if err != nil {
		return err
	}
	defer leave(path.Close)
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, below := errgroup.WithContext(below)
	user, do := begin(visit{here, path, func(run func(context.Context) error) {
		g.Go(func() error { return run(below) })
	}})
	g.Go(func() error { return here.Run(below, user) })
	g.Go(func() error { return advance(below, path, here) })
	above, stopAbove := context.WithCancel(ctx)
	defer stopAbove()
	context.AfterFunc(below, stopAbove)
	err = do(above)
	stop()
	return errors.Join(err, g.Wait())
}
