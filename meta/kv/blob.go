package kv

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

func stage(tx *state.Tx, req Stage) (none, error) {
	b := Blob{Session: tx.Session, Number: req.Number}
	s, _ := load[staged](tx, blobKey(staged7, b))
	switch {
	case tx.Session == 0:
		return none{}, fmt.Errorf("parts without a session: %w", meta.Invalid)
	case req.Part != s.Parts, s.Size%PartMax != 0, len(req.Data) == 0, len(req.Data) > PartMax:
		return none{}, fmt.Errorf("part %d of %d bytes, after %d parts of %d: %w", req.Part, len(req.Data), s.Parts, s.Size, meta.Invalid)
	case s.Size+len(req.Data) > ValueMax:
		return none{}, fmt.Errorf("%d bytes, at most %d: %w", s.Size+len(req.Data), ValueMax, meta.TooLarge)
	}
	if _, is := tx.Get(partKey(b, req.Part)); is {
		return none{}, fmt.Errorf("number %d names a value already: %w", req.Number, meta.Exist)
	}
	tx.Set(partKey(b, req.Part), req.Data)
	s.Parts++
	s.Size += len(req.Data)
	tx.Set(blobKey(staged7, b), state.Marshal(s))
	return none{}, nil
}

// unstage gives up what was staged and not put.
func unstage(tx *state.Tx, req Blob) (none, error) {
	release(tx, Blob{Session: tx.Session, Number: req.Number})
	return none{}, nil
}

func release(tx *state.Tx, b Blob) (rows int) {
	s, is := load[staged](tx, blobKey(staged7, b))
	if !is {
		return 0
	}
	for part := range s.Parts {
		tx.Delete(partKey(b, part))
	}
	tx.Delete(blobKey(staged7, b))
	return int(s.Parts) + 1
}

// adopt makes what the session has staged a value's.
func adopt(tx *state.Tx, b *Blob) error {
	s, is := load[staged](tx, blobKey(staged7, *b))
	if !is || b.Session != tx.Session || s.Size != b.Size {
		return fmt.Errorf("parts %+v of session %d are not staged so: %w", *b, tx.Session, meta.Invalid)
	}
	tx.Delete(blobKey(staged7, *b))
	return nil
}

// Release gives up at most limit rows that a session staged (session.Release).
func Release(tx *state.Tx, id meta.SessionID, limit int) (n int, more bool) {
	prefix := number(staged7, uint64(id))
	var all []Blob
	for k := range tx.Scan(prefix, state.After(prefix)) {
		all = append(all, Blob{Session: id, Number: readNumber(k[len(prefix):])})
		if len(all) > limit {
			break
		}
	}
	for _, b := range all {
		if n >= limit {
			return n, true
		}
		n += release(tx, b)
	}
	return n, false
}

func part(r state.Reader, req Part) (PartData, error) {
	data, is := r.Get(partKey(req.Blob, req.Part))
	if !is {
		return PartData{}, meta.NotExist
	}
	return PartData{data}, nil
}
