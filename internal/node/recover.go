package node

import (
	"context"
	"errors"
	"fmt"

	metanode "dos/meta/node"
	"dos/meta/replica"
)

// recoverable opens the data directory of a machine that has metadata, and on
// which no dos runs.
func recoverable(ctx context.Context, data string, salvage bool) (*dataDir, replica.Config, error) {
	awaitGoing(ctx, data)
	d, _, err := takeData(data, false, func(d *dataDir) error {
		switch {
		case d.node == "":
			return fmt.Errorf("%s has an embedded cluster, whose metadata is one copy: dosctl fsck --salvage, or restore", data)
		case d.wasRemoved():
			return d.removed()
		}
		return nil
	})
	if err != nil {
		return nil, replica.Config{}, err
	}
	c := replica.Config{Dir: d.meta(), Machine: metanode.Machine(), Salvage: salvage}
	if c.ID, err = replica.MemberID(d.meta(), d.node); err != nil {
		return nil, c, errors.Join(err, d.Close())
	}
	return d, c, nil
}

// A Survivor is a machine with what it has of the metadata.
type Survivor struct {
	Name   string
	Last   uint64   // the last entry; of two survivors the one with the higher knows more
	Voters []string // the machines with a vote, as this one knows
}

// Inspect says what a machine of a cluster has of the metadata.
func Inspect(ctx context.Context, data string, salvage bool) (s Survivor, err error) {
	d, c, err := recoverable(ctx, data, salvage)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	has, err := replica.Inspect(c)
	s.Name, s.Last = d.node, has.Last
	for _, m := range has.Group {
		if m.Voter {
			s.Voters = append(s.Voters, replica.MachineOf(m.ID))
		}
	}
	return s, err
}

// Recover makes a machine the only one with metadata, with what it has: for a
// cluster that has lost most of those that had it, for good.
func Recover(ctx context.Context, data string, salvage bool) (err error) {
	d, c, err := recoverable(ctx, data, salvage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if _, err := replica.Recover(c); err != nil {
		return err
	}
	// It leads alone now; else this is where that shows.
	c.Salvage = false
	member, err := metanode.Open(c)
	if err != nil {
		return err
	}
	// What the others had got and this one had not has used stripe IDs.
	return errors.Join(skipStripes(ctx, member), member.Close())
}
