package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// The cluster that is measured: machines on loopback, of which these have the
	// metadata and these a store each.
	metaMachines  = 3
	chunkMachines = 6
	// wholeLimit bounds the time until they are one cluster.
	wholeLimit = 2 * time.Minute
)

// A cluster is dosmount on machines of their own processes, on the same file
// system: what the network and the consensus of three cost beside dos. As of any
// target, nothing of it runs while others are measured: it would be collecting what
// its last benchmark removed.
type cluster struct {
	bin, work, point string

	machines []machine
	addrs    []string // of those with metadata
	stores   int      // of all machines
	mounted  *process
}

// A machine is a dosd.
type machine struct {
	args []string
	proc *process // nil while it is down
}

// apart are the roles of each machine if stores are apart from the metadata, and
// together if they are not; those hold queues in memory, too.
func apart() []string {
	return slices.Concat(slices.Repeat([]string{"meta"}, metaMachines), slices.Repeat([]string{"chunk"}, chunkMachines))
}

func together() []string { return slices.Repeat([]string{"meta,chunk,cache"}, metaMachines) }

// newCluster makes machines with these roles one cluster, and stops them. bin is the
// directory of the commands.
func newCluster(ctx context.Context, bin, work string, roles []string) (_ *cluster, err error) {
	c := &cluster{bin: bin, work: filepath.Join(work, "cluster"), point: filepath.Join(work, "cluster-mount")}
	if err := os.Mkdir(c.work, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.down()) }()
	for i, role := range roles {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("m%d", i)
		args := []string{"--data", c.data(i), "--listen", addr, "--name", name, "--roles", role}
		if strings.Contains(role, "meta") {
			c.addrs = append(c.addrs, addr)
		}
		if strings.Contains(role, "chunk") {
			c.stores++
		}
		if i == 0 {
			args = append(args, "--bootstrap")
		} else {
			token, err := c.dosctl(ctx, "token", "create", "--node", name)
			if err != nil {
				return nil, err
			}
			args = append(args, "--join", strings.TrimSpace(token))
		}
		c.machines = append(c.machines, machine{args: args})
		if err := c.start(ctx, i); err != nil {
			return nil, err
		}
		if i == 0 {
			if err := c.await(ctx, func(s status) bool { return s.Meta.Leader == "m0" }); err != nil {
				return nil, err
			}
		}
	}
	return c, c.awaitWhole(ctx)
}

func (c *cluster) start(ctx context.Context, i int) (err error) {
	c.machines[i].proc, err = start(ctx, c.data(i), filepath.Join(c.bin, "dosd"), c.machines[i].args...)
	return err
}

// awaitWhole waits until all machines are there.
func (c *cluster) awaitWhole(ctx context.Context) error {
	return c.await(ctx, func(s status) bool {
		up := 0
		for _, store := range s.Stores {
			if store.State == "up" {
				up++
			}
		}
		return up == c.stores && s.Meta.Members == len(c.addrs) && s.Meta.Alive == len(c.addrs)
	})
}

// status is what is looked at of what dosctl --json status prints.
type status struct {
	Meta struct {
		Leader         string
		Members, Alive int
	}
	Stores []struct{ State string }
}

func (c *cluster) data(i int) string { return filepath.Join(c.work, fmt.Sprintf("m%d", i)) }

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// dosctl asks the first machine.
func (c *cluster) dosctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "dosctl"), append([]string{"--data", c.data(0)}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return string(out), nil
}

// await asks for the status until it is as it should be.
func (c *cluster) await(ctx context.Context, is func(status) bool) error {
	limit, cancel := context.WithTimeout(ctx, wholeLimit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := c.dosctl(limit, "--json", "status")
		var s status
		if err == nil {
			err = json.Unmarshal([]byte(text), &s)
		}
		if err == nil && is(s) {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			return errors.Join(fmt.Errorf("the machines are no whole cluster after %v:\n%s", wholeLimit, text), err, ctx.Err())
		}
	}
}

func (c *cluster) name() string { return "cluster" }

// identity is the file that proves to the machines who asks.
func (c *cluster) identity() string { return filepath.Join(c.data(0), "identity") }

// mountAt mounts at a point.
func (c *cluster) mountAt(ctx context.Context, point string) (*process, error) {
	return start(ctx, point, filepath.Join(c.bin, "dosmount"), "--cluster", strings.Join(c.addrs, ","), "--identity", c.identity(), point)
}

func (c *cluster) up(ctx context.Context) (_ string, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, c.down())
		}
	}()
	for i := range c.machines {
		if err := c.start(ctx, i); err != nil {
			return "", err
		}
	}
	if err := c.awaitWhole(ctx); err != nil {
		return "", err
	}
	return c.mount(ctx)
}

func (c *cluster) mount(ctx context.Context) (_ string, err error) {
	if c.mounted, err = c.mountAt(ctx, c.point); err != nil {
		return "", err
	}
	dir := filepath.Join(c.point, "bench")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, nil
}

func (c *cluster) unmount() error { return stop(&c.mounted) }

// down ends the machines after the mount, those with metadata last: the others need
// them to leave in order.
func (c *cluster) down() error {
	err := c.unmount()
	for i := range slices.Backward(c.machines) {
		err = errors.Join(err, stop(&c.machines[i].proc))
	}
	return err
}
