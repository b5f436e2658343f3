package kv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/kv"
	"dos/meta/txn"
	"dos/procfs"
)

// Bits of a mode, as for others.
const (
	toRead  = 4
	toWrite = 2
)

// likeDir is the mode of a file that is for those who may read or write a directory.
func likeDir(mode, bit uint32) uint32 {
	allowed := mode / bit & 0o111
	return allowed*toRead | allowed*toWrite
}

// A Verb is one of another room that transactions may have.
type Verb struct {
	// Allow says whether a caller may do a step, whose line is its first argument and,
	// after it, data. It may make of these what the service takes.
	Allow func(ctx context.Context, by procfs.Caller, step *txn.Step) error
	// Done hears of each such step that is committed. Optional.
	Done func(step txn.Step)
}

// Anyone may do a step that changes nothing and tells nothing (Verb.Allow).
func Anyone(context.Context, procfs.Caller, *txn.Step) error { return nil }

// mayStep says whether a caller may do a step of a transaction.
func (r *root) mayStep(ctx context.Context, by procfs.Caller, step *txn.Step) error {
	want := uint32(toWrite)
	switch step.Verb {
	case "if":
		want = toRead
	case "put", "del":
	default:
		other, ok := r.others[step.Verb]
		if !ok {
			return fmt.Errorf("there is no verb %q: %w", step.Verb, meta.Invalid)
		}
		return other.Allow(ctx, by, step)
	}
	if len(step.Args) == 0 {
		return fmt.Errorf("%s without a key: %w", step.Verb, meta.Invalid)
	}
	table, key, _ := strings.Cut(step.Args[0], "/")
	t, err := r.kv.Table(ctx, table)
	if err != nil {
		return err
	}
	e, err := r.kv.Stat(ctx, table, key)
	switch {
	case err != nil && !errors.Is(err, meta.NotExist):
		return err
	case step.Verb == "put" && e.Version != 0: // what is there is written to
		t = kv.Table{UID: e.UID, GID: e.GID, Mode: e.Mode}
	}
	if !by.May(t.UID, t.GID, t.Mode, want) {
		return fmt.Errorf("%s %s: %w", step.Verb, step.Args[0], meta.Permission)
	}
	return nil
}
