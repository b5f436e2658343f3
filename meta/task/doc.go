// Package task is the jobs of the cluster: what was submitted, which machine runs it,
// and what has become of it. It knows no processes and no files; an agent on each
// machine runs what is assigned to it. A job is one task, or an array of them.
//
// # From submission to the end
//
// A task that may begin stands in a lane, with all those of its user, partition and
// priority that ask for the same. Schedule, which whoever runs the machine proposes
// when Due says that something has changed, takes tasks from the lanes: strictly by
// priority; then from the user whose share is used least (package comment of share.go);
// then the oldest. It assigns a task to a machine that has room, under a token greater
// than any before. The machine's agent claims the assignment, and from then on the
// task is the machine's until its end is reported or the agent's session is over:
// then it is lost, and waits again. Nothing else ends a claim, so what is claimed is
// never given to another machine while its own may be running it.
//
// # The reserved start
//
// The first task in this order that has no room on any of the machines that could run
// it gets one of them reserved, from when tasks that run there will have ended by
// their time limits. Behind it, on these machines, a task begins only if it has a time
// limit itself, and on the reserved one only if it ends in time or takes nothing that
// the first needs (EASY backfill). If nobody knows when there will be room, since what
// runs has no limit, nothing more begins on the reserved machine. A task that no
// machine could run, even an empty one, is passed over.
//
// # What is bounded
//
// A command makes a bounded number of decisions and says if there are more; what
// concerns many tasks (the elements of an array, those that come after one) is a chore
// that goes on in later commands. The rows that every decision touches are read by
// their keys, and scans begin where nothing has been deleted: the store below passes
// over each version of a row that ever was.
//
// # Rows
//
// Numbers are big-endian; a job has 8 bytes, an id 12: job(8) place(4). A level is
// priority(4) partition(4) user(4), the highest priority first. Values are CBOR.
//
//	"9c"                          counters
//	"9t" id                       row: a task, or an array
//	"9s" job                      stored: the job as it was submitted
//	"9Q"                          the levels that have lanes, 12 bytes each, in order
//	"9q" level                    level: its lanes
//	"9m" level shape(12) id       empty: a task of a lane
//	"9o" level id                 empty: a task whose lane has no place in the level yet
//	"9n" name                     nodeRow: what a machine offers
//	"9u" name                     used: what runs there
//	"9x" session name             empty: the session offers something there, or did
//	"9w" session                  the version of the last of its orders
//	"9e" session version          id: of the attempt that changed then
//	"9a" partition(4) user(4)     account: a user's share
//	"9g" name                     queueRow: a partition
//	"9i" partition(4)             its name
//	"9k" partition(4)             running: what it runs
//	"9d" id job                   condition(1): the job comes after the task
//	"9z" number(8)                chore
//	"9T" time(8) id               empty: something of the task is due
//	"9f" number(8)                ended: a job that ended
//	"9F" job                      empty: a job that was forgotten and may have output
//	"9y" state(1) id              empty: tasks by their state
//	"9U" user(4) id               empty: tasks by their user
//	"9N" name 0 id                empty: tasks by their name
//	"9v"                          the number of the last event
//	"9E" number(8)                Event
//	"9r"                          list of kept: machines that are reserved
package task

import (
	"dos/meta/state"
)

// A Room is the operations with what they need of other rooms.
type Room struct {
	// Epoch changes when what Node says does; nil: it never does.
	Epoch func(r state.Reader) uint64
	// Node says how a machine stands, apart from what it offers; nil: as it does when
	// nobody said anything of it.
	Node func(r state.Reader, name string) Standing
}

// A Standing is what the administrator says of a machine.
type Standing struct {
	Drained bool
	Why     string
	Weight  int               // percent: the greater, the more is put there; 0 is 100
	Labels  map[string]string // besides those it offers
}

func (room Room) standing(r state.Reader, name string) (s Standing) {
	if room.Node != nil {
		s = room.Node(r, name)
	}
	if s.Weight == 0 {
		s.Weight = 100
	}
	return s
}

func (room Room) epoch(r state.Reader) uint64 {
	if room.Epoch == nil {
		return 0
	}
	return room.Epoch(r)
}

// Register adds the operations to m.
func (room Room) Register(m *state.Machine) {
	state.Handle(m, OpSubmit, "task.submit", submit)
	state.Handle(m, OpControl, "task.control", control)
	state.Handle(m, OpForget, "task.forget", forget)
	state.Handle(m, OpOffer, "task.offer", offer)
	state.Handle(m, OpWithdraw, "task.withdraw", withdraw)
	state.Handle(m, OpReport, "task.report", report)
	state.Handle(m, OpSchedule, "task.schedule", room.schedule)
	state.Handle(m, OpMakeQueue, "task.makequeue", makeQueue)
	state.Handle(m, OpSetQueue, "task.setqueue", setQueue)
	state.Handle(m, OpRemoveQueue, "task.removequeue", removeQueue)
	state.Handle(m, OpCleared, "task.cleared", cleared)
	state.Query(m, OpGet, "task.get", room.get)
	state.Query(m, OpAwait, "task.await", func(r state.Reader, req Follow) (Task, error) { return room.get(r, Ask{req.ID}) })
	state.Query(m, OpSpec, "task.spec", specOf)
	state.Query(m, OpList, "task.list", room.list)
	state.Query(m, OpEvents, "task.events", eventsSince)
	state.Query(m, OpStatus, "task.status", room.status)
	state.Query(m, OpOrders, "task.orders", orders)
	state.Query(m, OpQueue, "task.queue", queueOf)
	state.Query(m, OpQueues, "task.queues", queues)
	state.Query(m, OpDue, "task.due", room.due)
	state.Query(m, OpForgotten, "task.forgotten", forgotten)
	state.Query(m, OpOffers, "task.offers", room.offers)
	always(m, OpSubmit, Submit{})
	always(m, OpMakeQueue, MakeQueue{})
}

// always says that a command makes the state grow.
func always[Req any](m *state.Machine, op state.Op, _ Req) {
	state.Adds(m, op, func(Req) bool { return true })
}

type none struct{}
