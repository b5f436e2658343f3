package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dos/chunk"
	"dos/chunk/fold"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/namespace"
)

// foldFiles is the tree of files as folding sees it.
type foldFiles struct {
	stripes client.Stripes
	// short is the wanted code, if there are stripes with a narrower one and
	// enough stores to write them again; else the zero Code.
	short func() chunk.Code
}

// Candidates are what commands marked as worth folding, and the owners of
// stripes that were written while stores were away.
func (f foldFiles) Candidates(ctx context.Context, after uint64, limit int) ([]fold.Candidate, error) {
	marked, more, err := f.stripes.Folds(ctx, meta.Ino(after), limit)
	if err != nil {
		return nil, err
	}
	var inos []meta.Ino
	for _, m := range marked {
		inos = append(inos, m.Ino)
	}
	if more { // what comes after the last one is for the next call
		limit = len(inos)
	}
	if want := f.short(); want != (chunk.Code{}) {
		owners, err := f.owners(ctx, want)
		if err != nil {
			return nil, err
		}
		for _, ino := range owners {
			if ino > meta.Ino(after) && (!more || ino < inos[len(marked)-1]) {
				inos = append(inos, ino)
			}
		}
	}
	slices.Sort(inos)
	inos = slices.Compact(inos)
	inos = inos[:min(len(inos), max(limit, 0))]

	list := make([]fold.Candidate, 0, len(inos))
	for _, ino := range inos {
		c := fold.Candidate{File: uint64(ino)}
		// A file that is gone comes up again in Layout; nothing is lost by asking there.
		if l, err := f.stripes.Layout(ctx, ino, 0, 0); err == nil {
			c.Since = l.Attr.Ctime.Std()
		} else if !errors.Is(err, meta.NotExist) {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// ownersMax bounds the files that are written again for their short stripes in
// one round.
const ownersMax = 1024

// owners are files with stripes that are cut into less than want says.
func (f foldFiles) owners(ctx context.Context, want chunk.Code) ([]meta.Ino, error) {
	var inos []meta.Ino
	var after chunk.StripeID
	for len(inos) < ownersMax {
		page, err := f.stripes.Stripes(ctx, after, namespace.ListMax, want)
		if err != nil {
			return nil, err
		}
		for _, row := range page.Stripes {
			if row.Owner != 0 { // what is kept for something else stays as it is
				inos = append(inos, row.Owner)
			}
		}
		if !page.More {
			break
		}
		after = page.Next
	}
	return inos, nil
}

func (f foldFiles) Layout(ctx context.Context, file uint64, off, size int64) (fold.Layout, error) {
	l, err := f.stripes.Layout(ctx, meta.Ino(file), off, size)
	if err != nil {
		return fold.Layout{}, foldError(err)
	}
	out := fold.Layout{Version: l.Attr.Data, Size: l.Attr.Size, Stripes: l.Stripes, End: l.End}
	for _, e := range l.Extents {
		out.Extents = append(out.Extents, fold.Extent(e))
	}
	return out, nil
}

func (f foldFiles) Swap(ctx context.Context, file, version uint64, extents []fold.Extent, stripes []chunk.Stripe, done bool, low chunk.StripeID) error {
	swap := meta.Swap{Ino: meta.Ino(file), Data: version, Stripes: stripes, Done: done, Low: low}
	for _, e := range extents {
		swap.Extents = append(swap.Extents, meta.Extent(e))
	}
	_, err := f.stripes.Swap(ctx, swap)
	return foldError(err)
}

// foldError says in the words of package fold what folding acts on.
func foldError(err error) error {
	switch {
	case errors.Is(err, meta.Conflict):
		return fmt.Errorf("%w: %w", fold.ErrConflict, err)
	case errors.Is(err, meta.NotExist):
		return fmt.Errorf("%w: %w", fold.ErrGone, err)
	}
	return err
}
