package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A competitor is measured beside dos, by package bench/peers.
type competitor struct {
	name string // there and in the table
	bin  string // its server
	from string // the package that has it, in Debian
}

var competitors = []competitor{
	{"etcd", "etcd", "etcd-server"},
	{"redis-always", "redis-server", "redis-server"},
	{"redis", "redis-server", "redis-server"},
	{"nats", "nats-server", "nats-server"},
	{"grpc", "", ""}, // is a library
	{"memcached", "memcached", "memcached"},
}

// A service is one thing that is measured of dos.
type service struct {
	name string
	unit string
	// beside is whose number it is compared with, and cell that number's name; empty:
	// it is held to aim itself.
	beside, cell string
	aim          float64 // at least, of the ratio; 0: it is for information
	most         bool    // the aim is at most
}

// servicesList is what is measured. The names are those that dosServices says.
var servicesList = []service{
	{name: "lock", unit: "op/s", beside: "etcd", cell: "lock", aim: 20},
	{name: "lock x16", unit: "op/s", beside: "etcd", cell: "lock x16", aim: 1},
	{name: "lock x16 share", aim: 0.8},
	{name: "lock x16 on 4 mounts", unit: "op/s", beside: "etcd", cell: "lock x16", aim: 1},
	{name: "lock x16 on 4 mounts share", aim: 0.8},
	{name: "lock x16 Go", unit: "op/s", beside: "etcd", cell: "lock x16", aim: 1},
	{name: "lock x16 Go share", aim: 0.8},
	{name: "queue", unit: "msg/s", beside: "redis-always", cell: "queue", aim: 1},
	{name: "queue Go", unit: "msg/s", beside: "redis-always", cell: "queue", aim: 2},
	{name: "queue memory Go", unit: "msg/s", beside: "redis", cell: "queue", aim: 0.7},
	{name: "watch", unit: "ms", aim: 1, most: true},
	{name: "rpc Go", unit: "call/s", beside: "grpc", cell: "rpc", aim: 1 / 1.2},
	{name: "rpc x16 Go", unit: "call/s", beside: "grpc", cell: "rpc x16", aim: 1 / 1.2},
	{name: "cache", unit: "op/s", beside: "redis", cell: "fetch", aim: 0.3},
	{name: "cache", unit: "op/s", beside: "PT", cell: "fetch"},
	{name: "cache in the bucket", unit: "op/s", beside: "redis", cell: "fetch"},
	{name: "cache of 3 machines", unit: "op/s", beside: "redis", cell: "fetch"},
	{name: "cache x16 Go", unit: "op/s", beside: "memcached", cell: "fetch x16", aim: 0.7},
	{name: "port cache set", unit: "op/s", beside: "redis", cell: "port cache set", aim: 0.5},
	{name: "port cache get", unit: "op/s", beside: "redis", cell: "port cache get", aim: 0.5},
	{name: "port cache incr", unit: "op/s", beside: "redis", cell: "port cache incr", aim: 0.5},
	{name: "port cache -P 16 set", unit: "op/s", beside: "redis", cell: "port cache -P 16 set", aim: 0.5},
	{name: "port cache -P 16 get", unit: "op/s", beside: "redis", cell: "port cache -P 16 get", aim: 0.5},
	{name: "port cache -P 16 incr", unit: "op/s", beside: "redis", cell: "port cache -P 16 incr", aim: 0.5},
	{name: "port kv set", unit: "op/s", beside: "redis", cell: "port kv set"},
	{name: "port kv get", unit: "op/s", beside: "redis", cell: "port kv get"},
	{name: "port kv incr", unit: "op/s", beside: "redis", cell: "port kv incr"},
	{name: "port kv -P 16 set", unit: "op/s", beside: "redis", cell: "port kv -P 16 set"},
	{name: "port kv -P 16 get", unit: "op/s", beside: "redis", cell: "port kv -P 16 get"},
	{name: "port kv -P 16 incr", unit: "op/s", beside: "redis", cell: "port kv -P 16 incr"},
}

const (
	serviceRounds = 3
	serviceTime   = 3 * time.Second // of one thing
)

// A tableau is all that was measured of services, by who and cell, round by round.
type tableau map[string]map[string][]float64

func (t tableau) add(who, cell string, v float64) {
	if t[who] == nil {
		t[who] = make(map[string][]float64)
	}
	t[who][cell] = append(t[who][cell], v)
}

func (t tableau) median(who, cell string) float64 { return median(t[who][cell]) }

// services measures locks, values, queues and the cache beside what people use for them.
func services(ctx context.Context, c config, work string, out io.Writer) error {
	build, err := buildPeers(ctx, work)
	if err != nil {
		return err
	}
	var able []competitor
	if msg, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(out, "skipped: all others: %s: %v\n%s", build, err, msg)
	} else {
		for _, p := range competitors {
			if _, err := exec.LookPath(p.bin); p.bin != "" && err != nil {
				fmt.Fprintf(out, "skipped: %s: %s is not installed: apt-get install %s (or your distribution's package)\n", p.name, p.bin, p.from)
				continue
			}
			able = append(able, p)
		}
	}
	port := strings.Contains(portName, c.only)
	for _, tool := range []string{"redis-server", "redis-benchmark"} {
		if _, err := exec.LookPath(tool); port && err != nil {
			port = false
			fmt.Fprintf(out, "skipped: the port for Redis: %s is not installed: apt-get install redis-server redis-tools (or your distribution's packages)\n", tool)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	machines, err := newCluster(ctx, work, work, together())
	if err != nil {
		return err
	}
	t := make(tableau)
	n, during := serviceRounds, serviceTime
	if c.quick {
		n, during = 1, serviceTime/2
	}
	for round := range n {
		say := func(who string) func(cell string, v float64) {
			return func(cell string, v float64) {
				t.add(who, cell, v)
				fmt.Fprintf(out, "%d %-12s %-28s %10.2f\n", round, who, cell, v)
			}
		}
		if port {
			err := redisPort(ctx, work, c.quick, func(who, cell string, v float64) { say(who)(cell, v) })
			if err != nil {
				return fmt.Errorf("%s: %w", portName, err)
			}
		}
		if portName == c.only {
			continue
		}
		if strings.Contains(cacheName, c.only) {
			err := embeddedCache(ctx, self, work, course{during: during}, func(who, cell string, v float64) { say(who)(cell, v) })
			if err != nil {
				return fmt.Errorf("%s: %w", cacheName, err)
			}
		}
		if err := dosServices(ctx, machines, during, c.only, say("dos")); err != nil {
			return err
		}
		for _, p := range able {
			if err := p.measure(ctx, work, during, say(p.name)); err != nil {
				return err
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
	if err := t.print(out, servicesList); err != nil {
		return err
	}
	_, err = io.WriteString(out, t.peersNote())
	return err
}

// peersDir is where the program of the others is in the checkout.
const peersDir = "bench/peers"

// buildPeers prepares to build that program. What our own module needs of late its
// go.mod need not say, and stays as it is.
func buildPeers(ctx context.Context, work string) (*exec.Cmd, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "dos").Output()
	if err != nil {
		return nil, fmt.Errorf("finding the checkout: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), peersDir)
	for from, to := range map[string]string{"go.mod": "peers.mod", "go.sum": "peers.sum"} {
		b, err := os.ReadFile(filepath.Join(dir, from))
		if err == nil {
			err = os.WriteFile(filepath.Join(work, to), b, 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	return exec.CommandContext(ctx, "go", "build", "-C", dir, "-mod=mod", "-modfile", filepath.Join(work, "peers.mod"),
		"-o", filepath.Join(work, "peers"), "."), nil
}

// measure runs the program for one of the others.
func (p competitor) measure(ctx context.Context, work string, during time.Duration, say func(cell string, v float64)) error {
	cmd := exec.CommandContext(ctx, filepath.Join(work, "peers"), "--data", work, "--for", during.String(), p.name)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", p.name, err, stderr.Bytes())
	}
	return readCells(&stdout, say)
}

// readCells reads what the program prints.
func readCells(r io.Reader, say func(cell string, v float64)) error {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var one struct {
			Cell  string
			Value float64
		}
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return fmt.Errorf("%q: %w", lines.Bytes(), err)
		}
		say(one.Cell, one.Value)
	}
	return nil
}

// print writes the table of ratios.
func (t tableau) print(w io.Writer, list []service) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "\nmedians\n%-28s %-6s %10s %26s %8s  %s\n", "", "", "dos", "beside", "ratio", "aim")
	for _, s := range list {
		if len(t["dos"][s.name]) == 0 {
			continue
		}
		mine := t.median("dos", s.name)
		got, beside := mine, ""
		if s.beside != "" {
			theirs := t.median(s.beside, s.cell)
			got, beside = ratio(mine, theirs), fmt.Sprintf("%s %.1f", s.beside, theirs)
		}
		fmt.Fprintf(&b, "%-28s %-6s %10.2f %26s %8.3f  %s\n", s.name, s.unit, mine, beside, got, s.verdict(got))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// peersNote says what else was measured of the others.
func (t tableau) peersNote() string {
	var b strings.Builder
	b.WriteString("for comparison:")
	for _, who := range []string{"redis", "nats"} {
		if v := t.median(who, "queue"); v > 0 {
			fmt.Fprintf(&b, " queue of %s %.0f msg/s;", who, v)
		}
	}
	fmt.Fprintf(&b, " a commit of etcd %.2f ms, of dos %.2f ms\n", t.median("etcd", "commit"), t.median("dos", "commit"))
	return b.String()
}

func (s service) verdict(got float64) string {
	sign, met := ">=", got >= s.aim
	if s.most {
		sign, met = "<=", got <= s.aim
	}
	switch {
	case s.aim == 0:
		return "for information"
	case got == 0 && s.beside != "":
		return fmt.Sprintf("%s %.2g, and nothing to compare with", sign, s.aim)
	case met:
		return fmt.Sprintf("%s %.2g met", sign, s.aim)
	}
	return fmt.Sprintf("%s %.2g MISSED", sign, s.aim)
}
