package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// jobFiles are fio's job files. They take what varies from the environment, so
// that they can be run by hand too.
//
//go:embed fio/*.fio
var jobFiles embed.FS

// job is what varies.
type job struct {
	bs      string
	jobs    int
	size    int64 // bytes of each job
	runtime time.Duration
}

// fioCell measures one job file at one block size and parallelism.
func fioCell(file, bs string, n int, h heat, quick bool) cell {
	c := cell{name: file + " " + bs, unit: "op/s", heat: h, quick: quick}
	if n > 1 {
		c.name += fmt.Sprintf(" x%d", n)
	}
	switch h {
	case cold:
		c.name += " cold"
	case warm:
		c.name += " warm"
	}
	if bs == "1m" {
		c.unit = "MiB/s"
	}
	c.run = func(ctx context.Context, dir string, s size) (float64, error) {
		r, err := fio(ctx, file, dir, job{bs: bs, jobs: n, size: s.file / int64(n), runtime: s.runtime})
		if err != nil {
			return 0, err
		}
		if bs == "1m" {
			return r.bytes / (1 << 20), nil
		}
		return r.ops, nil
	}
	return c
}

// layout writes the files that reading and overwriting cells use: the first
// has the full size, the others what one of eight jobs needs.
func layout(ctx context.Context, dir string, s size) error {
	if _, err := os.Stat(filepath.Join(dir, "rand.0")); err == nil {
		return nil
	}
	if _, err := fio(ctx, "layout", dir, job{bs: "1m", jobs: jobs, size: s.file / jobs}); err != nil {
		return err
	}
	_, err := fio(ctx, "layout", dir, job{bs: "1m", jobs: 1, size: s.file})
	return err
}

// readThrough reads the files of the reading cells once.
func readThrough(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "read.*"))
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for _, path := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// rate is what fio reports of the jobs of a file together.
type rate struct {
	bytes float64 // a second
	ops   float64 // a second
}

// fio runs a job file.
func fio(ctx context.Context, file, dir string, j job) (rate, error) {
	text, err := fs.ReadFile(jobFiles, "fio/"+file+".fio")
	if err != nil {
		return rate{}, err
	}
	cmd := exec.CommandContext(ctx, "fio", "--output-format=json", "-")
	cmd.Stdin = strings.NewReader(string(text))
	cmd.Dir = os.TempDir() // fio may leave state where it runs
	cmd.Env = append(os.Environ(), "DIR="+dir, "BS="+j.bs, fmt.Sprintf("JOBS=%d", j.jobs),
		fmt.Sprintf("SIZE=%d", j.size), fmt.Sprintf("RUNTIME=%dms", j.runtime.Milliseconds()))
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return rate{}, fmt.Errorf("fio %s: %w\n%s%s", file, errors.Join(err, ctx.Err()), stderr.String(), head(stdout.String()))
	}
	return parseFio([]byte(stdout.String()))
}

// head is the beginning of what fio said when it failed.
func head(s string) string {
	const limit = 2000
	if len(s) > limit {
		return s[:limit]
	}
	return s
}

// parseFio reads fio's JSON, which may come after lines of text. Jobs of one
// direction are added up.
func parseFio(out []byte) (rate, error) {
	_, doc, found := strings.Cut(string(out), "{")
	if !found {
		return rate{}, fmt.Errorf("fio printed no JSON: %q", head(string(out)))
	}
	type direction struct {
		Bytes float64 `json:"bw_bytes"`
		Ops   float64 `json:"iops"`
	}
	var result struct {
		Jobs []struct {
			Name        string    `json:"jobname"`
			Error       int       `json:"error"`
			Read, Write direction // fio's keys are the names in lower case
		}
	}
	if err := json.Unmarshal([]byte("{"+doc), &result); err != nil {
		return rate{}, fmt.Errorf("fio's JSON: %w", err)
	}
	if len(result.Jobs) == 0 {
		return rate{}, errors.New("fio reported no jobs")
	}
	var r rate
	for _, j := range result.Jobs {
		if j.Error != 0 {
			return rate{}, fmt.Errorf("fio: job %s: error %d", j.Name, j.Error)
		}
		r.bytes += j.Read.Bytes + j.Write.Bytes
		r.ops += j.Read.Ops + j.Write.Ops
	}
	return r, nil
}
