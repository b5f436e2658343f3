package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"dos/meta"
	"dos/meta/kv"
)

// A DB is one database of strings, by their keys as clients say them. Its methods may
// be called concurrently.
type DB interface {
	// Update does steps, in order: all at once if whole says so.
	Update(ctx context.Context, steps []kv.Step, whole bool) ([]kv.Outcome, error)
	// Look returns what is at the keys of steps that look.
	Look(ctx context.Context, steps []kv.Step) ([]kv.Outcome, error)
	// Scan returns up to limit keys from a place on, and the place to go on at: "" at
	// the beginning and the end.
	Scan(ctx context.Context, from string, limit int) (keys []string, next string, err error)
	// Size is how many keys there are.
	Size(ctx context.Context) (int64, error)
	// Clear removes them all.
	Clear(ctx context.Context) error
}

// Values are what database 0 needs (meta/client.KV).
type Values interface {
	Make(ctx context.Context, req kv.Make) error
	Table(ctx context.Context, name string) (kv.Table, error)
	Update(ctx context.Context, req kv.Update) ([]kv.Outcome, error)
	Gets(ctx context.Context, table string, keys []string, data bool) ([]kv.Entry, error)
	Scan(ctx context.Context, req kv.Scan) (kv.Scanned, error)
}

// Table is where the strings of database 0 are, in /dos/kv.
const Table = "redis"

// triesMax bounds how often a value that others change is changed.
const triesMax = 100

// A table is database 0.
type tableDB struct {
	values Values
	uid    uint32
	made   atomic.Bool
}

// NewTable returns the DB of values, whose table will be a user's if it is made.
func NewTable(v Values, uid uint32) DB { return &tableDB{values: v, uid: uid} }

// ready makes the table if there is none. What somebody else made is not used: he
// could read it.
func (t *tableDB) ready(ctx context.Context) error {
	if t.made.Load() {
		return nil
	}
	err := t.values.Make(ctx, kv.Make{Name: Table, UID: t.uid, GID: t.uid, Mode: 0o700})
	if err != nil && !errors.Is(err, meta.Exist) {
		return err
	}
	table, err := t.values.Table(ctx, Table)
	switch {
	case err != nil:
		return err
	case table.UID != t.uid && table.UID != 0:
		return fmt.Errorf("/dos/kv/%s is of user %d: %w", Table, table.UID, meta.Permission)
	}
	t.made.Store(true)
	return nil
}

// again says whether something is to be tried again because somebody removed the table.
func (t *tableDB) again(ctx context.Context, err error) bool {
	if !errors.Is(err, meta.NotExist) || !t.made.Load() {
		return false
	}
	t.made.Store(false)
	return t.ready(ctx) == nil
}

func named(steps []kv.Step) []kv.Step {
	list := make([]kv.Step, len(steps))
	for i, s := range steps {
		s.Key = nameOf(s.Key)
		list[i] = s
	}
	return list
}

func (t *tableDB) Update(ctx context.Context, steps []kv.Step, whole bool) ([]kv.Outcome, error) {
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	req := kv.Update{Table: Table, Steps: named(steps), Whole: whole, UID: t.uid, GID: t.uid, Mode: 0o600}
	got, err := t.values.Update(ctx, req)
	if t.again(ctx, err) {
		got, err = t.values.Update(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	for i, s := range req.Steps {
		if got[i].Why == kv.Parted || s.Tell && got[i].Blob != nil {
			if whole {
				return nil, said("ERR a value of over 128 KiB is read or changed in a transaction")
			}
			if got[i], err = t.apart(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	return got, nil
}

// apart does a step with a value in parts: it reads it, and changes it if it is still
// what was read.
func (t *tableDB) apart(ctx context.Context, s kv.Step) (kv.Outcome, error) {
	for range triesMax {
		list, err := t.values.Gets(ctx, Table, []string{s.Key}, true)
		if err != nil {
			return kv.Outcome{}, err
		}
		old := list[0]
		now := s
		switch {
		case s.Do == kv.Look:
			return outcome(old), nil
		case old.Version != 0 && s.If != kv.Absent, old.Version == 0 && s.If == kv.Always:
			now.If, now.Version, now.Tell = kv.Version, old.Version, false
		}
		if s.Do == kv.Append {
			if old.Size+len(s.Data) > kv.ValueMax {
				return kv.Outcome{Why: kv.TooLong}, nil
			}
			now.Do, now.Data = kv.Write, append(old.Data[:len(old.Data):len(old.Data)], s.Data...)
		}
		got, err := t.values.Update(ctx, kv.Update{Table: Table, Steps: []kv.Step{now}, UID: t.uid, GID: t.uid, Mode: 0o600})
		switch {
		case err != nil:
			return kv.Outcome{}, err
		case got[0].Why == kv.NotSo && now.If == kv.Version && got[0].Version != old.Version, got[0].Why == kv.Parted:
			continue
		}
		got[0].Data = old.Data
		got[0].Number = int64(len(now.Data))
		return got[0], nil
	}
	return kv.Outcome{}, fmt.Errorf("others change %.80q all the time: %w", s.Key, meta.Busy)
}

func outcome(e kv.Entry) kv.Outcome {
	return kv.Outcome{Version: e.Version, Size: e.Size, Expires: e.Expires, Data: e.Data, Now: e.Version}
}

func (t *tableDB) Look(ctx context.Context, steps []kv.Step) ([]kv.Outcome, error) {
	if err := t.ready(ctx); err != nil {
		return nil, err
	}
	keys := make([]string, len(steps))
	tell := false
	for i, s := range steps {
		keys[i] = nameOf(s.Key)
		tell = tell || s.Tell
	}
	list, err := t.values.Gets(ctx, Table, keys, tell)
	if t.again(ctx, err) {
		list, err = t.values.Gets(ctx, Table, keys, tell)
	}
	if err != nil {
		return nil, err
	}
	got := make([]kv.Outcome, len(list))
	for i, e := range list {
		got[i] = outcome(e)
	}
	return got, nil
}

func (t *tableDB) Scan(ctx context.Context, from string, limit int) (keys []string, next string, err error) {
	if err := t.ready(ctx); err != nil {
		return nil, "", err
	}
	reply, err := t.values.Scan(ctx, kv.Scan{Table: Table, From: from, Limit: limit})
	if err != nil {
		return nil, "", err
	}
	for _, e := range reply.Entries {
		if !strings.Contains(e.Key, "/") { // what somebody put there in a directory
			keys = append(keys, keyOf(e.Key))
		}
		next = e.Key + "\x00"
	}
	if !reply.More {
		next = ""
	}
	return keys, next, nil
}

func (t *tableDB) Size(ctx context.Context) (int64, error) {
	if err := t.ready(ctx); err != nil {
		return 0, err
	}
	table, err := t.values.Table(ctx, Table)
	return table.Count, err
}

func (t *tableDB) Clear(ctx context.Context) error {
	for from := ""; ; {
		keys, next, err := t.Scan(ctx, from, kv.StepsMax)
		if err != nil {
			return err
		}
		steps := make([]kv.Step, len(keys))
		for i, key := range keys {
			steps[i] = kv.Step{Do: kv.Remove, Key: key}
		}
		for len(steps) > 0 {
			n, size := 0, 0
			for n < len(steps) && size+len(steps[n].Key)*3 < kv.UpdateMax {
				size += len(steps[n].Key) * 3
				n++
			}
			if _, err := t.Update(ctx, steps[:n], false); err != nil {
				return err
			}
			steps = steps[n:]
		}
		if from = next; from == "" {
			return nil
		}
	}
}
