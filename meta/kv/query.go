package kv

import (
	"encoding/binary"
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

func splitKey(row string) (table, key string) {
	table, key, _ = strings.Cut(row, "\x00")
	return table, key
}

func readNumber(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

func get(r state.Reader, req Get) (Entry, error) {
	t, err := loadTable(r, req.Table)
	if err != nil {
		return Entry{}, err
	}
	if err := checkKey(req.Key); err != nil {
		return Entry{}, err
	}
	for _, key := range []string{req.Key, req.Key + "/"} {
		if e, is := load[Entry](r, valueKey(req.Table, key)); is {
			e.Key = key
			if !req.Data {
				e.Data = nil
			}
			return e, nil
		}
		if isDir(key) && below(r, req.Table, key) {
			return implied(t, key), nil
		}
		if isDir(key) {
			break
		}
	}
	for i, c := range []byte(strings.TrimSuffix(req.Key, "/")) {
		if _, is := r.Get(valueKey(req.Table, req.Key[:i])); c == '/' && is {
			return Entry{}, meta.NotDir
		}
	}
	return Entry{}, meta.NotExist
}

// implied is a directory that nobody made: it is as its table is.
func implied(t Table, key string) Entry {
	return Entry{Key: key, Dir: true, UID: t.UID, GID: t.GID, Mode: t.Mode, Mtime: t.Mtime}
}

func scan(r state.Reader, req Scan) (Scanned, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return Scanned{}, err
	}
	if _, err := loadTable(r, req.Table); err != nil {
		return Scanned{}, err
	}
	to := valueKey(req.Table, req.To)
	if req.To == "" {
		to = state.After(valueKey(req.Table, ""))
	}
	count, _ := load[counters](r, counterKey)
	reply := Scanned{Rev: count.Rev}
	size := 0
	for k, val := range r.Scan(valueKey(req.Table, req.From), to) {
		_, key := splitKey(string(k[len(values7):]))
		if isDir(key) {
			continue
		}
		var e Entry
		state.MustUnmarshal(val, &e)
		e.Key = key
		if !req.Data {
			e.Data = nil
		}
		size += len(key) + len(e.Data)
		if len(reply.Entries) == limit || size > answerMax && len(reply.Entries) > 0 {
			reply.More = true
			break
		}
		reply.Entries = append(reply.Entries, e)
	}
	return reply, nil
}

func list(r state.Reader, req List) (Scanned, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return Scanned{}, err
	}
	t, err := loadTable(r, req.Table)
	if err != nil {
		return Scanned{}, err
	}
	var reply Scanned
	prefix := valueKey(req.Table, req.Dir)
	from, end := append(prefix[:len(prefix):len(prefix)], 0), state.After(prefix)
	if req.Dir == "" {
		from = prefix
	}
	if req.After != "" {
		from = past(req.Table, req.After)
	}
	// One key of each directory is looked at, and the rest is passed over.
	for {
		key, val, found := first(r, from, end)
		if !found {
			return reply, nil
		}
		if len(reply.Entries) == limit {
			reply.More = true
			return reply, nil
		}
		e := Entry{}
		if name, _, in := strings.Cut(key[len(req.Dir):], "/"); in {
			dir := req.Dir + name + "/"
			if e, in = load[Entry](r, valueKey(req.Table, dir)); !in {
				e = implied(t, dir)
			}
			e.Key = dir
		} else {
			state.MustUnmarshal(val, &e)
			e.Key, e.Data = key, nil
		}
		reply.Entries = append(reply.Entries, e)
		from = past(req.Table, e.Key)
	}
}

// past is the first row after a key and, of a directory, after all that is below it.
func past(table, key string) []byte {
	row := valueKey(table, key)
	if isDir(key) {
		return state.After(row)
	}
	return append(row, 0)
}

func first(r state.Reader, from, to []byte) (key string, val []byte, ok bool) {
	for k, v := range r.Scan(from, to) {
		_, key = splitKey(string(k[len(values7):]))
		return key, v, true
	}
	return "", nil, false
}

func follow(r state.Reader, req Follow) (Changes, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return Changes{}, err
	}
	if _, err := loadTable(r, req.Table); err != nil {
		return Changes{}, err
	}
	count, _ := load[counters](r, counterKey)
	switch {
	case req.After > count.Rev:
		return Changes{}, fmt.Errorf("revision %d is yet to come, the last is %d: %w", req.After, count.Rev, meta.Invalid)
	case req.After+FeedMax < count.Rev:
		return Changes{}, fmt.Errorf("changes after revision %d are not kept any more, the oldest is %d: %w", req.After, count.Rev-FeedMax+1, meta.Conflict)
	}
	reply := Changes{Rev: count.Rev}
	for _, val := range r.Scan(number(feed7, req.After+1), state.After([]byte(feed7))) {
		var c Change
		state.MustUnmarshal(val, &c)
		if c.Table != req.Table {
			continue
		}
		reply.Changes = append(reply.Changes, c)
		if len(reply.Changes) == limit {
			reply.Rev = c.Rev
			break
		}
	}
	return reply, nil
}

func due(r state.Reader, _ none) (Due, error) {
	for k := range r.Scan([]byte(expires7), state.After([]byte(expires7))) {
		return Due{meta.Time(readNumber(k[len(expires7):]))}, nil
	}
	return Due{}, nil
}
