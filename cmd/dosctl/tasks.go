package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dos/internal/node"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/task"
	"dos/procfs/tasks"
)

// taskVerbs are about programs that run on the machines.
var taskVerbs = []verb{
	{name: "run", args: []string{"[OPTION=VALUE…]", "--", "COMMAND…"}, rest: 1, run: runTask},
	{name: "task list", flags: []string{"json"}, run: visit(taskList)},
	{name: "task show", args: []string{"ID"}, run: visit(taskShow)},
	{name: "task cancel", args: []string{"ID"}, flags: []string{"now"}, run: visit(taskCancel)},
	{name: "task ctl", args: []string{"ID", "COMMAND…"}, rest: 2, run: visit(taskControl)},
}

// mountPoint is the mount that is meant: the one that is named, the one in which the
// command is run, or else the only one.
func (c command) mountPoint() (string, error) {
	if c.mount != "" {
		return c.mount, nil
	}
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "/"
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "fuse.dos" {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(f[1])
		if cwd == point || strings.HasPrefix(cwd, point+"/") {
			return point, nil
		}
		found = append(found, point)
	}
	switch len(found) {
	case 0:
		return "", errors.New("a task is run through a mount, which has its output and knows who you are: mount with dosmount, or say --mount DIR")
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("more than one dos is mounted here: --mount %s?", strings.Join(found, ", --mount "))
}

// runTask runs a command on a machine of the cluster as if it were this one: what it
// writes is written here, what is read here it reads, signals are passed on, and its
// exit status is that of dosctl.
func runTask(ctx context.Context, c command) error {
	if c.dash < 0 || c.dash >= len(c.args) {
		return wrong("run [OPTION=VALUE…] -- COMMAND…: that is what it takes")
	}
	point, err := c.mountPoint()
	if err != nil {
		return err
	}
	id, err := submitTask(point, c.args[:c.dash], c.args[c.dash:])
	if err != nil {
		return err
	}
	dir := filepath.Join(point, "tasks", id)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	done := make(chan struct{})
	go passSignals(dir, signals, done)
	go c.passInput(dir) // ends with this process: what it reads nobody else can end
	copied := make(chan error, 2)
	for name, to := range map[string]io.Writer{"stdout": c.out, "stderr": c.errout} {
		go func() { copied <- follow(filepath.Join(dir, name), to, done) }()
	}
	text, err := os.ReadFile(filepath.Join(dir, "wait"))
	close(done)
	err = errors.Join(err, <-copied, <-copied)
	if err != nil {
		return fmt.Errorf("task %s: %w", id, err)
	}
	status, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("task %s has no exit status: %w", id, err)
	}
	if why := c.whyNot(dir); why != "" {
		fmt.Fprintf(c.errout, "dosctl: task %s: %s\n", id, why)
	}
	if status != 0 {
		return errStatus(status)
	}
	return nil
}

// whyNot is what its owner should be told of a task that ended otherwise than by itself.
func (c command) whyNot(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return ""
	}
	by, why := "", ""
	for line := range strings.Lines(string(text)) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key {
		case "ended.by":
			by = value
		case "why", "reason":
			why = value
		}
	}
	if by == task.Exited.String() {
		return ""
	}
	return strings.TrimSpace(by + " " + why)
}

// submitTask submits a command with options.
func submitTask(point string, options, args []string) (id string, err error) {
	fields := map[string]any{"args": args, "stdin": tasks.StdinPipe}
	for _, o := range options {
		key, value, ok := strings.Cut(o, "=")
		switch {
		case key == "hold" && !ok:
			fields[key] = true
		case !ok:
			return "", wrong("%q is not OPTION=VALUE, as %s says them", o, filepath.Join(point, "tasks", "help"))
		default:
			fields[key] = value
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(filepath.Join(point, "tasks", "new"), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.Write(text)
	var reply []byte
	if err == nil {
		reply, err = io.ReadAll(f)
	}
	if err != nil {
		if why, e := os.ReadFile(filepath.Join(point, "cluster", "self", "error")); e == nil && len(why) > 0 {
			return "", errors.New(strings.TrimSpace(string(why)))
		}
		return "", err
	}
	return strings.TrimSpace(string(reply)), nil
}

// passSignals passes signals on to a task, or cancels it while it does not run yet. The
// second one cancels it, the third one kills it.
func passSignals(dir string, signals <-chan os.Signal, done <-chan struct{}) {
	tell := func(line string) error {
		f, err := os.OpenFile(filepath.Join(dir, "ctl"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(line + "\n")
		return err
	}
	for n := 1; ; n++ {
		select {
		case s := <-signals:
			state, _ := os.ReadFile(filepath.Join(dir, "state"))
			line := "signal " + unix.SignalName(s.(syscall.Signal))
			switch {
			case n == 2, strings.TrimSpace(string(state)) != task.Running.String():
				line = "cancel"
			case n > 2:
				line = "cancel KILL"
			}
			if tell(line) != nil {
				_ = tell("cancel") // it is told again by the next signal
			}
		case <-done:
			return
		}
	}
}

// passInput gives a task what is read here.
func (c command) passInput(dir string) {
	f, err := os.OpenFile(filepath.Join(dir, "stdin"), os.O_WRONLY, 0)
	if err != nil {
		return // it has ended already
	}
	defer f.Close()
	_, _ = io.Copy(f, c.in) // who does not read it does not miss it
}

// outputEvery is the pause between two looks for more output.
const outputEvery = 50 * time.Millisecond

// follow copies a file that grows, until it is done.
func follow(name string, to io.Writer, done <-chan struct{}) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for last := false; ; {
		if _, err := io.Copy(to, f); err != nil || last {
			return err
		}
		select {
		case <-done:
			last = true // and what came before that
		case <-time.After(outputEvery):
		}
	}
}

func parseTask(text string) (task.ID, error) {
	id, err := task.ParseID(text)
	if err != nil {
		err = wrong("%q is no task: an id is a number, or ARRAY_INDEX", text)
	}
	return id, err
}

func taskList(ctx context.Context, c command, guest *node.Guest) error {
	list := []task.Task{}
	err := client.Tasks{Caller: guest}.Each(ctx, task.List{}, func(t task.Task) error {
		list = append(list, t)
		return nil
	})
	if err != nil {
		return err
	}
	if c.flags.json {
		return printJSON(c.out, list)
	}
	text := table{{"ID", "STATE", "USER", "QUEUE", "PRIO", "NODE", "NAME", "REASON"}}
	for _, t := range list {
		text = append(text, []string{t.ID.String(), t.State.String(), fmt.Sprint(t.Owner.UID), orDash(t.Queue), fmt.Sprint(t.Prio), orDash(t.Node), orDash(t.Name), t.Reason})
	}
	return text.print(c.out)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func taskShow(ctx context.Context, c command, guest *node.Guest) error {
	id, err := parseTask(c.args[0])
	if err != nil {
		return err
	}
	t, err := client.Tasks{Caller: guest}.Task(ctx, id)
	if err != nil {
		return fmt.Errorf("task %v: %w", id, err)
	}
	_, err = io.WriteString(c.out, tasks.StatusText(t))
	return err
}

func taskCancel(ctx context.Context, c command, guest *node.Guest) error {
	line := "cancel"
	if c.flags.now {
		line += " KILL"
	}
	return controlTask(ctx, c.args[0], line, guest)
}

func taskControl(ctx context.Context, c command, guest *node.Guest) error {
	return controlTask(ctx, c.args[0], strings.Join(c.args[1:], " "), guest)
}

func controlTask(ctx context.Context, name, line string, guest *node.Guest) error {
	id, err := parseTask(name)
	if err != nil {
		return err
	}
	req, err := tasks.ParseControl(line)
	if err != nil {
		return errUsage{err}
	}
	req.ID, req.UID = id, uint32(os.Getuid())
	err = client.Tasks{Caller: guest}.Control(ctx, req)
	if errors.Is(err, meta.NotExist) {
		err = fmt.Errorf("task %v: %w", id, err)
	}
	return err
}
