package tasks

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/task"
)

// line is a text as the contents of a file: nothing, or one line.
func line(text string) string {
	if text == "" {
		return ""
	}
	return oneLine(text) + "\n"
}

func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

func stamp(t meta.Time) string { return t.Std().UTC().Format(time.RFC3339) }

// exitText is the exit status as a shell gives it; nothing as long as there is none.
func exitText(t task.Task) string {
	if !t.State.Ended() {
		return ""
	}
	return strconv.Itoa(ExitStatus(t)) + "\n"
}

// ExitStatus is the exit status, as a shell gives it, of a task that has ended.
func ExitStatus(t task.Task) int {
	switch {
	case t.State == task.Done:
		return 0
	case t.Exit != nil && !t.Exit.Good():
		return t.Exit.Status()
	case t.State == task.Cancelled:
		return 130
	}
	return 1
}

// A text is lines of a key and its value.
type lines struct{ strings.Builder }

func (l *lines) add(key, format string, args ...any) {
	fmt.Fprintf(l, "%s %s\n", key, oneLine(fmt.Sprintf(format, args...)))
}

func (l *lines) time(key string, t meta.Time) {
	if t != 0 {
		l.add(key, "%s", stamp(t))
	}
}

// StatusText is the contents of ID/status.
func StatusText(t task.Task) string {
	var l lines
	l.add("id", "%v", t.ID)
	if t.Name != "" {
		l.add("name", "%s", t.Name)
	}
	l.add("state", "%v", t.State)
	if t.Reason != "" {
		l.add("reason", "%s", t.Reason)
	}
	if t.Frozen {
		l.add("frozen", "yes")
	}
	l.add("uid", "%d", t.Owner.UID)
	l.add("gid", "%d", t.Owner.GID)
	l.add("queue", "%s", partitionName(t.Queue))
	l.add("prio", "%d", t.Prio)
	l.add("need", "%s", Need(t.Need))
	if t.Node != "" {
		l.add("node", "%s", t.Node)
	}
	if t.State.Ended() {
		l.add("exit", "%d", ExitStatus(t))
	}
	if t.Exit != nil {
		l.add("ended.by", "%v", t.Exit.Cause)
		if t.Exit.Signal != 0 {
			l.add("signal", "%d", t.Exit.Signal)
		}
		if t.Exit.Text != "" {
			l.add("why", "%s", t.Exit.Text)
		}
	}
	l.add("attempt", "%d", t.Attempt)
	if t.Failures > 0 {
		l.add("failures", "%d", t.Failures)
	}
	if t.Losses > 0 {
		l.add("losses", "%d", t.Losses)
	}
	for state, n := range t.Elements {
		if n > 0 {
			l.add("elements."+task.State(state).String(), "%d", n)
		}
	}
	l.time("submitted", t.Submitted)
	l.time("due", t.Due)
	l.time("planned", t.Start)
	l.time("claimed", t.Claimed)
	l.time("started", t.Started)
	l.time("ended", t.Ended)
	return l.String() + usageText(t)
}

// usageText is the contents of ID/usage.
func usageText(t task.Task) string {
	var l lines
	l.add("cpu", "%.3f", t.Usage.CPU.Seconds())
	l.add("peak", "%d", t.Usage.Peak)
	l.add("wall", "%.3f", t.Usage.Wall.Seconds())
	return l.String()
}

// attemptsText is the contents of ID/attempts: a line each, the last first.
func attemptsText(t task.Task) string {
	var b strings.Builder
	if t.State == task.Running {
		fmt.Fprintf(&b, "%d running node %s since %s\n", t.Attempt, t.Node, stamp(t.Claimed))
	}
	number := t.Attempt
	if t.State == task.Running {
		number--
	}
	for _, p := range t.Past {
		how := "lost"
		if p.Exit != nil {
			how = fmt.Sprintf("%v exit %d", p.Exit.Cause, p.Exit.Status())
		}
		fmt.Fprintf(&b, "%d %s node %s from %s to %s cpu %.3f peak %d %s\n", number, how, p.Node, stamp(p.Claimed), stamp(p.Ended), p.Usage.CPU.Seconds(), p.Usage.Peak, oneLine(p.Text))
		number--
	}
	return b.String()
}

// Need says resources as options do.
func Need(r task.Resources) string {
	text := "cpu=" + strconv.FormatFloat(float64(r.CPU)/1000, 'g', -1, 64)
	if r.Mem > 0 {
		text += " mem=" + size(r.Mem)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Count)) {
		if name == task.GPU {
			text += fmt.Sprintf(" gpu=%d", r.Count[name])
		} else {
			text += fmt.Sprintf(" res=%s:%d", name, r.Count[name])
		}
	}
	return text
}

// size is a number of bytes, with a unit if it is a multiple of it.
func size(n int64) string {
	unit := ""
	for _, u := range []string{"k", "m", "g", "t"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}

func eventText(e task.Event) string {
	text := fmt.Sprintf("%d %s %v %v", e.Seq, stamp(e.Time), e.ID, e.State)
	if e.Node != "" {
		text += " node " + e.Node
	}
	if e.Text != "" {
		text += " " + oneLine(e.Text)
	}
	return text + "\n"
}

// specText is the contents of ID/spec: JSON that new takes.
func specText(s task.Spec) string {
	fields := make(map[string]any)
	set := func(key string, has bool, value any) {
		if has {
			fields[key] = value
		}
	}
	set("script", len(s.Script) > 0, string(s.Script))
	set("args", len(s.Args) > 0, s.Args)
	set("name", s.Name != "", s.Name)
	set("queue", s.Queue != "", s.Queue)
	set("cpu", true, json.Number(strconv.FormatFloat(float64(s.Need.CPU)/1000, 'f', -1, 64)))
	set("mem", s.Need.Mem > 0, size(s.Need.Mem))
	set("res", len(s.Need.Count) > 0, s.Need.Count)
	set("label", len(s.Labels) > 0, s.Labels)
	set("node", s.Node != "", s.Node)
	set("prio", s.Prio != 0, s.Prio)
	var after []string
	for _, d := range s.After {
		after = append(after, fmt.Sprintf("%v:%v", d.On, d.ID))
	}
	set("after", len(after) > 0, after)
	if s.Array != nil {
		fields["array"] = arrayText(*s.Array)
	}
	if s.At != 0 {
		fields["at"] = s.At.Std().UTC().Format(time.RFC3339Nano)
	}
	set("every", s.Every > 0, s.Every.String())
	set("timeout", s.Timeout > 0, s.Timeout.String())
	set("retries", s.Retries > 0, s.Retries)
	set("cwd", s.Cwd != "", inTree(s.Cwd))
	set("stdin", s.Stdin != "", inTree(s.Stdin))
	set("near", s.Near != "", inTree(s.Near))
	set("env", len(s.Env) > 0, s.Env)
	set("hold", s.Hold, true)
	text, err := json.MarshalIndent(fields, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("tasks: a specification has no JSON: %v", err))
	}
	return string(text) + "\n"
}

// inTree is a path from the root of the tree as new takes it.
func inTree(path string) string {
	if strings.HasPrefix(path, "/") {
		return strings.TrimSuffix("/dos"+path, "/")
	}
	return path
}

func arrayText(a task.Array) string {
	var parts []string
	for _, r := range a.Indices {
		if r.First == r.Last {
			parts = append(parts, fmt.Sprint(r.First))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", r.First, r.Last))
		}
	}
	text := strings.Join(parts, ",")
	if a.Throttle > 0 {
		text += fmt.Sprintf("%%%d", a.Throttle)
	}
	return text
}

// tableMax bounds the tasks that the overview has a line for.
const tableMax = 1000

// overview is the contents of tasks/status: how many there are, the machines, and a line
// a task that has not ended.
func (r *room) overview(ctx context.Context) (string, error) {
	st, err := r.tasks.Status(ctx)
	if err != nil {
		return "", err
	}
	var l lines
	for _, s := range task.States() {
		if int(s) < len(st.Counts) {
			l.add(s.String(), "%d", st.Counts[s])
		}
	}
	l.add("submitted", "%d", st.Submitted)
	for _, n := range st.Nodes {
		l.add("node", "%s %s", n.Offer.Node, nodeText(n))
	}
	left := tableMax
	for _, state := range []task.State{task.Running, task.Pending, task.Held} {
		for after := (task.ID{}); left > 0; {
			got, err := r.tasks.List(ctx, task.List{State: state, After: after, Limit: min(left, task.ListMax)})
			if err != nil {
				return "", err
			}
			for _, t := range got.Tasks {
				l.add("task", "%s", taskText(t))
			}
			left -= len(got.Tasks)
			if after = got.Last; !got.More {
				break
			}
		}
	}
	return l.String(), nil
}

// nodeText is what a machine has for tasks, and what is used of it.
func nodeText(n task.NodeStatus) string {
	text := fmt.Sprintf("tasks %d of %d used %s of %s", n.Tasks, n.Offer.Slots, Need(n.Used), Need(n.Offer.Have))
	if n.Offer.Closed != "" {
		text += " closed " + n.Offer.Closed
	}
	return text
}

func taskText(t task.Task) string {
	text := fmt.Sprintf("%v %v uid %d prio %d queue %s", t.ID, t.State, t.Owner.UID, t.Prio, partitionName(t.Queue))
	if t.Name != "" {
		text += " name " + t.Name
	}
	if t.Node != "" {
		text += " node " + t.Node
	}
	if t.Reason != "" {
		text += " reason " + t.Reason
	}
	return text
}

func partitionName(name string) string {
	if name == "" {
		return partitionDefault
	}
	return name
}
