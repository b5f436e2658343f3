package node

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/meta/state"
	"dos/meta/task"
)

func newTask(t testing.TB, options string) task.Spec {
	t.Helper()
	spec, err := task.Parse([]byte("#DOS "+options+"\ntrue\n"), task.NewSpec(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// nextOrders waits for what is new.
func nextOrders(t testing.TB, tasks client.Tasks, s meta.SessionID, seen *uint64) []task.Attempt {
	t.Helper()
	for {
		out, err := tasks.Orders(t.Context(), s, *seen)
		if err != nil {
			t.Fatal(err)
		}
		if *seen = out.Version; len(out.Attempts) > 0 {
			return out.Attempts
		}
	}
}

// A machine hears of its task, who waits of its end, and who follows events of both,
// without anybody asking again and again.
func TestTaskWait(t *testing.T) {
	n := start(t, t.TempDir())
	ctx := t.Context()
	s := openSession(t, n)
	tasks := client.Tasks{Caller: n.Session(s)}
	if err := tasks.Offer(ctx, task.Offer{Node: "n1", Have: task.Resources{CPU: 2000}, Slots: 4}); err != nil {
		t.Fatal(err)
	}
	var seen uint64
	for range 3 {
		events, err := tasks.Events(ctx, 0, task.ListMax)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := tasks.Submit(ctx, task.Owner{UID: 5}, newTask(t, ""))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan task.Task, 1)
		go func() {
			got, err := tasks.Wait(ctx, ids[0])
			if err != nil {
				t.Error(err)
			}
			ended <- got
		}()
		attempts := nextOrders(t, tasks, s, &seen)
		if len(attempts) != 1 || attempts[0].ID != ids[0] {
			t.Fatalf("%+v", attempts)
		}
		one := task.Report{ID: ids[0], Token: attempts[0].Token}
		claim, end := one, one
		claim.What, end.What, end.Exit = task.Claim, task.Ended, &task.Exit{Code: 4}
		each, err := tasks.Report(ctx, claim, end)
		if err != nil || errors.Join(each...) != nil {
			t.Fatal(each, err)
		}
		if got := <-ended; got.State != task.Failed || got.Exit.Status() != 4 {
			t.Errorf("%+v", got)
		}
		var states []task.State
		for after := events.Last; len(states) < 3; {
			out, err := tasks.Events(ctx, after, 1)
			if err != nil || len(out.List) != 1 {
				t.Fatal(out, err)
			}
			after = out.List[0].Seq
			states = append(states, out.List[0].State)
		}
		if states[0] != task.Pending || states[1] != task.Running || states[2] != task.Failed {
			t.Errorf("events %v", states)
		}
	}
}

// What becomes due by time is done when it does, and what the administrator says of a
// machine counts.
func TestTaskTime(t *testing.T) {
	n := start(t, t.TempDir())
	ctx := t.Context()
	s := openSession(t, n)
	tasks := client.Tasks{Caller: n.Session(s)}
	cluster := client.Members{Caller: n}
	if err := cluster.Init(ctx, members.ClusterID{1}, chunk.Code{K: 4, M: 2}); err != nil {
		t.Fatal(err)
	}
	if err := cluster.PutNode(ctx, members.Node{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	if err := cluster.SetNode(ctx, members.SetNode{Node: "n1", Hold: &yes, HoldWhy: "a new disk"}); err != nil {
		t.Fatal(err)
	}
	if err := tasks.Offer(ctx, task.Offer{Node: "n1", Have: task.Resources{CPU: 2000}, Slots: 4}); err != nil {
		t.Fatal(err)
	}
	spec := newTask(t, "")
	spec.At = meta.At(time.Now().Add(200 * time.Millisecond))
	ids, err := tasks.Submit(ctx, task.Owner{UID: 5}, spec)
	if err != nil {
		t.Fatal(err)
	}
	for {
		got, err := tasks.Task(ctx, ids[0])
		if err != nil {
			t.Fatal(err)
		}
		if got.Reason == "every node for it is drained or closed" {
			break
		}
		time.Sleep(5 * time.Millisecond) // it is looked at again until then
	}
	if err := cluster.SetNode(ctx, members.SetNode{Node: "n1", Hold: &no}); err != nil {
		t.Fatal(err)
	}
	var seen uint64
	if got := nextOrders(t, tasks, s, &seen); len(got) != 1 || got[0].ID != ids[0] || time.Now().Before(spec.At.Std()) {
		t.Errorf("%+v", got)
	}
}

// A moving group has another leader at one request, which is lost before, or of which the
// answer is lost.
type moving struct {
	*group
	t     *testing.T
	after bool
	is    func(state.Command) bool // nil: none any more
}

func (m *moving) Do(ctx context.Context, cmd state.Command) (reply state.Reply, err error) {
	if m.is == nil || !m.is(cmd) {
		return m.group.Do(ctx, cmd)
	}
	m.is = nil
	old := m.leader()
	if m.after {
		if reply, err := old.Do(ctx, cmd); err != nil || reply.Kind != 0 {
			m.t.Errorf("%+v, %v", reply, err)
		}
	}
	if err := old.Replica().Yield(ctx); err != nil {
		m.t.Errorf("yielding: %v", err)
	}
	return reply, fmt.Errorf("the connection broke: %w", meta.Unavailable)
}

// Whatever step the leader is lost at, a task is there once, runs once, and ends as it ended.
func TestTaskNewLeader(t *testing.T) {
	m := &moving{group: startGroup(t, 3), t: t}
	ctx := t.Context()
	info, err := (client.Session{Caller: client.Direct(m, 0)}).Open(ctx, "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	tasks := client.Tasks{Caller: client.NewRemote(m, info.ID)}
	if err := tasks.Offer(ctx, task.Offer{Node: "n1", Have: task.Resources{CPU: 2000}, Slots: 4}); err != nil {
		t.Fatal(err)
	}
	var seen uint64
	count := 0
	for _, step := range []string{"submit", "orders", "claim", "started", "ended"} {
		for _, after := range []bool{false, true} {
			t.Logf("%s, after %v", step, after)
			m.after = after
			arm := func(now string, op state.Op) {
				if now == step {
					m.is = func(cmd state.Command) bool { return cmd.Op == op }
				}
			}
			arm("submit", task.OpSubmit)
			ids, err := tasks.Submit(ctx, task.Owner{UID: 5}, newTask(t, ""))
			if err != nil {
				t.Fatal(err)
			}
			count++
			arm("orders", task.OpOrders)
			attempts := nextOrders(t, tasks, info.ID, &seen)
			if len(attempts) != 1 || attempts[0].ID != ids[0] {
				t.Fatalf("%+v, want one of %v", attempts, ids[0])
			}
			for _, one := range []task.Report{{What: task.Claim}, {What: task.Started}, {What: task.Ended, Exit: &task.Exit{Code: count}}} {
				arm(map[task.What]string{task.Claim: "claim", task.Started: "started", task.Ended: "ended"}[one.What], task.OpReport)
				one.ID, one.Token = ids[0], attempts[0].Token
				each, err := tasks.Report(ctx, one)
				if err != nil || errors.Join(each...) != nil {
					t.Fatal(one.What, each, err)
				}
			}
			got, err := tasks.Wait(ctx, ids[0])
			if err != nil || got.State != task.Failed || got.Exit.Status() != count || got.Attempt != 1 || len(got.Past) != 1 {
				t.Errorf("%+v, %v", got, err)
			}
			if m.is != nil {
				t.Error("the leader was not lost")
			}
		}
	}
	if got, err := tasks.Status(ctx); err != nil || got.Counts[task.Failed] != int64(count) || got.Counts[task.Running]+got.Counts[task.Pending] != 0 {
		t.Errorf("of %d tasks there are %v, %v", count, got, err)
	}
}
