package kv

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// Limits of an Update. Its data must fit an entry of the log, its answer a row.
const (
	StepsMax  = 256
	UpdateMax = 256 << 10 // bytes of all keys and data
	tellMax   = 256 << 10 // bytes of data in the answer
)

// Update does steps on values of one table, in order, in one command. What a step
// finds that is not as it must be is said in its Outcome, and the next step follows;
// an error undoes all steps.
type Update struct {
	Table string `cbor:"1,keyasint,omitempty"`
	Steps []Step `cbor:"2,keyasint,omitempty"`
	// Whole says that an answer with fewer outcomes will not do: meta.TooLarge then.
	Whole bool `cbor:"3,keyasint,omitempty"`
	// Of values that are made.
	UID  uint32 `cbor:"4,keyasint,omitempty"`
	GID  uint32 `cbor:"5,keyasint,omitempty"`
	Mode uint32 `cbor:"6,keyasint,omitempty"`
}

// Updated answers Update. There may be fewer outcomes than steps, and at least one,
// when what they tell is large and Whole is not said: steps without one were not done.
type Updated struct {
	Outcomes []Outcome `cbor:"1,keyasint,omitempty"`
}

// What a step does.
type Act uint8

const (
	Look   Act = iota
	Write      // Data, or Blob, is the value
	Remove     // the value goes
	Time       // the time to live is another
	Add        // Number is added to a value that is a decimal number; none is 0
	Append     // Data goes to the end of the value; none is empty
)

// If says when a step is done.
type If uint8

const (
	Always  If = iota
	Absent     // there is no value
	Present    // there is one
	Equal      // it is Match
	Version    // it has that version; 0: there is none
	Prefix     // it begins with Match
)

// A Clock says what becomes of the time to live that a value has.
type Clock uint8

const (
	Anew Clock = iota // it is TTL from now on; 0: the value stays
	Keep              // it goes on; a new value gets what its table says
	More              // it is TTL longer
)

// An Alarm says when a step is done, by the time to live that the value has. To have
// none is to live longest.
type Alarm uint8

const (
	Whenever Alarm = iota
	Unset          // it has none
	Ticking        // it has one
	Later          // the new one ends later
	Sooner         // the new one ends sooner
)

// A Step is what is to be done with one value.
type Step struct {
	Do      Act           `cbor:"1,keyasint,omitempty"`
	Key     string        `cbor:"2,keyasint,omitempty"`
	Data    []byte        `cbor:"3,keyasint,omitempty"`
	Blob    *Blob         `cbor:"4,keyasint,omitempty"`
	If      If            `cbor:"5,keyasint,omitempty"`
	Match   []byte        `cbor:"6,keyasint,omitempty"`
	Version uint64        `cbor:"7,keyasint,omitempty"`
	Alarm   Alarm         `cbor:"8,keyasint,omitempty"`
	Clock   Clock         `cbor:"9,keyasint,omitempty"`
	TTL     time.Duration `cbor:"10,keyasint,omitempty"`
	Number  int64         `cbor:"11,keyasint,omitempty"`
	Tell    bool          `cbor:"12,keyasint,omitempty"` // the outcome has the bytes that were there
	Must    bool          `cbor:"13,keyasint,omitempty"` // if its condition does not hold all is undone: meta.Conflict
}

// Why says why a step was not done.
type Why uint8

const (
	Fine      Why = iota
	NotSo         // its condition does not hold
	NoNumber      // the value is no decimal number of 64 bits
	Overflows     // the sum is none
	TooLong       // the value would be larger than ValueMax
	Parted        // the value is, or would be, in parts: read it, and put it anew if it is of that version
)

// An Outcome is what a step found and did.
type Outcome struct {
	Why     Why       `cbor:"1,keyasint,omitempty"` // Fine: it was done
	Version uint64    `cbor:"2,keyasint,omitempty"` // of the value that was there; 0: none
	Size    int       `cbor:"3,keyasint,omitempty"` // of it, in bytes
	Expires meta.Time `cbor:"4,keyasint,omitempty"` // when it would have gone
	Data    []byte    `cbor:"5,keyasint,omitempty"`
	Blob    *Blob     `cbor:"6,keyasint,omitempty"`
	Number  int64     `cbor:"7,keyasint,omitempty"` // the sum; of Append the size
	Now     uint64    `cbor:"8,keyasint,omitempty"` // the version that is there now
}

func update(tx *state.Tx, req Update) (Updated, error) {
	if err := checkUpdate(req); err != nil {
		return Updated{}, err
	}
	c, err := begin(tx, req.Table)
	if err != nil {
		return Updated{}, err
	}
	var reply Updated
	told := 0
	for i, s := range req.Steps {
		if told > tellMax {
			if req.Whole {
				return Updated{}, fmt.Errorf("the answer to step %d would be over %d bytes: %w", i, tellMax, meta.TooLarge)
			}
			break
		}
		out, err := c.step(s, value{UID: req.UID, GID: req.GID, Mode: req.Mode & 0o7777})
		switch {
		case err != nil:
			return Updated{}, fmt.Errorf("step %d: %w", i, err)
		case s.Must && out.Why == NotSo:
			return Updated{}, fmt.Errorf("step %d, %.80q is otherwise: %w", i, s.Key, meta.Conflict)
		}
		told += len(out.Data)
		reply.Outcomes = append(reply.Outcomes, out)
	}
	c.done()
	return reply, nil
}

func checkUpdate(req Update) error {
	if len(req.Steps) == 0 || len(req.Steps) > StepsMax {
		return fmt.Errorf("%d steps, 1 to %d: %w", len(req.Steps), StepsMax, meta.Invalid)
	}
	size := 0
	for i, s := range req.Steps {
		size += len(s.Key) + len(s.Data) + len(s.Match)
		if err := checkKey(s.Key); err != nil {
			return err
		}
		ok := s.Do <= Append && s.If <= Prefix && s.Clock <= More && s.Alarm <= Sooner && !isDir(s.Key) &&
			s.TTL >= 0 && s.TTL <= ttlMax && len(s.Data) <= InlineMax && (s.Blob == nil || len(s.Data) == 0 && s.Do == Write)
		if !ok {
			return fmt.Errorf("step %d, of %.80q, makes no sense: %w", i, s.Key, meta.Invalid)
		}
	}
	if size > UpdateMax {
		return fmt.Errorf("%d bytes, at most %d: %w", size, UpdateMax, meta.TooLarge)
	}
	return nil
}

// step does a step. A new value is as like says.
func (c *change) step(s Step, like value) (Outcome, error) {
	old, was, _ := c.at(s.Key, nil)
	if was && old.Expires != 0 && old.Expires <= meta.At(c.tx.Now) { // Expire is late
		c.take(s.Key, old, false)
		c.record(WasExpired, s.Key, 0)
		old, was = value{}, false
	}
	out := Outcome{Version: old.Version, Size: old.Size, Expires: old.Expires, Now: old.Version}
	if s.Tell {
		out.Data, out.Blob = old.Data, old.Blob
	}
	if !s.holds(old, was) || !s.timely(old, c.tx.Now) {
		out.Why = NotSo
		return out, nil
	}
	if s.Tell && old.Blob != nil && s.Do != Look { // its parts would be gone before they are read
		out.Why = Parted
		return out, nil
	}
	v, remains := like, false // remains: the parts of the old value are the new one's
	if was {
		v = old
	} else {
		v.TTL = c.table.TTL
	}
	switch s.Do {
	case Look:
		return out, nil
	case Remove:
		if !was {
			out.Why = NotSo
			return out, nil
		}
		c.take(s.Key, old, false)
		c.record(WasDeleted, s.Key, 0)
		out.Now = 0
		return out, nil
	case Time:
		if !was {
			out.Why = NotSo
			return out, nil
		}
		remains = true
	case Write:
		v.Data, v.Blob, v.Size = s.Data, s.Blob, len(s.Data)
		if s.Blob != nil {
			if err := adopt(c.tx, s.Blob); err != nil {
				return out, err
			}
			v.Size = s.Blob.Size
		}
	case Add:
		if out.Number, out.Why = sum(old, was, s.Number); out.Why != Fine {
			return out, nil
		}
		v.Data = strconv.AppendInt(nil, out.Number, 10)
		v.Size = len(v.Data)
	case Append:
		switch {
		case old.Size+len(s.Data) > ValueMax:
			out.Why = TooLong
		case old.Blob != nil || old.Size+len(s.Data) > InlineMax:
			out.Why = Parted
		}
		if out.Why != Fine {
			return out, nil
		}
		v.Data = append(old.Data[:len(old.Data):len(old.Data)], s.Data...)
		v.Size = len(v.Data)
		out.Number = int64(v.Size)
	}
	if was {
		c.take(s.Key, old, remains)
	} else if err := place(c.tx, c.table.Name, s.Key); err != nil {
		return out, err
	}
	if s.Do != Time { // else it is no new version, as with Set
		v.Version, v.Mtime = c.record(WasPut, s.Key, v.Size), meta.At(c.tx.Now)
	}
	out.Now = v.Version
	return out, c.timed(s, v, was)
}

// timed puts a row whose time to live a step says.
func (c *change) timed(s Step, v value, was bool) error {
	switch {
	case s.Clock == Keep && was:
		return c.lay(s.Key, v)
	case s.Clock == More && v.Expires != 0:
		if v.TTL += s.TTL; v.TTL > ttlMax {
			return fmt.Errorf("%.80q: a time to live of %v: %w", s.Key, v.TTL, meta.Invalid)
		}
		v.Expires += meta.Time(s.TTL)
		return c.lay(s.Key, v)
	case s.Clock == Anew:
		v.TTL = s.TTL
	}
	return c.give(s.Key, v)
}

func (s *Step) holds(old value, was bool) bool {
	switch s.If {
	case Absent:
		return !was
	case Present:
		return was
	case Equal: // what is in parts is larger than any Match
		return was && old.Blob == nil && bytes.Equal(old.Data, s.Match)
	case Prefix:
		return was && old.Blob == nil && bytes.HasPrefix(old.Data, s.Match)
	case Version:
		return old.Version == s.Version
	}
	return true
}

func (s *Step) timely(old value, now time.Time) bool {
	to := meta.At(now.Add(s.TTL))
	switch s.Alarm {
	case Unset:
		return old.Expires == 0
	case Ticking:
		return old.Expires != 0
	case Later:
		return old.Expires != 0 && to > old.Expires
	case Sooner:
		return old.Expires == 0 || to < old.Expires
	}
	return true
}

func sum(old value, was bool, n int64) (int64, Why) {
	var now int64
	if was {
		var err error
		if now, err = strconv.ParseInt(string(old.Data), 10, 64); err != nil || strconv.FormatInt(now, 10) != string(old.Data) {
			return 0, NoNumber
		}
	}
	if n > 0 && now > math.MaxInt64-n || n < 0 && now < math.MinInt64-n {
		return 0, Overflows
	}
	return now + n, Fine
}

// Gets asks for what is at some keys; with Data, for the bytes too.
type Gets struct {
	Table string   `cbor:"1,keyasint,omitempty"`
	Keys  []string `cbor:"2,keyasint,omitempty"`
	Data  bool     `cbor:"3,keyasint,omitempty"`
}

// Found answers Gets, in order: an entry of version 0 says that there is no value.
// There may be fewer than keys, and at least one, when the values are large.
type Found struct {
	Entries []Entry `cbor:"1,keyasint,omitempty"`
}

func gets(r state.Reader, req Gets) (Found, error) {
	if len(req.Keys) == 0 || len(req.Keys) > ListMax {
		return Found{}, fmt.Errorf("%d keys, 1 to %d: %w", len(req.Keys), ListMax, meta.Invalid)
	}
	if _, err := loadTable(r, req.Table); err != nil {
		return Found{}, err
	}
	reply := Found{Entries: make([]Entry, 0, len(req.Keys))}
	size := 0
	for _, key := range req.Keys {
		if size > answerMax {
			break
		}
		e, _ := load[Entry](r, valueKey(req.Table, key))
		if e.Key = key; !req.Data || e.Dir {
			e.Data = nil
		}
		size += len(key) + len(e.Data)
		reply.Entries = append(reply.Entries, e)
	}
	return reply, nil
}
