package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dos/internal/node"
	"dos/meta/client"
	"dos/meta/task"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
	"dos/procfs/tasks"
)

// topVerbs show what goes on, live.
var topVerbs = []verb{{name: "top", run: visit(top)}}

// topEvery is the pause between two pictures.
const topEvery = 2 * time.Second

// A picture is what top shows at one moment.
type picture struct {
	at     time.Time
	status cluster.Status
	nodes  []nodes.Node
	tasks  task.Status
	list   []task.Task // that run, then those that wait
}

// top shows nodes, tasks and rates until it is interrupted, or once if it does not
// write to a terminal.
func top(ctx context.Context, c command, guest *node.Guest) error {
	live := false
	rows := 24
	if f, ok := c.out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			live, rows = true, max(rows, int(size.Row))
		}
	}
	var before *picture
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	for {
		now, err := c.look(ctx, guest, rows)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		text := now.text(before)
		if !live {
			_, err := fmt.Fprint(c.out, text)
			return err
		}
		lines := strings.SplitAfter(text, "\n")
		// Home, each line cleared behind its end, and the rest of the screen.
		fmt.Fprint(c.out, "\x1b[H", strings.ReplaceAll(strings.Join(lines[:min(len(lines), rows-1)], ""), "\n", "\x1b[K\n"), "\x1b[J")
		before = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c command) look(ctx context.Context, guest *node.Guest, rows int) (*picture, error) {
	admin, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	p := &picture{at: time.Now()}
	if err := admin.Status(ctx, &p.status); err != nil {
		return nil, err
	}
	if err := admin.Nodes(ctx, &p.nodes); err != nil {
		return nil, err
	}
	calls := client.Tasks{Caller: guest}
	if p.tasks, err = calls.Status(ctx); err != nil {
		return nil, err
	}
	for _, state := range []task.State{task.Running, task.Pending} {
		got, err := calls.List(ctx, task.List{State: state, Limit: rows})
		if err != nil {
			return nil, err
		}
		p.list = append(p.list, got.Tasks...)
	}
	return p, nil
}

// text is the picture; rates are since an earlier one.
func (p *picture) text(before *picture) string {
	var b strings.Builder
	s := p.status
	fmt.Fprintf(&b, "%s  %s  %s used, %s free, %d files\n", p.at.Format(time.TimeOnly), strings.TrimSpace(s.Health().Line()), cluster.Size(s.Used), cluster.Size(s.Free), s.Files)
	count := func(st task.State) int64 {
		if int(st) < len(p.tasks.Counts) {
			return p.tasks.Counts[st]
		}
		return 0
	}
	fmt.Fprintf(&b, "tasks  %d running, %d pending, %d held, %d ended", count(task.Running), count(task.Pending), count(task.Held), p.ended())
	if before != nil {
		seconds := p.at.Sub(before.at).Seconds()
		rate := func(now, was uint64) float64 { return float64(max(now, was)-was) / seconds }
		fmt.Fprintf(&b, "; %.1f/s submitted, %.1f/s ended; %.0f/s metadata commits",
			rate(p.tasks.Submitted, before.tasks.Submitted), rate(uint64(p.ended()), uint64(before.ended())), rate(s.Meta.Applied, before.status.Meta.Applied))
	}
	b.WriteString("\n\n")
	offers := make(map[string]task.NodeStatus)
	for _, o := range p.tasks.Nodes {
		offers[o.Offer.Node] = o
	}
	text := table{{"NODE", "HEALTH", "LOAD", "MEMORY", "TASKS", "USED", "OF"}}
	for _, n := range p.nodes {
		row := []string{n.Name, n.Health(), fmt.Sprintf("%.2f of %d", n.Load.One, n.Load.CPUs),
			fmt.Sprintf("%s of %s", cluster.Size(n.Memory.Total-n.Memory.Available), cluster.Size(n.Memory.Total)), "-", "-", "-"}
		if o, ok := offers[n.Name]; ok {
			row = append(row[:4], fmt.Sprintf("%d of %d", o.Tasks, o.Offer.Slots), tasks.Need(o.Used), tasks.Need(o.Offer.Have))
		}
		text = append(text, row)
	}
	_ = text.print(&b) // a Builder takes everything
	b.WriteString("\n")
	text = table{{"TASK", "STATE", "USER", "PRIO", "NODE", "CPU", "NAME", "REASON"}}
	for _, t := range p.list {
		text = append(text, []string{t.ID.String(), t.State.String(), fmt.Sprint(t.Owner.UID), fmt.Sprint(t.Prio), orDash(t.Node), t.Usage.CPU.Round(10 * time.Millisecond).String(), orDash(t.Name), t.Reason})
	}
	_ = text.print(&b)
	return b.String()
}

func (p *picture) ended() (n int64) {
	for _, s := range task.States() {
		if s.Ended() && int(s) < len(p.tasks.Counts) {
			n += p.tasks.Counts[s]
		}
	}
	return n
}
