// Package queue is ordered logs with consumers. A queue is a log of messages; a
// group has a place in it, and everyone who takes from a group gets messages that
// nobody else of it got. Each group sees all messages. The default group has no name.
//
// Taking is a claim of a session: it ends when the messages are settled, when the
// claim's time is over, or with the session, and then what was not acknowledged is
// at the head of the group again, with one more attempt counted. Who finds nothing
// takes a place in the group's line of waiters: the command that brings a message
// gives it to the first of them, so nobody asks in vain. The room knows no files
// and no clocks: the time is the command's, and what is due is done by Tick, which
// whoever runs the machine proposes when Due says so.
//
// What is hot touches few rows. Messages have consecutive numbers, so the next
// message of a group is the one at its cursor; only what came back, or stands in
// an order of its own, has a row in an index. A message that all groups have
// settled is removed at once, or, where the queue keeps them, from the front of
// the log later.
//
// A large message lies in stripes, which the command that sends it names. Package
// namespace has them kept, named once by each row that has the message: that of the
// log, of a dead letter, or of a timer until a delayed one is in the log. When the last
// of these rows goes they die.
//
// The messages of a queue may instead be in the memory of two machines, of which one
// executes what is asked of them and the other follows (package memory): with the
// commands of this room, each queue in a state of its own. Then its row of the
// configuration and its groups are here, for where it begins, and so is its home, the
// two sessions that hold it. Only a command changes that, and each time its epoch
// grows: so there is never more than one who answers. What both lose is lost.
//
// A queue, its log, its groups and a group's run through the log have numbers of
// their own from one counter. Purging gives a queue another log, and seeking gives
// a group another run, so neither has to look at what is there: Sweep removes the
// rows of numbers that are not in use any more.
//
// Keys, numbers big-endian of 8 bytes unless it says otherwise, values CBOR:
//
//	"8c"                                counters
//	"8n" name                           config
//	"8i" queue                          the name
//	"8s" queue                          position: how far everything is
//	"8m" log number                     message
//	"8p" run number                     entry: what became of a message that the cursor has passed
//	"8r" run class(1) number            empty: it is ready to be taken
//	"8k" run key number                 empty: it waits for an earlier message with its key
//	"8y" run key                        number(8): of that earlier message
//	"8l" session queue claim            claim
//	"8w" group place                    place: who waits
//	"8v" session queue place            group(8): the other way round
//	"8x" log number                     dead
//	"8u" queue id                       number(8): of the message with that deduplication id
//	"8t" time kind(1) a b c             timer; what the three numbers are depends on the kind
//	"8z" number                         empty: rows of it are left to sweep
//	"8o"                                how often a home or a holder has changed
//	"8h" session                        Holder
//	"8b" queue                          home: who holds a queue in memory
//	"8g" session queue                  empty: who holds it, the other way round
package queue

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

// A Room is the commands with what they need of other rooms.
type Room struct {
	// Fence says whether a lock is still held as it was when it had the token; nil if
	// nobody knows, then what is conditional on it is refused.
	Fence func(r state.Reader, t Token) error
	// Memory says that the state is that of one queue in memory: it knows no sessions,
	// no stripes, and no other queue.
	Memory bool
}

func (room Room) check(r state.Reader, t *Token) error {
	switch {
	case t == nil:
		return nil
	case room.Fence == nil:
		return fmt.Errorf("the token of lock %q cannot be checked here: %w", t.Lock, meta.Unsupported)
	}
	return room.Fence(r, *t)
}

// Register adds the operations to m.
func (room Room) Register(m *state.Machine) {
	state.Handle(m, OpMake, "queue.make", makeQueue)
	state.Handle(m, OpRemove, "queue.remove", removeQueue)
	state.Handle(m, OpSet, "queue.set", room.set)
	state.Handle(m, OpPush, "queue.push", room.Push)
	state.Handle(m, OpTake, "queue.take", room.take)
	state.Handle(m, OpPass, "queue.pass", room.pass)
	state.Handle(m, OpSettle, "queue.settle", settles)
	state.Handle(m, OpLeave, "queue.leave", leave)
	state.Handle(m, OpMakeGroup, "queue.makegroup", makeGroup)
	state.Handle(m, OpRemoveGroup, "queue.removegroup", removeGroup)
	state.Handle(m, OpSeek, "queue.seek", seek)
	state.Handle(m, OpPurge, "queue.purge", purgeQueue)
	state.Handle(m, OpTick, "queue.tick", tick)
	state.Handle(m, OpSweep, "queue.sweep", sweep)
	state.Handle(m, OpBury, "queue.bury", bury)
	state.Query(m, OpList, "queue.list", list)
	state.Query(m, OpStatus, "queue.status", statusOf)
	state.Query(m, OpAwait, "queue.await", room.await)
	state.Query(m, OpRoom, "queue.room", fits)
	state.Query(m, OpRead, "queue.read", readLog)
	state.Query(m, OpFlights, "queue.flights", flights)
	state.Query(m, OpDead, "queue.dead", letters)
	state.Query(m, OpDue, "queue.due", dueNow)
	if !room.Memory {
		state.Handle(m, OpServe, "queue.serve", serveHomes)
		state.Handle(m, OpMove, "queue.move", moveHome)
		state.Query(m, OpWhose, "queue.whose", whose)
		state.Query(m, OpHomes, "queue.homes", homes)
	}
	always(m, OpMake, Make{})
	always(m, OpMakeGroup, Grouped{})
	always(m, OpPush, Push{})
	state.Adds(m, OpPass, func(req Pass) bool { return len(req.Push.Messages) > 0 })
}

// always says that a command makes the state grow.
func always[Req any](m *state.Machine, op state.Op, _ Req) {
	state.Adds(m, op, func(Req) bool { return true })
}
