// Package call is who serves which calls. A service has a name, an owner and a mode,
// and settings for who calls it; it has instances, each of which is in a process that
// can be given calls. The calls themselves are not here: they go from who calls to who
// serves (package exchange), and no command is made of them.
//
// An instance belongs to the session that joined, and ends with it or when it leaves.
// It says at which machine's exchange it waits for calls.
//
// # Rows
//
// Numbers are big-endian, values CBOR.
//
//	"ac"                      counters
//	"an" name                 service
//	"ai" service(8) number(8) Instance
//	"as" session(8) number(8) the service's name: an instance of the session
package call

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpMake   state.Op = 0x0b00 // Make → nothing
	OpRemove state.Op = 0x0b01 // Named → nothing
	OpSet    state.Op = 0x0b02 // Set → nothing
	OpJoin   state.Op = 0x0b03 // Join → Joined
	OpLeave  state.Op = 0x0b04 // Leave → nothing

	OpList   state.Op = 0x0b40 // List → Names
	OpStatus state.Op = 0x0b41 // Named → Status
)

// Limits of this room. What is over one is meta.Quota, or meta.TooLarge.
const (
	NameMax     = 255  // bytes of a service's name
	TextMax     = 255  // bytes of a node, an address, a target or a command
	ServicesMax = 4096 // services there are
	// InstancesMax bounds the instances of a service, and so the answer about it.
	InstancesMax = 256
	ListMax      = 1024
	TimeoutMin   = time.Millisecond
	TimeoutMax   = 24 * time.Hour
	RetriesMax   = 100
)

// What a new service has.
const (
	TimeoutDefault = 30 * time.Second
	RetriesDefault = 3
)

// Balance is how one of several instances is picked.
type Balance uint8

const (
	LeastBusy  Balance = iota // with the fewest calls under way
	RoundRobin                // one after the other
	Random
)

// Balances are the words for them, in order.
var Balances = []string{"least-busy", "round-robin", "random"}

// Settings are for who calls a service.
type Settings struct {
	Balance Balance `cbor:"1,keyasint,omitempty"`
	// Timeout bounds each wait of a call: to be taken, for the reply to begin, and for
	// it to go on.
	Timeout time.Duration `cbor:"2,keyasint,omitempty"`
	// Retries is how often a call that was certainly not begun is tried again.
	Retries int `cbor:"3,keyasint,omitempty"`
}

// Make makes a service.
type Make struct {
	Name string `cbor:"1,keyasint,omitempty"`
	UID  uint32 `cbor:"2,keyasint,omitempty"`
	GID  uint32 `cbor:"3,keyasint,omitempty"`
	Mode uint32 `cbor:"4,keyasint,omitempty"`
}

// Named names a service. As OpRemove it is meta.Busy while it has instances.
type Named struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

// Set changes what is not nil.
type Set struct {
	Name    string         `cbor:"1,keyasint,omitempty"`
	UID     *uint32        `cbor:"2,keyasint,omitempty"`
	GID     *uint32        `cbor:"3,keyasint,omitempty"`
	Mode    *uint32        `cbor:"4,keyasint,omitempty"`
	Balance *Balance       `cbor:"5,keyasint,omitempty"`
	Timeout *time.Duration `cbor:"6,keyasint,omitempty"`
	Retries *int           `cbor:"7,keyasint,omitempty"`
}

// Join makes an instance of the session of the command or, with Instance.Number, says
// of one that the session has where it waits now.
type Join struct {
	Name     string   `cbor:"1,keyasint,omitempty"`
	Instance Instance `cbor:"2,keyasint,omitempty"`
}

// Joined answers Join.
type Joined struct {
	Number uint64 `cbor:"1,keyasint,omitempty"` // never used twice
}

// Leave ends an instance of the session of the command. One that is not there is no
// error.
type Leave struct {
	Number uint64 `cbor:"1,keyasint,omitempty"`
}

// An Instance is a process that serves.
type Instance struct {
	Number  uint64         `cbor:"1,keyasint,omitempty"`
	Session meta.SessionID `cbor:"2,keyasint,omitempty"`
	// At is the machine whose exchange has the calls for it, and Addr where that is
	// reached, HOST:PORT; empty where there is one process.
	At   string `cbor:"3,keyasint,omitempty"`
	Addr string `cbor:"4,keyasint,omitempty"`
	// For people: the machine it runs on, who and what it is, and what it passes calls
	// on to, if it does.
	Node   string    `cbor:"5,keyasint,omitempty"`
	UID    uint32    `cbor:"6,keyasint,omitempty"`
	PID    uint32    `cbor:"7,keyasint,omitempty"`
	Target string    `cbor:"8,keyasint,omitempty"`
	Since  meta.Time `cbor:"9,keyasint,omitempty"`
}

// List asks for at most Limit names after one.
type List struct {
	After string `cbor:"1,keyasint,omitempty"`
	Limit int    `cbor:"2,keyasint,omitempty"`
}

// Names answers List, in order.
type Names struct {
	Services []Service `cbor:"1,keyasint,omitempty"`
	More     bool      `cbor:"2,keyasint,omitempty"`
}

// A Service is what a service says of itself.
type Service struct {
	Name     string    `cbor:"1,keyasint,omitempty"`
	ID       uint64    `cbor:"2,keyasint,omitempty"` // tells it from one that had the name before
	UID      uint32    `cbor:"3,keyasint,omitempty"`
	GID      uint32    `cbor:"4,keyasint,omitempty"`
	Mode     uint32    `cbor:"5,keyasint,omitempty"`
	Settings Settings  `cbor:"6,keyasint,omitempty"`
	Changed  meta.Time `cbor:"7,keyasint,omitempty"`
	Count    int       `cbor:"8,keyasint,omitempty"` // of its instances
}

// Status describes a service, with its instances in the order in which they joined.
type Status struct {
	Service   Service    `cbor:"1,keyasint,omitempty"`
	Instances []Instance `cbor:"2,keyasint,omitempty"`
}

// counters is the row "ac".
type counters struct {
	Last     uint64 `cbor:"1,keyasint,omitempty"` // number given out, to a service or an instance
	Services int    `cbor:"2,keyasint,omitempty"`
}

// service is a row "an".
type service = Service

var counterKey = []byte("ac")

func nameKey(name string) []byte { return append([]byte("an"), name...) }

func numbers(table string, a, b uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte(table), a), b)
}

func instanceKey(service, number uint64) []byte { return numbers("ai", service, number) }

func sessionKey(s meta.SessionID, number uint64) []byte { return numbers("as", uint64(s), number) }

// prefix is the range of rows of a table with one number.
func prefix(table string, n uint64) (from, to []byte) {
	from = binary.BigEndian.AppendUint64([]byte(table), n)
	return from, state.After(from)
}

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpMake, "call.make", makeService)
	state.Handle(m, OpRemove, "call.remove", removeService)
	state.Handle(m, OpSet, "call.set", set)
	state.Handle(m, OpJoin, "call.join", join)
	state.Handle(m, OpLeave, "call.leave", leave)
	state.Query(m, OpList, "call.list", list)
	state.Query(m, OpStatus, "call.status", status)
}

type none = struct{}

// Valid refuses what is not a name of a service.
func Valid(name string) error {
	switch {
	case name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("service %q: %w", name, meta.Invalid)
	case len(name) > NameMax:
		return fmt.Errorf("a service's name of %d bytes: %w", len(name), meta.NameTooLong)
	}
	return nil
}

func find(r state.Reader, name string) (s service, err error) {
	b, ok := r.Get(nameKey(name))
	if !ok {
		return s, fmt.Errorf("service %q: %w", name, meta.NotExist)
	}
	state.MustUnmarshal(b, &s)
	return s, nil
}

func count(r state.Reader) (c counters) {
	if b, ok := r.Get(counterKey); ok {
		state.MustUnmarshal(b, &c)
	}
	return c
}

func makeService(tx *state.Tx, req Make) (none, error) {
	if err := Valid(req.Name); err != nil {
		return none{}, err
	}
	if _, ok := tx.Get(nameKey(req.Name)); ok {
		return none{}, meta.Exist
	}
	c := count(tx)
	if c.Services >= ServicesMax {
		return none{}, fmt.Errorf("there are %d services: %w", c.Services, meta.Quota)
	}
	c.Services++
	c.Last++
	tx.Set(counterKey, state.Marshal(c))
	tx.Set(nameKey(req.Name), state.Marshal(service{
		Name: req.Name, ID: c.Last, UID: req.UID, GID: req.GID, Mode: req.Mode & 0o7777, Changed: meta.At(tx.Now),
		Settings: Settings{Timeout: TimeoutDefault, Retries: RetriesDefault},
	}))
	return none{}, nil
}

func removeService(tx *state.Tx, req Named) (none, error) {
	s, err := find(tx, req.Name)
	if err != nil {
		return none{}, err
	}
	if s.Count > 0 {
		return none{}, fmt.Errorf("service %q has %d instances: %w", s.Name, s.Count, meta.Busy)
	}
	c := count(tx)
	c.Services--
	tx.Set(counterKey, state.Marshal(c))
	tx.Delete(nameKey(req.Name))
	return none{}, nil
}

func set(tx *state.Tx, req Set) (none, error) {
	s, err := find(tx, req.Name)
	if err != nil {
		return none{}, err
	}
	assign(&s.UID, req.UID)
	assign(&s.GID, req.GID)
	assign(&s.Mode, req.Mode)
	assign(&s.Settings.Balance, req.Balance)
	assign(&s.Settings.Timeout, req.Timeout)
	assign(&s.Settings.Retries, req.Retries)
	switch o := s.Settings; {
	case s.Mode > 0o7777, int(o.Balance) >= len(Balances):
		return none{}, fmt.Errorf("mode %o, balance %d: %w", s.Mode, o.Balance, meta.Invalid)
	case o.Timeout < TimeoutMin || o.Timeout > TimeoutMax:
		return none{}, fmt.Errorf("a timeout of %v, not %v to %v: %w", o.Timeout, TimeoutMin, TimeoutMax, meta.Invalid)
	case o.Retries < 0 || o.Retries > RetriesMax:
		return none{}, fmt.Errorf("%d retries, not 0 to %d: %w", o.Retries, RetriesMax, meta.Invalid)
	}
	s.Changed = meta.At(tx.Now)
	tx.Set(nameKey(s.Name), state.Marshal(s))
	return none{}, nil
}

func assign[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func join(tx *state.Tx, req Join) (Joined, error) {
	s, err := find(tx, req.Name)
	if err != nil {
		return Joined{}, err
	}
	in := req.Instance
	for _, text := range []string{in.At, in.Addr, in.Node, in.Target} {
		if len(text) > TextMax || strings.ContainsAny(text, "\n\x00") {
			return Joined{}, fmt.Errorf("%.80q of an instance: %w", text, meta.Invalid)
		}
	}
	if tx.Session == 0 {
		return Joined{}, fmt.Errorf("an instance without a session: %w", meta.Invalid)
	}
	in.Session, in.Since = tx.Session, meta.At(tx.Now)
	if in.Number != 0 {
		b, ok := tx.Get(instanceKey(s.ID, in.Number))
		var was Instance
		if ok {
			state.MustUnmarshal(b, &was)
		}
		if was.Session != tx.Session {
			return Joined{}, fmt.Errorf("service %q: instance %d: %w", s.Name, in.Number, meta.NotExist)
		}
		in.Since = was.Since
		tx.Set(instanceKey(s.ID, in.Number), state.Marshal(in))
		return Joined{in.Number}, nil
	}
	if s.Count >= InstancesMax {
		return Joined{}, fmt.Errorf("service %q has %d instances: %w", s.Name, s.Count, meta.Quota)
	}
	c := count(tx)
	c.Last++
	s.Count++
	in.Number = c.Last
	tx.Set(counterKey, state.Marshal(c))
	tx.Set(nameKey(s.Name), state.Marshal(s))
	tx.Set(instanceKey(s.ID, in.Number), state.Marshal(in))
	tx.Set(sessionKey(in.Session, in.Number), []byte(s.Name))
	return Joined{in.Number}, nil
}

func leave(tx *state.Tx, req Leave) (none, error) {
	if name, ok := tx.Get(sessionKey(tx.Session, req.Number)); ok {
		remove(tx, tx.Session, req.Number, string(name))
	}
	return none{}, nil
}

// remove ends an instance.
func remove(tx *state.Tx, of meta.SessionID, number uint64, name string) {
	s, err := find(tx, name)
	if err != nil {
		panic(fmt.Sprintf("call: service %q has instance %d and is not there", name, number))
	}
	s.Count--
	tx.Set(nameKey(name), state.Marshal(s))
	tx.Delete(instanceKey(s.ID, number))
	tx.Delete(sessionKey(of, number))
}

// Release ends at most limit instances of a session that has ended; it is a
// session.Release.
func Release(tx *state.Tx, s meta.SessionID, limit int) (n int, more bool) {
	type one struct {
		number uint64
		name   string
	}
	var list []one
	from, to := prefix("as", uint64(s))
	for k, name := range tx.Scan(from, to) {
		if len(list) == limit {
			more = true
			break
		}
		list = append(list, one{binary.BigEndian.Uint64(k[len(k)-8:]), string(name)})
	}
	for _, each := range list {
		remove(tx, s, each.number, each.name)
	}
	return len(list), more
}

func list(r state.Reader, req List) (Names, error) {
	if req.Limit < 1 {
		return Names{}, fmt.Errorf("limit %d: %w", req.Limit, meta.Invalid)
	}
	limit := min(req.Limit, ListMax)
	var reply Names
	for _, val := range r.Scan(append(nameKey(req.After), 0), state.After([]byte("an"))) {
		if len(reply.Services) == limit {
			reply.More = true
			break
		}
		var s service
		state.MustUnmarshal(val, &s)
		reply.Services = append(reply.Services, s)
	}
	return reply, nil
}

func status(r state.Reader, req Named) (Status, error) {
	s, err := find(r, req.Name)
	if err != nil {
		return Status{}, err
	}
	reply := Status{Service: s}
	from, to := prefix("ai", s.ID)
	for _, val := range r.Scan(from, to) {
		var in Instance
		state.MustUnmarshal(val, &in)
		reply.Instances = append(reply.Instances, in)
	}
	return reply, nil
}

// Instance returns one by its number.
func (s Status) Instance(number uint64) (Instance, bool) {
	i := slices.IndexFunc(s.Instances, func(in Instance) bool { return in.Number == number })
	if i < 0 {
		return Instance{}, false
	}
	return s.Instances[i], true
}
