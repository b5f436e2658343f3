package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"dos/meta"
	"dos/meta/kv"
	"dos/meta/txn"
)

// KV are the calls about tables of keys and values, and transactions. Commands speak
// for the session of the Caller.
type KV struct{ Caller Caller }

// Make makes a table.
func (k KV) Make(ctx context.Context, req kv.Make) error {
	return k.Caller.Call(ctx, kv.OpMake, req, nil)
}

// Drop removes a table that has no keys.
func (k KV) Drop(ctx context.Context, table string) error {
	return k.Caller.Call(ctx, kv.OpDrop, kv.Named{Name: table}, nil)
}

// SetTable changes a table's owner, mode, ttl or quota.
func (k KV) SetTable(ctx context.Context, req kv.SetTable) error {
	return k.Caller.Call(ctx, kv.OpSetTable, req, nil)
}

// Table describes a table.
func (k KV) Table(ctx context.Context, name string) (t kv.Table, err error) {
	err = k.Caller.Call(ctx, kv.OpTable, kv.Named{Name: name}, &t)
	return t, err
}

// Tables lists all tables, in order.
func (k KV) Tables(ctx context.Context) (list []kv.Table, err error) {
	after := ""
	for {
		var reply kv.TableList
		if err := k.Caller.Call(ctx, kv.OpTables, kv.Tables{After: after, Limit: kv.ListMax}, &reply); err != nil {
			return nil, err
		}
		list = append(list, reply.Tables...)
		if !reply.More || len(reply.Tables) == 0 {
			return list, nil
		}
		after = list[len(list)-1].Name
	}
}

// Put puts req.Data, of up to kv.ValueMax bytes, and returns its version.
func (k KV) Put(ctx context.Context, req kv.Put) (version uint64, err error) {
	if len(req.Data) > kv.ValueMax {
		return 0, fmt.Errorf("%d bytes, at most %d: %w", len(req.Data), kv.ValueMax, meta.TooLarge)
	}
	if len(req.Data) > kv.InlineMax {
		if req.Blob, err = k.stage(ctx, req.Data); err != nil {
			return 0, err
		}
		req.Data = nil
	}
	var w kv.Written
	if err = k.Caller.Call(ctx, kv.OpPut, req, &w); err != nil && req.Blob != nil {
		err = errors.Join(err, k.unstage(ctx, *req.Blob))
	}
	return w.Version, err
}

func (k KV) stage(ctx context.Context, data []byte) (*kv.Blob, error) {
	caller, ok := k.Caller.(interface{ Session() meta.SessionID })
	if !ok {
		return nil, fmt.Errorf("a value of %d bytes needs a session: %w", len(data), meta.Invalid)
	}
	b := kv.Blob{Session: caller.Session(), Number: rand.Uint64(), Size: len(data)}
	for part := uint32(0); len(data) > 0; part++ {
		n := min(len(data), kv.PartMax)
		if err := k.Caller.Call(ctx, kv.OpStage, kv.Stage{Number: b.Number, Part: part, Data: data[:n]}, nil); err != nil {
			return nil, errors.Join(err, k.unstage(ctx, b))
		}
		data = data[n:]
	}
	return &b, nil
}

// unstage gives up parts. If that fails too they go with the session.
func (k KV) unstage(ctx context.Context, b kv.Blob) error {
	return k.Caller.Call(context.WithoutCancel(ctx), kv.OpUnstage, b, nil)
}

// Get returns what is at a key, with its bytes.
func (k KV) Get(ctx context.Context, table, key string) (e kv.Entry, err error) {
	for {
		if err = k.Caller.Call(ctx, kv.OpGet, kv.Get{Table: table, Key: key, Data: true}, &e); err != nil || e.Blob == nil {
			return e, err
		}
		e.Data, err = k.parts(ctx, *e.Blob)
		if !errors.Is(err, meta.NotExist) { // else another value is there meanwhile
			return e, err
		}
		e = kv.Entry{}
	}
}

func (k KV) parts(ctx context.Context, b kv.Blob) ([]byte, error) {
	var data bytes.Buffer
	for part := uint32(0); data.Len() < b.Size; part++ {
		var reply kv.PartData
		if err := k.Caller.Call(ctx, kv.OpPart, kv.Part{Blob: b, Part: part}, &reply); err != nil {
			return nil, err
		}
		data.Write(reply.Data)
	}
	return data.Bytes(), nil
}

// Stat returns what is at a key, without its bytes.
func (k KV) Stat(ctx context.Context, table, key string) (e kv.Entry, err error) {
	err = k.Caller.Call(ctx, kv.OpGet, kv.Get{Table: table, Key: key}, &e)
	return e, err
}

// Delete removes a key and returns the revision of that.
func (k KV) Delete(ctx context.Context, req kv.Delete) (uint64, error) {
	var w kv.Written
	err := k.Caller.Call(ctx, kv.OpDelete, req, &w)
	return w.Version, err
}

// Set changes a key's owner, mode or ttl.
func (k KV) Set(ctx context.Context, req kv.Set) error {
	return k.Caller.Call(ctx, kv.OpSet, req, nil)
}

// Rename moves a value to another key.
func (k KV) Rename(ctx context.Context, req kv.Rename) error {
	return k.Caller.Call(ctx, kv.OpRename, req, nil)
}

// Scan returns a part of a table in order, and at which revision it was so.
func (k KV) Scan(ctx context.Context, req kv.Scan) (reply kv.Scanned, err error) {
	err = k.Caller.Call(ctx, kv.OpScan, req, &reply)
	return reply, err
}

// List returns what is in a directory of a table.
func (k KV) List(ctx context.Context, table, dir string) (list []kv.Entry, err error) {
	after := ""
	for {
		var reply kv.Scanned
		if err := k.Caller.Call(ctx, kv.OpList, kv.List{Table: table, Dir: dir, After: after, Limit: kv.ListMax}, &reply); err != nil {
			return nil, err
		}
		list = append(list, reply.Entries...)
		if !reply.More || len(reply.Entries) == 0 {
			return list, nil
		}
		after = list[len(list)-1].Key
	}
}

// Follow returns the changes in a table after a revision, and the revision to go on
// after. It waits for some, but not for ever: there may be none.
func (k KV) Follow(ctx context.Context, table string, after uint64) (reply kv.Changes, err error) {
	err = k.Caller.Call(ctx, kv.OpFollow, kv.Follow{Table: table, After: after, Limit: kv.ListMax}, &reply)
	return reply, err
}

// Commit executes a transaction.
func (k KV) Commit(ctx context.Context, steps []txn.Step) (answers []string, err error) {
	var reply txn.Committed
	err = k.Caller.Call(ctx, txn.OpCommit, txn.Commit{Steps: steps}, &reply)
	return reply.Answers, err
}

// Update does steps, in order, in one command, or, if req.Whole does not say that it
// must be one, in as many as the answers need. A Blob in an outcome may be gone by now.
// What is too large for one command is put in parts first.
func (k KV) Update(ctx context.Context, req kv.Update) (list []kv.Outcome, err error) {
	steps := req.Steps
	var staged []kv.Blob
	inline := inlineOf(steps)
	for i, s := range steps {
		if len(s.Data) <= inline || s.Do != kv.Write {
			continue
		}
		if len(s.Data) > kv.ValueMax {
			return nil, fmt.Errorf("%d bytes, at most %d: %w", len(s.Data), kv.ValueMax, meta.TooLarge)
		}
		b, err := k.stage(ctx, s.Data)
		if err != nil {
			return nil, errors.Join(err, k.unstageAll(ctx, staged))
		}
		if len(staged) == 0 { // the caller's steps stay as they are
			steps = append([]kv.Step(nil), steps...)
		}
		steps[i].Data, steps[i].Blob = nil, b
		staged = append(staged, *b)
	}
	for len(steps) > 0 {
		req.Steps = steps
		var reply kv.Updated
		if err = k.Caller.Call(ctx, kv.OpUpdate, req, &reply); err != nil {
			break
		}
		list = append(list, reply.Outcomes...)
		steps = steps[len(reply.Outcomes):]
	}
	if err != nil || len(staged) > 0 && refusedSome(list) {
		// What was adopted is not staged any more.
		err = errors.Join(err, k.unstageAll(ctx, staged))
	}
	return list, err
}

// inlineOf is how large the data of a step may be that one command carries with the
// others: half of the room is for the keys.
func inlineOf(steps []kv.Step) int {
	size := 0
	for _, s := range steps {
		size += len(s.Key) + len(s.Match) + len(s.Data)
	}
	if size <= kv.UpdateMax {
		return kv.InlineMax
	}
	return kv.UpdateMax / 2 / len(steps)
}

func refusedSome(list []kv.Outcome) bool {
	return slices.ContainsFunc(list, func(o kv.Outcome) bool { return o.Why != kv.Fine })
}

func (k KV) unstageAll(ctx context.Context, list []kv.Blob) error {
	var errs []error
	for _, b := range list {
		errs = append(errs, k.unstage(ctx, b))
	}
	return errors.Join(errs...)
}

// Gets returns what is at each of some keys, in order, with the bytes if data says so;
// an entry of version 0 says that there is no value.
func (k KV) Gets(ctx context.Context, table string, keys []string, data bool) (list []kv.Entry, err error) {
	list = make([]kv.Entry, 0, len(keys))
	for len(keys) > 0 {
		var reply kv.Found
		req := kv.Gets{Table: table, Keys: keys[:min(len(keys), kv.ListMax)], Data: data}
		if err := k.Caller.Call(ctx, kv.OpGets, req, &reply); err != nil {
			return nil, err
		}
		for _, e := range reply.Entries {
			if data && e.Blob != nil {
				if e, err = k.Get(ctx, table, e.Key); errors.Is(err, meta.NotExist) {
					e = kv.Entry{Key: e.Key}
				} else if err != nil {
					return nil, err
				}
			}
			list = append(list, e)
		}
		keys = keys[len(reply.Entries):]
	}
	return list, nil
}
