package rpc

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/meta"
	"dos/meta/call"
	"dos/procfs"
)

// lookMax bounds how long status waits for the exchanges of instances, and looksMax how
// many it asks at once.
const (
	lookMax  = 2 * time.Second
	looksMax = 16
)

// A look is how an instance does.
type look struct {
	load, calls int
	err         error // it does not answer
}

func (d dir) look(ctx context.Context, in call.Instance) (l look) {
	ctx, cancel := context.WithTimeout(ctx, lookMax)
	defer cancel()
	l.load, l.calls, l.err = d.room.dialer.Look(ctx, d.service, in)
	return l
}

// looks are those of all instances.
func (d dir) looks(ctx context.Context, list []call.Instance) []look {
	all := make([]look, len(list))
	var g errgroup.Group // its functions do not fail
	g.SetLimit(looksMax)
	for i, in := range list {
		g.Go(func() error {
			all[i] = d.look(ctx, in)
			return nil
		})
	}
	_ = g.Wait()
	return all
}

func instanceText(in call.Instance, l look) string {
	var b strings.Builder
	kind, _, proxy := strings.Cut(in.Target, "://")
	if !proxy {
		kind = "serve"
	}
	fmt.Fprintf(&b, "kind %s\nnode %s\nsession %d\nuid %d\n", kind, in.Node, in.Session, in.UID)
	if in.PID != 0 {
		fmt.Fprintf(&b, "pid %d\n", in.PID)
	}
	if in.Target != "" {
		fmt.Fprintf(&b, "target %s\n", in.Target)
	}
	fmt.Fprintf(&b, "at %s\nsince %s\n", in.At, in.Since.Std().UTC().Format(time.RFC3339))
	if l.err != nil {
		return b.String() + "state unreachable\n"
	}
	fmt.Fprintf(&b, "state up\nload %d\ncalls %d\n", l.load, l.calls)
	return b.String()
}

// statusText has a line for each instance after those of the service.
func statusText(ctx context.Context, d dir) (string, error) {
	st, err := d.status(ctx)
	if err != nil {
		return "", err
	}
	list := slices.DeleteFunc(st.Instances, func(in call.Instance) bool { return in.At == "" })
	all := d.looks(ctx, list)
	var lines strings.Builder
	load, calls, up := 0, 0, 0
	for i, in := range list {
		l := all[i]
		state := "up"
		if l.err != nil {
			state = "unreachable"
		} else {
			up++
			load += l.load
			calls += l.calls
		}
		target := in.Target
		if target == "" {
			target = "serve"
		}
		fmt.Fprintf(&lines, "instance %d node %s %s state %s load %d calls %d\n", in.Number, in.Node, target, state, l.load, l.calls)
	}
	return fmt.Sprintf("instances %d\nup %d\nload %d\ncalls %d\n%s", len(list), up, load, calls, lines.String()), nil
}

// settingsText is what ctl says, in lines that it also takes.
func settingsText(s call.Settings) string {
	return fmt.Sprintf("balance %s\ntimeout %v\nretries %d\n", call.Balances[s.Balance], s.Timeout, s.Retries)
}

func openControl(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	return procfs.Control{
		Settings: func(ctx context.Context) (string, error) {
			st, err := f.status(ctx)
			return settingsText(st.Service.Settings), err
		},
		Do: func(ctx context.Context, line string) error { return f.control(ctx, line) },
	}.Open(ctx, how)
}

// control executes a line of ctl.
func (d dir) control(ctx context.Context, line string) error {
	words := strings.Fields(line)
	if len(words) != 2 {
		return fmt.Errorf("%.80q is not a setting and its value: %w", line, meta.Invalid)
	}
	set := call.Set{Name: d.service}
	switch val := words[1]; words[0] {
	case "balance":
		i := slices.Index(call.Balances, val)
		if i < 0 {
			return fmt.Errorf("balance %.80q is none of %s: %w", val, strings.Join(call.Balances, ", "), meta.Invalid)
		}
		b := call.Balance(i)
		set.Balance = &b
	case "timeout":
		t, err := procfs.Duration(val)
		if err != nil {
			return err
		}
		set.Timeout = &t
	case "retries":
		n, err := strconv.ParseUint(val, 10, 31)
		if err != nil {
			return fmt.Errorf("%.80q is not a number: %w", val, meta.Invalid)
		}
		i := int(n)
		set.Retries = &i
	default:
		return fmt.Errorf("%.80q is none of balance, timeout, retries: %w", words[0], meta.Invalid)
	}
	return d.room.dialer.Set(ctx, set)
}
