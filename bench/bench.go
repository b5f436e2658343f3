package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	rounds = 3
	// jobs is the number of jobs of the parallel cells.
	jobs = 8
)

// size is how much data and time a cell may take.
type size struct {
	file    int64         // bytes of the one file, or of eight together
	runtime time.Duration // of one cell
	entries int           // names of the metadata cells, per job
}

var (
	fullSize  = size{file: 512 << 20, runtime: 2 * time.Second, entries: 3000}
	quickSize = size{file: 256 << 20, runtime: 2 * time.Second, entries: 1000}
)

// heat says what the caches hold when a cell begins.
type heat int

const (
	asIs heat = iota
	cold      // just mounted, the kernel's caches dropped
	warm      // the files were read through just before
)

// A cell is one thing to measure: a number, larger is better.
type cell struct {
	name  string
	unit  string
	heat  heat
	quick bool    // is part of a quick run
	goal  float64 // the ratio to PT that is aimed for; 0: none
	run   func(ctx context.Context, dir string, s size) (float64, error)
}

// A group is cells that are measured under one mount of each target.
type group struct {
	name  string
	cells []cell
}

// groups lists everything that is measured.
func groups() []group {
	var write, fsync, read []cell
	for _, bs := range []string{"1m", "4k"} {
		for _, n := range []int{1, jobs} {
			for _, order := range []string{"seq", "rand"} {
				one := n == 1
				write = append(write, fioCell(order+"-write", bs, n, asIs, one && (order == "seq") == (bs == "1m")))
				fsync = append(fsync, fioCell(order+"-fsync", bs, n, asIs, one && order == "rand" && bs == "4k"))
				read = append(read,
					fioCell(order+"-read", bs, n, cold, order == "seq" && one && bs == "1m" || order == "rand" && bs == "4k"),
					fioCell(order+"-read", bs, n, warm, order == "seq" && one && bs == "1m"))
			}
		}
	}
	for i := range read {
		switch read[i].name {
		case "seq-read 1m cold":
			read[i].goal = 0.5
		case "seq-read 1m warm":
			read[i].goal = 0.9
		case "rand-read 4k cold", "rand-read 4k x8 cold":
			read[i].goal = 0.4
		}
	}
	write[0].goal = 0.4 // seq-write 1m
	return []group{
		{"write", write}, {"fsync", fsync}, {"read", read},
		{"metadata", metaCells(1)}, {"metadata x8", metaCells(jobs)},
	}
}

type bench struct {
	config
	targets []target
	report  *report
	out     io.Writer
	work    string
}

func (b *bench) run(ctx context.Context) error {
	s, n := fullSize, rounds
	if b.quick {
		s, n = quickSize, 1
	}
	canCool := os.Geteuid() == 0
	if !canCool {
		fmt.Fprintln(b.out, "not root: cold cells are left out, for only root can drop the kernel's caches")
	}
	if b.only == "" || strings.Contains("verify", b.only) {
		for _, t := range b.targets {
			if err := b.verify(ctx, t, s); err != nil {
				return err
			}
		}
	}
	for round := range n {
		for _, g := range groups() {
			g.cells = slices.DeleteFunc(g.cells, func(c cell) bool {
				return b.quick && !c.quick || c.heat == cold && !canCool || !strings.Contains(c.name, b.only)
			})
			if len(g.cells) == 0 {
				continue
			}
			// Who goes first changes from round to round.
			order := slices.Concat(b.targets[round%len(b.targets):], b.targets[:round%len(b.targets)])
			for _, t := range order {
				if err := b.measure(ctx, t, g, s, round); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// verify has fio write checksummed blocks in several ways and read them back.
func (b *bench) verify(ctx context.Context, t target, s size) (err error) {
	dir, err := t.up(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.down()) }()
	began := time.Now()
	if _, err := fio(ctx, "verify", dir, job{bs: "4k", jobs: 1, size: s.file / 16, runtime: s.runtime}); err != nil {
		return fmt.Errorf("%s: %w", t.name(), err)
	}
	fmt.Fprintf(b.out, "%-6s %-24s every block as written, %.1f s\n", t.name(), "verify", time.Since(began).Seconds())
	return nil
}

// A server is a target that goes on while it is not mounted.
type server interface {
	unmount() error
	mount(ctx context.Context) (dir string, err error)
}

// remount mounts a target again, with the kernel's caches empty.
func remount(ctx context.Context, t target) (dir string, err error) {
	down, up := t.down, t.up
	if s, ok := t.(server); ok {
		down, up = s.unmount, s.mount
	}
	if err := down(); err != nil {
		return "", err
	}
	if err := dropCaches(); err != nil {
		return "", err
	}
	return up(ctx)
}

// measure runs the cells of one group on one target.
func (b *bench) measure(ctx context.Context, t target, g group, s size, round int) (err error) {
	dir, err := t.up(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.down()) }()
	if g.name != "metadata" && g.name != "metadata x8" && round == 0 {
		if err := layout(ctx, dir, s); err != nil {
			return fmt.Errorf("%s: layout: %w", t.name(), err)
		}
	}
	for _, c := range g.cells {
		switch c.heat {
		case cold:
			if dir, err = remount(ctx, t); err != nil {
				return err
			}
		case warm:
			if err := readThrough(ctx, dir); err != nil {
				return err
			}
		}
		v, err := c.run(ctx, dir, s)
		if err != nil {
			return fmt.Errorf("%s on %s: %w", c.name, t.name(), err)
		}
		b.report.add(g.name, c, t.name(), v)
		fmt.Fprintf(b.out, "%-6s %-24s %10.1f %s\n", t.name(), c.name, v, c.unit)
	}
	return nil
}
