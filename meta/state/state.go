// Package state is the deterministic heart of the metadata service: a table of
// commands over an ordered key space. It knows nothing of Raft, of Badger, of
// the network or of the clock, so a test drives it with plain function calls
// and every replica that applies the same commands holds the same bytes.
//
// Bodies of commands, replies and rows are CBOR (RFC 8949, core deterministic
// encoding) with small integers as the keys of structures, so that a field can
// be added without a new format: what is unknown is ignored, what is absent is
// zero. A number is never reused for another meaning.
package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"dos/meta"
)

// An Op is the number of a command or a query. It is never reused; each service
// has a range of 256, and a golden file lists them all.
type Op uint16

// A Command is one request to change the state, as it stands in the log.
type Command struct {
	Op      Op             `cbor:"1,keyasint,omitempty"`
	Time    int64          `cbor:"2,keyasint,omitempty"` // the leader's clock when it proposed the command, in ns since 1970
	Session meta.SessionID `cbor:"3,keyasint,omitempty"` // on whose behalf
	// Slot and Seq make a request that may be sent twice be executed once, as in
	// NFSv4.1 (RFC 8881 §2.10.6). Seq 0: it is sent only once.
	Slot uint16 `cbor:"4,keyasint,omitempty"`
	Seq  uint64 `cbor:"5,keyasint,omitempty"`
	Body []byte `cbor:"6,keyasint,omitempty"`
}

// A Reply is what applying a command said, the same on every replica.
type Reply struct {
	Kind meta.Kind `cbor:"1,keyasint,omitempty"` // zero on success
	Text string    `cbor:"2,keyasint,omitempty"` // of the error
	Body []byte    `cbor:"3,keyasint,omitempty"` // the answer; of an error its detail, if it has one
}

// Err returns the error that the reply carries. errors.Is finds its kind.
func (r Reply) Err() error {
	switch {
	case r.Kind == 0:
		return nil
	case r.Text == "":
		return r.Kind
	}
	return remote{r.Kind, r.Text}
}

// remote is an error that came in a reply: its text is complete already.
type remote struct {
	kind meta.Kind
	text string
}

func (e remote) Error() string { return e.text }
func (e remote) Unwrap() error { return e.kind }

// A Tx is what a command sees: the store, who asks, and what time it is.
// Handlers take the time from here and nowhere else. If the handler fails,
// what it wrote is undone.
type Tx struct {
	Now     time.Time
	Session meta.SessionID

	store Store
	undo  []undo
	fault error // a row over the limits; the command fails with it
}

type undo struct {
	key, val []byte
	had      bool
}

// Get returns the value of key. It stays valid and must not be modified.
func (tx *Tx) Get(key []byte) ([]byte, bool) { return tx.store.Get(key) }

// Scan is Reader.Scan. A handler may write while it scans; the scan sees what it
// does to keys further on.
func (tx *Tx) Scan(from, to []byte) Seq { return tx.store.Scan(from, to) }

// Set puts val at key; both must not be modified afterwards. A row over the
// limits makes the command fail with TooLarge, whatever the handler returns.
func (tx *Tx) Set(key, val []byte) {
	if len(key) == 0 || len(key) > MaxKey || len(val) > MaxValue {
		if tx.fault == nil {
			tx.fault = fmt.Errorf("row with a key of %d and a value of %d bytes: %w", len(key), len(val), meta.TooLarge)
		}
		return
	}
	tx.remember(key)
	tx.store.Set(key, val)
}

// Delete removes key.
func (tx *Tx) Delete(key []byte) {
	tx.remember(key)
	tx.store.Delete(key)
}

func (tx *Tx) remember(key []byte) {
	old, had := tx.store.Get(key)
	tx.undo = append(tx.undo, undo{key, old, had})
}

func (tx *Tx) rollback() {
	for _, u := range slices.Backward(tx.undo) {
		if u.had {
			tx.store.Set(u.key, u.val)
		} else {
			tx.store.Delete(u.key)
		}
	}
	tx.undo = nil
}

// A Machine is a table of commands and queries. Fill it with Handle and Query
// before the first Apply.
type Machine struct {
	commands map[Op]command
	queries  map[Op]query
	names    map[Op]string
	adds     map[Op]func(body []byte) bool
	guard    func(Reader, meta.SessionID) error
}

type command func(tx *Tx, body []byte) ([]byte, error)
type query func(r Reader, s meta.SessionID, body []byte) ([]byte, error)

// Handle makes fn the meaning of the command op. It panics if op already has one.
func Handle[Req, Resp any](m *Machine, op Op, name string, fn func(*Tx, Req) (Resp, error)) {
	m.take(op, name)
	m.commands[op] = func(tx *Tx, body []byte) ([]byte, error) {
		return call(body, func(req Req) (Resp, error) { return fn(tx, req) })
	}
}

// Query makes fn the answer to op. Queries change nothing and are not in the log.
func Query[Req, Resp any](m *Machine, op Op, name string, fn func(Reader, Req) (Resp, error)) {
	QueryBy(m, op, name, func(r Reader, _ meta.SessionID, req Req) (Resp, error) { return fn(r, req) })
}

// QueryBy is Query where the answer depends on which session asks.
func QueryBy[Req, Resp any](m *Machine, op Op, name string, fn func(Reader, meta.SessionID, Req) (Resp, error)) {
	m.take(op, name)
	m.queries[op] = func(r Reader, s meta.SessionID, body []byte) ([]byte, error) {
		return call(body, func(req Req) (Resp, error) { return fn(r, s, req) })
	}
}

// Guard makes fn decide whether a session may still have commands executed. It
// is asked before each one that carries a session. What it refuses changes
// nothing, and the refusal is not kept. It panics if there is a guard already.
func (m *Machine) Guard(fn func(Reader, meta.SessionID) error) {
	if m.guard != nil {
		panic("state: two guards")
	}
	m.guard = fn
}

// Adds says that a command makes the state grow if fn, which is not nil, says so
// of its request. A replica whose disk is nearly full refuses such commands while
// it still executes the others, which give room back, end things, or change them
// in place.
func Adds[Req any](m *Machine, op Op, fn func(Req) bool) {
	if m.adds == nil {
		m.adds = make(map[Op]func([]byte) bool)
	}
	m.adds[op] = func(body []byte) bool {
		var req Req
		return Unmarshal(body, &req) == nil && fn(req) // what does not decode changes nothing
	}
}

// Adds reports whether cmd makes the state grow.
func (m *Machine) Adds(cmd Command) bool {
	adds := m.adds[cmd.Op]
	return adds != nil && adds(cmd.Body)
}

// admit returns why cmd may not be executed, nil if it may.
func (m *Machine) admit(r Reader, cmd Command) error {
	if m.guard == nil || cmd.Session == 0 {
		return nil
	}
	return m.guard(r, cmd.Session)
}

func call[Req, Resp any](body []byte, fn func(Req) (Resp, error)) ([]byte, error) {
	var req Req
	if Unmarshal(body, &req) != nil {
		// The decoder's own words may change with its version, and replies are
		// the same on every replica.
		return nil, fmt.Errorf("the request does not decode: %w", meta.Invalid)
	}
	resp, err := fn(req)
	if err != nil {
		return nil, err
	}
	return Marshal(resp), nil
}

func (m *Machine) take(op Op, name string) {
	if old, dup := m.names[op]; dup {
		panic(fmt.Sprintf("state: op %#04x is both %s and %s", op, old, name))
	}
	if m.names == nil {
		m.names = make(map[Op]string)
		m.commands = make(map[Op]command)
		m.queries = make(map[Op]query)
	}
	m.names[op] = name
}

// Ops lists every op with its name, in order of the numbers.
func (m *Machine) Ops() []string {
	var list []string
	for _, op := range slices.Sorted(maps.Keys(m.names)) {
		kind := "command"
		if m.IsQuery(op) {
			kind = "query"
		}
		list = append(list, fmt.Sprintf("%#04x %s %s", uint16(op), kind, m.names[op]))
	}
	return list
}

// IsQuery reports whether op is a query.
func (m *Machine) IsQuery(op Op) bool { _, ok := m.queries[op]; return ok }

// IsCommand reports whether op is a command.
func (m *Machine) IsCommand(op Op) bool { _, ok := m.commands[op]; return ok }

// Apply runs cmd against s. If it fails, s is as it was. An op nobody handles
// is a newer cluster's: the replica must not guess, so it panics. Whoever
// proposes checks IsCommand first.
func (m *Machine) Apply(s Store, cmd Command) Reply {
	run, ok := m.commands[cmd.Op]
	if !ok {
		panic(fmt.Sprintf("state: unknown command %#04x in the log", uint16(cmd.Op)))
	}
	if err := m.admit(s, cmd); err != nil {
		return m.reply(cmd.Op, nil, err)
	}
	if cmd.Seq != 0 {
		if reply, done := recall(s, cmd); done {
			return reply
		}
	}
	tx := &Tx{Now: time.Unix(0, cmd.Time), Session: cmd.Session, store: s}
	body, err := run(tx, cmd.Body)
	switch {
	case tx.fault != nil:
		err = tx.fault
	case err == nil && cmd.Seq != 0 && len(body) > MaxValue-keptOverhead:
		err = fmt.Errorf("reply of %d bytes cannot be kept: %w", len(body), meta.TooLarge)
	}
	if err != nil {
		tx.rollback()
	}
	reply := m.reply(cmd.Op, body, err)
	// A command that ended its own session has no slot any more to keep it in. One
	// that a lease was in the way of will be executed when it comes again.
	if cmd.Seq != 0 && reply.Kind != meta.Leased && m.admit(s, cmd) == nil {
		keep(s, cmd, reply)
	}
	return reply
}

// Answer runs a query against r. Of q only the op, the session and the body
// matter; the session is not asked whether it has ended.
func (m *Machine) Answer(r Reader, q Command) Reply {
	run, ok := m.queries[q.Op]
	if !ok {
		return Reply{Kind: meta.Unsupported, Text: fmt.Sprintf("unknown operation %#04x", uint16(q.Op))}
	}
	out, err := run(r, q.Session, q.Body)
	return m.reply(q.Op, out, err)
}

// maxText bounds the text of an error in a reply, which may be kept.
const maxText = 1 << 10

func (m *Machine) reply(op Op, body []byte, err error) Reply {
	if err == nil {
		return Reply{Body: body}
	}
	var kind meta.Kind
	if !errors.As(err, &kind) {
		panic(fmt.Sprintf("state: %s failed without a kind: %v", m.names[op], err))
	}
	if err == error(kind) {
		return Reply{Kind: kind}
	}
	text := m.names[op] + ": " + err.Error()
	reply := Reply{Kind: kind, Text: text[:min(len(text), maxText)]}
	var detailed interface{ Detail() []byte }
	if errors.As(err, &detailed) {
		reply.Body = detailed.Detail()
	}
	return reply
}
