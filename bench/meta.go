package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"dos/bench/load"
)

// smallFile is the size of the files of the small-file cell, in bytes.
const smallFile = 4096

// metaCells measures names, n jobs at a time, each in a directory of its own.
// The cells follow each other: what one makes the next ones use.
func metaCells(n int) []cell {
	steps := []struct {
		name string
		do   func(dir string, i int) error
	}{
		{"create", func(dir string, i int) error {
			f, err := os.OpenFile(name(dir, i), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}},
		{"stat", func(dir string, i int) error { _, err := os.Lstat(name(dir, i)); return err }},
		{"rename", func(dir string, i int) error { return os.Rename(name(dir, i), name(dir, i)+".r") }},
		{"unlink", func(dir string, i int) error { return os.Remove(name(dir, i) + ".r") }},
		{"small-files", func(dir string, i int) error {
			return os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%d", i)), small, 0o644)
		}},
	}
	var cells []cell
	for _, s := range steps {
		c := cell{name: s.name, unit: "op/s", quick: n == 1, run: func(ctx context.Context, dir string, sz size) (float64, error) {
			return metaRate(ctx, filepath.Join(dir, "names"), s.name, n, sz, s.do)
		}}
		cells = append(cells, c)
		if s.name == "stat" {
			cells = append(cells, cell{name: "readdir", unit: "names/s", quick: n == 1, run: func(ctx context.Context, dir string, sz size) (float64, error) {
				return readdirRate(ctx, filepath.Join(dir, "names"), n, sz)
			}})
		}
	}
	if n > 1 {
		for i := range cells {
			cells[i].name += fmt.Sprintf(" x%d", n)
		}
	}
	return cells
}

var small = bytes.Repeat([]byte("dos\n"), smallFile/4)

func name(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("f%06d", i)) }

func jobDir(dir string, job int) string { return filepath.Join(dir, fmt.Sprint(job)) }

// metaRate does something with each of a number of names in each of n
// directories, and returns how many a second. A step that takes names away or
// makes them handles all of them; its time is what it is.
func metaRate(ctx context.Context, dir, step string, n int, s size, do func(dir string, i int) error) (float64, error) {
	each := s.entries / n
	if step == "create" {
		if err := os.RemoveAll(dir); err != nil {
			return 0, err
		}
		for job := range n {
			if err := os.MkdirAll(jobDir(dir, job), 0o755); err != nil {
				return 0, err
			}
		}
	}
	began := time.Now()
	err := load.Parallel(ctx, n, func(ctx context.Context, job int) error {
		for i := range each {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := do(jobDir(dir, job), i); err != nil {
				return err
			}
		}
		return nil
	})
	took := time.Since(began)
	if step == "small-files" && err == nil {
		err = os.RemoveAll(dir)
	}
	return float64(n*each) / took.Seconds(), err
}

// readdirRate lists the directories until the time is up.
func readdirRate(ctx context.Context, dir string, n int, s size) (float64, error) {
	var listed atomic.Int64
	began := time.Now()
	err := load.Parallel(ctx, n, func(ctx context.Context, job int) error {
		for time.Since(began) < s.runtime/2 {
			if err := ctx.Err(); err != nil {
				return err
			}
			d, err := os.Open(jobDir(dir, job))
			if err != nil {
				return err
			}
			for err == nil {
				var names []string
				names, err = d.Readdirnames(1000)
				listed.Add(int64(len(names)))
			}
			if err = errors.Join(ignoreEOF(err), d.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(listed.Load()) / time.Since(began).Seconds(), err
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
