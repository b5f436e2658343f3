package replica

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// Protocol is the name (ALPN, RFC 7301) of what members speak over their Streams:
// the name of the member that is called, after a byte with its length, then what
// raft.NetworkTransport speaks.
const Protocol = "dos-raft/2"

// A Stream connects the members of a group: it accepts connections for Raft
// and dials them. The TLS port of a machine implements it. It admits machines of
// the cluster only, and sees to it that whoever answers is the machine that was
// to be dialled: another member's answers counted for it could lose what was
// acknowledged.
type Stream interface {
	net.Listener
	Dial(machine, addr string, timeout time.Duration) (net.Conn, error)
}

// Config says what to run.
type Config struct {
	Dir     string         // created if missing
	ID      string         // this member's name; it never changes
	Machine *state.Machine // filled already

	// Stream reaches the other members. With none the group has one member,
	// this one, and can have no other.
	Stream Stream
	// Address is where others reach this member through their Streams;
	// the default is that of the Stream.
	Address string
	// Bootstrap makes a group of this one member if the directory is new. If it
	// is not, it changes nothing.
	Bootstrap bool
	// Salvage opens a member that Open would refuse because its log or its state
	// lost something, with what is there. Only for a group of one.
	Salvage bool

	// Beat is the interval within which a follower expects to hear from the
	// leader; the default is 750 ms with a Stream and 50 ms without.
	Beat time.Duration
	// Clock gives commands their time; the default is time.Now.
	Clock func() time.Time
	// Fatal is called once when the member can no longer go on: its log hangs
	// or fails, or its state cannot be written. The process should end. Fatal
	// must not call Close. The default panics.
	Fatal func(error)
	// Log gets what is said; the default is slog.Default.
	Log *slog.Logger

	limits limits // tests make them small
}

// limits are when things happen by themselves.
type limits struct {
	slow, hung      time.Duration // of a write to the log
	cut             time.Duration // how often it is looked at whether the log is due to be cut
	snapshotBytes   int64         // of log beyond the snapshot
	snapshotEntries uint64
	trailing        uint64 // entries that stay in the log behind a snapshot
	memtable        int64  // bytes
	segment         int    // bytes of one file of the log

	// Of the disk, in bytes; see space.go.
	minFree, lowFree, addFree int64
	reserve                   int64 // 0: by the size of the file system; negative: none
	measure                   func(dir string) (room, error)
}

// beat is that of a group of several. Raft calls for an election between one and
// three beats after it heard of the leader last. With 1 s, writes went on 2.2 s
// after the leader was killed (median of nine, the slowest 2.7 s, on two busy
// cores); processes that wait for a core were away for half a second at times.
const beat = 750 * time.Millisecond

const (
	slowLog = 2 * time.Second  // a log write that takes longer stops the answers
	hungLog = 10 * time.Second // and this ends the process

	// The log is cut when it holds this much beyond the snapshot: it is what a
	// start after a crash reads again.
	snapshotBytes   = 64 << 20
	snapshotEntries = 100_000
	cutEvery        = 200 * time.Millisecond
	// trailingEntries stay for followers that are a little behind.
	trailingEntries = 1024
)

func (c *Config) defaults() error {
	switch {
	case c.Dir == "" || c.ID == "" || c.Machine == nil:
		return fmt.Errorf("replica: a directory, a name and a machine are needed: %w", meta.Invalid)
	case c.Salvage && c.Stream != nil:
		return fmt.Errorf("replica: salvage is for a group of one; a member with peers joins anew: %w", meta.Invalid)
	}
	if c.Address == "" {
		c.Address = c.ID
		if c.Stream != nil {
			c.Address = c.Stream.Addr().String()
		}
	}
	if c.Beat == 0 {
		c.Beat = 50 * time.Millisecond
		if c.Stream != nil {
			c.Beat = beat
		}
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(err) }
	}
	l := &c.limits
	l.slow, l.hung = or(l.slow, slowLog), or(l.hung, hungLog)
	l.snapshotBytes, l.snapshotEntries = or(l.snapshotBytes, snapshotBytes), or(l.snapshotEntries, snapshotEntries)
	l.trailing, l.memtable = or(l.trailing, trailingEntries), or(l.memtable, memtableSize)
	l.minFree, l.lowFree, l.addFree = or(l.minFree, minFree), or(l.lowFree, lowFree), or(l.addFree, addFree)
	if l.measure == nil {
		l.measure = measure
	}
	l.cut = or(l.cut, cutEvery)
	l.segment = or(l.segment, segmentSize)
	return nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
