package tasks

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// openControl opens ctl: what it says are the lines that it takes.
func openControl(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	return procfs.Control{
		Settings: func(ctx context.Context) (string, error) {
			t, err := f.now(ctx)
			text := fmt.Sprintf("prio %d\n", t.Prio)
			if t.State == task.Held {
				text += "hold\n"
			}
			if t.Frozen {
				text += "freeze\n"
			}
			return text, err
		},
		Do: func(ctx context.Context, line string) error {
			req, err := ParseControl(line)
			if err != nil {
				return err
			}
			req.ID, req.UID = f.id, how.Caller.UID
			return f.tasks.Control(context.WithoutCancel(ctx), req)
		},
	}.Open(ctx, how)
}

// ParseControl reads a line of ctl.
func ParseControl(text string) (task.Control, error) {
	words := strings.Fields(text)
	verb, args := words[0], words[1:]
	var c task.Control
	var err error
	switch {
	case verb == "cancel" && len(args) <= 1:
		c.Verb = task.Cancel
		if len(args) == 1 {
			if c.Number, err = signal(args[0]); err == nil && c.Number != int(unix.SIGKILL) {
				err = fmt.Errorf("cancel, or cancel KILL; other signals are sent by signal: %w", meta.Invalid)
			}
		}
	case verb == "prio" && len(args) == 1:
		c.Verb = task.SetPrio
		if c.Number, err = strconv.Atoi(args[0]); err != nil || c.Number < -task.PrioMax || c.Number > task.PrioMax {
			err = fmt.Errorf("%.40q is not a priority from -%d to %d: %w", args[0], task.PrioMax, task.PrioMax, meta.Invalid)
		}
	case verb == "signal" && len(args) == 1:
		c.Verb = task.Signal
		c.Number, err = signal(args[0])
	case len(args) == 0:
		for _, v := range []task.Verb{task.Hold, task.Release, task.Requeue, task.Freeze, task.Thaw} {
			if v.String() == verb {
				c.Verb = v
			}
		}
	}
	if err == nil && c.Verb == 0 {
		err = fmt.Errorf("%.80q is none of cancel [KILL], hold, release, prio N, requeue, signal NAME, freeze, thaw: %w", text, meta.Invalid)
	}
	return c, err
}

// signal reads a signal's name, as TERM or SIGTERM, or its number.
func signal(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= 64 {
		return n, nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	return 0, fmt.Errorf("%.40q is no signal: %w", text, meta.Invalid)
}
