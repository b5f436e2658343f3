package agent

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"dos/internal/run"
	"dos/meta"
	"dos/meta/task"
)

// usedEvery is how often it is reported what a task has used so far.
const usedEvery = 15 * time.Second

// An attempt is one run of a task here.
type attempt struct {
	agent *Agent
	is    task.Attempt

	mu     sync.Mutex
	last   task.Attempt // as the service said last; guarded by mu
	proc   *run.Process // nil until it runs; guarded by mu
	until  time.Duration
	news   chan struct{} // has room for one: last is another
	fenced chan struct{} // closed when the attempt is another's
	once   sync.Once
}

func newAttempt(a *Agent, is task.Attempt) *attempt {
	return &attempt{agent: a, is: is, last: is, news: make(chan struct{}, 1), fenced: make(chan struct{})}
}

// order takes what the service says anew.
func (t *attempt) order(is task.Attempt) {
	t.mu.Lock()
	t.last = is
	t.mu.Unlock()
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// extend puts off the attempt's hour. It is said only if it moved by as much as matters.
func (t *attempt) extend(until time.Duration) {
	t.mu.Lock()
	p := t.proc
	if until-t.until < extendEvery/4 {
		p = nil
	}
	if p != nil {
		t.until = until
	}
	t.mu.Unlock()
	if p != nil {
		p.Extend(until)
	}
}

func (t *attempt) report(what task.What) task.Report {
	return task.Report{ID: t.is.ID, Token: t.is.Token, What: what}
}

// tell sends a report that nobody waits for.
func (t *attempt) tell(one task.Report) {
	t.agent.reports.send(one, func(err error) {
		if errors.Is(err, meta.Fenced) {
			t.once.Do(func() { close(t.fenced) })
		}
	})
}

// run has the attempt from its claim to its end.
func (t *attempt) run(ctx context.Context) error {
	a := t.agent
	if err := a.tree.await(ctx); err != nil {
		return err
	}
	if err := a.reports.say(ctx, t.report(task.Claim)); err != nil {
		return err
	}
	exit, usage, err := t.perform(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, meta.Fenced) {
		return err
	}
	end := t.report(task.Ended)
	if err != nil {
		end.What, end.Text = task.Decline, short(err.Error())
	} else {
		exit.Text = short(exit.Text)
		end.Exit, end.Usage = &exit, &usage
	}
	return a.reports.say(ctx, end)
}

func short(text string) string { return text[:min(len(text), task.TextMax)] }

// perform runs the program. An error means that another machine should.
func (t *attempt) perform(ctx context.Context) (exit task.Exit, usage task.Usage, err error) {
	a := t.agent
	gpus := a.devices.take(t.is.Spec.Need.Count)
	defer a.devices.give(gpus)
	spec, err := a.spec(t.is, gpus)
	switch {
	case errors.Is(err, run.ErrStart):
		return notBegun(err), usage, nil
	case err != nil:
		return exit, usage, err
	}
	if spec.Stdin != nil {
		defer spec.Stdin.Close()
	}
	out, err := a.tree.outputs(ctx, t, &spec)
	if err != nil {
		return exit, usage, err
	}
	if a.cfg.Left() <= 0 {
		out.abandon()
		return exit, usage, errors.New("the machine is cut off")
	}
	spec.Until = a.until()
	p, err := a.cfg.Host.Start(spec)
	out.begun()
	if err != nil {
		out.abandon()
		if errors.Is(err, run.ErrStart) {
			return notBegun(err), usage, nil
		}
		return exit, usage, err
	}
	t.mu.Lock()
	t.proc, t.until = p, spec.Until
	t.mu.Unlock()
	t.tell(t.report(task.Started))
	timedOut, cancelled := t.watch(ctx, p)
	end := p.End()
	usage = used(end.Usage)
	select {
	case <-t.fenced:
		out.abandon()
		return exit, usage, meta.Fenced
	default:
	}
	note := out.finish(ctx)
	switch {
	case end.Lost:
		return exit, usage, errors.New("the process that looked after it was killed")
	case end.Overdue && !cancelled && !timedOut: // and now the service is heard of again
		return exit, usage, errors.New("it was killed, for the machine was cut off")
	}
	return outcome(end, timedOut, cancelled, note), usage, nil
}

func notBegun(err error) task.Exit {
	return task.Exit{Cause: task.NotBegun, Code: 127, Text: err.Error()}
}

func used(u run.Usage) task.Usage { return task.Usage{CPU: u.CPU, Peak: u.Memory, Wall: u.Wall} }

// outcome is how the service is told of an end.
func outcome(end run.End, timedOut, cancelled bool, note string) task.Exit {
	exit := task.Exit{Code: end.Code, Signal: int(end.Signal), Text: note}
	good := end.Code == 0 && end.Signal == 0
	switch {
	case cancelled:
		exit.Cause = task.Killed
	case timedOut:
		exit.Cause = task.TimedOut
	case end.OOM && !good:
		exit.Cause = task.OOM
	case end.OOM && note == "":
		exit.Text = "a process of it was killed, for it had no memory left"
	}
	return exit
}

// watch does what is ordered until the task has ended, and says whether it was
// because its time was over or somebody cancelled it.
func (t *attempt) watch(ctx context.Context, p *run.Process) (timedOut, cancelled bool) {
	var timeout, kill <-chan time.Time
	if d := t.is.Spec.Timeout; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	sample := time.NewTicker(usedEvery)
	defer sample.Stop()
	fenced, stop := t.fenced, ctx.Done()
	var s standing
	end := func() {
		s.frozen = false
		p.Freeze(false)
		p.Signal(syscall.SIGTERM)
		if kill == nil {
			kill = time.After(t.agent.cfg.Grace)
		}
	}
	obey := func() {
		t.mu.Lock()
		now := t.last
		t.mu.Unlock()
		for _, o := range now.Orders {
			switch {
			case o.Seq <= s.obeyed:
				continue
			case o.Verb == task.Cancel && o.Number == int(syscall.SIGKILL):
				cancelled = true
				p.Kill()
			case o.Verb == task.Cancel:
				cancelled = true
				end()
			case o.Verb == task.Signal:
				p.Signal(syscall.Signal(o.Number))
			}
			s.obeyed = o.Seq
			report := t.report(task.Obeyed)
			report.Order = o.Seq
			t.tell(report)
		}
		if now.Frozen != s.frozen && !cancelled && !timedOut {
			s.frozen = now.Frozen
			p.Freeze(s.frozen)
			what := task.Thawed
			if s.frozen {
				what = task.Frozen
			}
			t.tell(t.report(what))
		}
	}
	obey()
	for {
		select {
		case <-p.Done():
			return timedOut, cancelled
		case <-t.news:
			obey()
		case <-timeout:
			timedOut = true
			end()
		case <-kill:
			p.Kill()
		case <-fenced:
			fenced = nil
			p.Kill()
		case <-stop:
			stop = nil
			p.Kill()
		case <-sample.C:
			report, u := t.report(task.Used), used(p.Usage())
			report.Usage = &u
			t.tell(report)
		}
	}
}

// standing is what was done of what was ordered.
type standing struct {
	obeyed uint64 // the last order
	frozen bool
}
