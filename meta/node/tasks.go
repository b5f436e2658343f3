package node

import (
	"context"
	"time"

	"dos/meta"
	"dos/meta/members"
	"dos/meta/state"
	"dos/meta/task"
)

const (
	// tasksPause is between two looks at tasks while the state moves: so late a task
	// begins, and so much is decided together.
	tasksPause = 2 * time.Millisecond
	// tasksEvery is how late what is due by time may be.
	tasksEvery = 50 * time.Millisecond
	// taskDecisions bounds what one command decides: the rows that it makes are a
	// fraction of a transaction's, and others' commands wait little.
	taskDecisions = 256
)

// tasks is what the room of tasks is told of machines.
var tasks = task.Room{
	Node: func(r state.Reader, name string) task.Standing {
		n, ok := members.Machine(r, name)
		if !ok {
			return task.Standing{}
		}
		s := task.Standing{Drained: n.Drain || n.Hold, Why: n.Why, Weight: int(n.Weight), Labels: n.AllLabels()}
		if n.Hold {
			s.Why = n.HoldWhy
		}
		return s
	},
	Epoch: members.Epoch,
}

// tendTasks has, while this member leads, tasks assigned to machines, and done what is
// due by time.
func (n *Node) tendTasks(ctx context.Context) {
	for {
		moved := n.replica.Moved() // before looking, so that nothing is missed
		if _, leads := n.replica.Leads(); !leads {
			moved = nil
		} else {
			n.scheduleTasks(ctx)
		}
		pause, late := time.NewTimer(tasksPause), time.NewTimer(tasksEvery)
		select {
		case <-moved:
		case <-late.C:
		case <-ctx.Done():
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
		late.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// scheduleTasks proposes a command if there is something to do, and again while there is more.
func (n *Node) scheduleTasks(ctx context.Context) {
	var work task.Work
	err := n.Local(task.OpDue, task.Due{Now: meta.At(time.Now())}, &work)
	for work.Schedule && err == nil {
		var reply task.More
		err = n.Call(ctx, task.OpSchedule, task.Bound{Limit: taskDecisions}, &reply)
		work.Schedule = reply.More
	}
	if err != nil && ctx.Err() == nil && !unavailable(err) {
		n.log.Warn("meta: assigning tasks", "err", err)
	}
}
