package tasks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// partitionDefault is what the default partition is called here.
const partitionDefault = "default"

// A draft is one open of new: a task that is being written. It is submitted when it is
// read, or else when it is closed: by its opener, if it can only be written, or when
// nobody has it any more. (A descriptor that is also read is closed by each `echo >&3`
// of a shell, which closes a duplicate.) What it says so far is checked with each write,
// since shells do not look at the errors of close(2).
type draft struct {
	room *room
	how  procfs.Open
	turn chan struct{} // of one: programs that share it take turns

	// The following are owned by whose turn it is.
	text   []byte
	lines  int       // bytes of text whose lines were looked at
	spec   task.Spec // what the lines say
	runs   bool      // a line is more than a comment: what options there are came before it, as a rule
	owner  task.Owner
	cwd    string
	began  bool       // the caller was asked for, and the service answers
	usual  task.Rules // of the default partition, if it can only be written
	done   bool       // it was submitted
	failed error
	reply  []byte
}

// newText is what new says to who only reads it.
var newText = sync.OnceValue(manual.String)

// draftMax bounds what one writes, in bytes: the largest script, or the JSON of one.
const draftMax = 2 * task.SpecMax

func (f fixed) openNew(how procfs.Open) (procfs.Handle, error) {
	if !how.Write {
		return procfs.OpenText(how, newText())
	}
	return &draft{room: f.room, how: how, turn: make(chan struct{}, 1), spec: task.NewSpec()}, nil
}

func (d *draft) Stream() {}

func (d *draft) take(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *draft) WriteAt(ctx context.Context, p []byte, _ int64) (int, error) {
	if err := d.take(ctx); err != nil {
		return 0, err
	}
	defer func() { <-d.turn }()
	switch {
	case d.failed != nil:
		return 0, d.failed
	case d.done:
		return 0, fmt.Errorf("one open is one task, and this one is submitted: %w", meta.Invalid)
	}
	if err := d.write(context.WithoutCancel(ctx), p); err != nil {
		d.failed = err // nobody wants a half of it
		return 0, err
	}
	return len(p), nil
}

func (d *draft) write(ctx context.Context, p []byte) error {
	d.text = append(d.text, p...)
	switch {
	case d.isJSON():
		if len(d.text) > draftMax {
			return fmt.Errorf("a task of %d bytes, at most %d: %w", len(d.text), draftMax, meta.TooLarge)
		}
	case len(d.text) > task.ScriptMax:
		return fmt.Errorf("a script of more than %d bytes: a file of the tree may be longer, and a script can run it: %w", task.ScriptMax, meta.TooLarge)
	case bytes.IndexByte(p, 0) >= 0:
		return fmt.Errorf("a script is text, and this has a NUL: a program is run by a script that names it: %w", meta.Invalid)
	}
	if err := d.begin(ctx); err != nil {
		return err
	}
	if d.isJSON() {
		if !json.Valid(d.text) {
			return nil
		}
		s, err := d.job(ctx)
		if err != nil {
			return err
		}
		return d.admit(ctx, s)
	}
	return d.options(ctx)
}

// options does what the lines say that came whole.
func (d *draft) options(ctx context.Context) error {
	named := func() int {
		return len(d.spec.After) + len(d.spec.Labels) + len(d.spec.Queue+d.spec.Cwd+d.spec.Stdin+d.spec.Near)
	}
	was, now := named(), time.Now()
	said, runs := false, d.runs
	for {
		n := bytes.IndexByte(d.text[d.lines:], '\n')
		if n < 0 {
			break
		}
		line := string(d.text[d.lines : d.lines+n+1])
		if err := d.spec.Line(line, now); err != nil {
			return err
		}
		d.lines += n + 1
		said = said || strings.HasPrefix(line, task.Directive)
		d.runs = d.runs || strings.TrimSpace(line) != "" && line[0] != '#'
	}
	if !said && d.runs == runs {
		return nil
	}
	probe := d.spec
	probe.Script = d.text
	if err := probe.Check(); err != nil {
		return err
	}
	if named() != was {
		if err := d.room.settle(ctx, d.owner, d.cwd, &probe); err != nil {
			return err
		}
	}
	if !d.runs { // more may be said, and the partition may like it better
		return nil
	}
	return d.admit(ctx, probe)
}

// admit looks whether the partition takes such a task, for who does not read whether it
// was submitted: closing would not tell.
func (d *draft) admit(ctx context.Context, s task.Spec) (err error) {
	if d.how.Read {
		return nil
	}
	rules := d.usual
	if name := partitionName(s.Queue); name != partitionDefault {
		if rules, err = d.room.rules(ctx, name); err != nil {
			return err
		}
	}
	if err := rules.Admit(&s); err != nil {
		return fmt.Errorf("queue=%s: %w", partitionName(s.Queue), err)
	}
	return nil
}

func (d *draft) isJSON() bool { return bytes.HasPrefix(bytes.TrimLeft(d.text, " \t\r\n"), []byte("{")) }

// begin looks who submits. Who cannot read whether it was submitted hears now whether it
// could be.
func (d *draft) begin(ctx context.Context) (err error) {
	if d.began {
		return nil
	}
	if d.owner, d.cwd, err = d.room.host.Owner(d.how.Caller); err != nil {
		return err
	}
	if !d.how.Read {
		q, err := d.room.tasks.Queue(ctx, "")
		if err != nil {
			return err
		}
		d.usual = q.Rules
	}
	d.began = true
	return nil
}

// job is the whole task.
func (d *draft) job(ctx context.Context) (task.Spec, error) {
	s, err := task.Parse(d.text, task.NewSpec(), time.Now())
	if err == nil {
		err = d.room.settle(ctx, d.owner, d.cwd, &s)
	}
	return s, err
}

// rules are those of a partition that somebody named.
func (r *room) rules(ctx context.Context, queue string) (task.Rules, error) {
	q, err := r.tasks.Queue(ctx, queue)
	if errors.Is(err, meta.NotExist) {
		err = fmt.Errorf("queue=%s: there is no such partition: %w", queue, meta.Invalid)
	}
	return q.Rules, err
}

// settle makes of what somebody wrote what the service takes, and looks whether what it
// names is there.
func (r *room) settle(ctx context.Context, owner task.Owner, cwd string, s *task.Spec) error {
	if s.Queue == partitionDefault {
		s.Queue = ""
	}
	if s.Queue != "" {
		if _, err := r.rules(ctx, s.Queue); err != nil {
			return err
		}
	}
	for _, d := range s.After {
		if _, err := r.tasks.Task(ctx, d.ID); err != nil {
			if errors.Is(err, meta.NotExist) {
				err = fmt.Errorf("after=%v:%v: there is no such task, or it was forgotten: %w", d.On, d.ID, meta.Invalid)
			}
			return err
		}
	}
	if s.Cwd == "" {
		s.Cwd = cwd
	}
	return r.host.Settle(ctx, owner, s)
}

// submit submits the task, once.
func (d *draft) submit(ctx context.Context) error {
	if d.done || d.failed != nil {
		return d.failed
	}
	ctx = context.WithoutCancel(ctx)
	s, err := d.job(ctx)
	if err == nil {
		var ids []task.ID
		if ids, err = d.room.tasks.Submit(ctx, d.owner, s); err == nil {
			d.reply = []byte(ids[0].String() + "\n")
		}
	}
	d.done, d.failed = err == nil, err
	return err
}

// ReadAt submits what was written, and gives the id.
func (d *draft) ReadAt(ctx context.Context, p []byte, _ int64) (int, error) {
	if err := d.take(ctx); err != nil {
		return 0, err
	}
	defer func() { <-d.turn }()
	if len(d.text) == 0 && !d.done {
		return 0, io.EOF
	}
	if err := d.submit(ctx); err != nil {
		return 0, err
	}
	if len(d.reply) == 0 {
		return 0, io.EOF
	}
	n := copy(p, d.reply)
	d.reply = d.reply[n:]
	return n, nil
}

// Flush submits what can only be written. A writer that a signal killed may have meant
// to write more.
func (d *draft) Flush(ctx context.Context, by procfs.Closer) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer func() { <-d.turn }()
	switch {
	case len(d.text) == 0 || d.done:
		return nil
	case by.Killed && (by.Opener || by.Wrote):
		d.failed = fmt.Errorf("its writer was killed, so the task was not submitted: %w", meta.Canceled)
		return d.failed
	case by.Opener && !d.how.Read:
		return d.submit(ctx)
	}
	return nil
}

func (d *draft) Close(ctx context.Context) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer func() { <-d.turn }()
	if len(d.text) == 0 || d.done || d.failed != nil {
		return nil
	}
	return d.submit(ctx)
}
