package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"dos/bench/load"
)

// tasksList is what is measured of tasks, of one machine.
var tasksList = []service{
	{name: "submit", unit: "op/s", beside: "slurm", cell: "submit", aim: 10},
	{name: "batch", unit: "op/s", aim: 1000},
	{name: "jobs", unit: "op/s", aim: 50},
	{name: "jobs beside", unit: "op/s", beside: "slurm", cell: "jobs", aim: 10},
	{name: "jobs with output", unit: "op/s", aim: 50},
	{name: "start", unit: "ms", aim: 100, most: true},
}

const (
	// jobClients submit jobs at once that begin when there is room, and submitClients those
	// of which only the submission is measured, submitCount in all.
	jobClients    = 4
	submitClients = 16
	submitCount   = 1600
	// jobCount is how many run; slurmCount likewise of Slurm, which runs some five a second.
	jobCount   = 400
	slurmCount = 40
	// startCount and slurmStarts are how often the way to a start is measured.
	startCount  = 25
	slurmStarts = 5
	batchCount  = 5000
)

// tasks measures jobs of one machine beside those of Slurm.
func tasks(ctx context.Context, c config, work string, out io.Writer) error {
	t := make(tableau)
	n := serviceRounds
	if c.quick {
		n = 1
	}
	slurm, why := newSlurm(work)
	if why != nil {
		fmt.Fprintf(out, "skipped: slurm: %v\n", why)
	}
	for round := range n {
		say := func(who string) func(cell string, v float64) {
			return func(cell string, v float64) {
				t.add(who, cell, v)
				fmt.Fprintf(out, "%d %-12s %-28s %10.2f\n", round, who, cell, v)
			}
		}
		if err := dosTasks(ctx, c.dosmount, work, say("dos")); err != nil {
			return err
		}
		if slurm != nil {
			if err := slurm.measure(ctx, say("slurm")); err != nil {
				return fmt.Errorf("slurm: %w", err)
			}
		}
	}
	if c.json != "" {
		b, err := json.MarshalIndent(t, "", "\t")
		if err == nil {
			err = os.WriteFile(c.json, append(b, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	if err := t.print(out, tasksList); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "for comparison: from a submission to the start with slurm %.0f ms\n", t.median("slurm", "start"))
	return err
}

// dosTasks measures what tasksList names.
func dosTasks(ctx context.Context, bin, work string, say func(cell string, v float64)) (err error) {
	point := filepath.Join(work, "tasks")
	p, err := start(ctx, point, bin, "--data", filepath.Join(work, "tasks-data"), point)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(&p)) }()
	s := &dosJobs{point: point, script: "true\n"}
	if err := errors.Join(s.Submit(ctx), s.Settle(ctx)); err != nil { // so that it runs tasks by now
		return err
	}
	ended, err := load.Jobs(ctx, s, jobClients, jobCount)
	if err != nil {
		return err
	}
	say("jobs", ended)
	say("jobs beside", ended)
	s.script = "echo done\n"
	if ended, err = load.Jobs(ctx, s, jobClients, jobCount); err != nil {
		return err
	}
	say("jobs with output", ended)
	took, err := load.Starts(ctx, s, startCount)
	if err != nil {
		return err
	}
	say("start", float64(took)/1e6)
	later := &dosJobs{point: point, script: "#DOS at=+1h\ntrue\n"}
	submitted, err := load.Submissions(ctx, later, submitClients, submitCount)
	if err != nil {
		return err
	}
	say("submit", submitted)
	began := time.Now()
	if err := os.WriteFile(filepath.Join(point, "tasks", "batch"), bytes.Repeat([]byte("true\n"), batchCount), 0); err != nil {
		return err
	}
	say("batch", batchCount/time.Since(began).Seconds())
	return nil
}

// dosJobs submits tasks through a mount.
type dosJobs struct {
	point  string
	script string

	mu  sync.Mutex
	ids []string // that have not been seen to end; guarded by mu
}

func (d *dosJobs) submit(script string) (id string, err error) {
	f, err := os.OpenFile(filepath.Join(d.point, "tasks", "new"), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.WriteString(script); err != nil {
		return "", err
	}
	text := make([]byte, 64)
	n, err := f.Read(text)
	if err != nil {
		return "", err
	}
	id = strings.TrimSpace(string(text[:n]))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids = append(d.ids, id)
	return id, nil
}

func (d *dosJobs) Submit(context.Context) error {
	_, err := d.submit(d.script)
	return err
}

// Settle waits for those whose numbers it was told.
func (d *dosJobs) Settle(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range d.ids {
		if text, err := os.ReadFile(filepath.Join(d.point, "tasks", id, "wait")); err != nil || string(text) != "0\n" {
			return fmt.Errorf("task %s ended with %q: %w", id, text, err)
		}
	}
	d.ids = nil
	return nil
}

func (d *dosJobs) Start(ctx context.Context) (time.Time, error) {
	id, err := d.submit(saysWhen)
	if err == nil {
		err = d.Settle(ctx)
	}
	if err != nil {
		return time.Time{}, err
	}
	return when(filepath.Join(d.point, "tasks", id, "stdout"))
}

// saysWhen is a script that says when it began, in nanoseconds of the clock.
const saysWhen = "date +%s%N\n"

// when reads what it said.
func when(file string) (time.Time, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return time.Unix(0, ns), err
}
