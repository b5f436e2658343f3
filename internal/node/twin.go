package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/members"
)

// twinWait bounds how long a machine that has moved looks for one of its name where
// it was before. Most often nothing answers there, or another machine does.
const twinWait = 3 * time.Second

// noTwin says that another process is this machine already, at addr, where the
// machine was before: then the data directory is a copy of that one's, or the
// other way round. Both would vote by one name and keep the same shards.
func (m *Machine) noTwin(ctx context.Context, addr string) error {
	if addr == "" || addr == m.cfg.Listen {
		return nil
	}
	there, err := dialPeer(m.keys, &m.dialled, members.Node{Name: m.data.node, Addr: addr}, 0)
	if err != nil {
		return err
	}
	defer there.Close()
	ctx, cancel := context.WithTimeout(ctx, twinWait)
	defer cancel()
	// Another name for the same address leads to this very process.
	n, err := there.State(ctx)
	if err != nil || n.Since == meta.At(m.started) {
		return nil
	}
	return m.twin(addr)
}

func (m *Machine) twin(addr string) error {
	return fmt.Errorf("machine %s runs at %s: %s is a copy of its data, or is the data it was copied from: %w", m.data.node, addr, m.data.path, meta.Conflict)
}

// watchAddr returns an error once the cluster has this machine at another address
// than it registered, which the map of that epoch has: then a twin has taken its
// place while it could not be asked.
func (m *Machine) watchAddr(ctx context.Context, epoch uint64) error {
	for {
		changed := m.fleet.Changed()
		known := m.fleet.Map()
		if addr := m.registeredAddr(known); known.Epoch >= epoch && addr != "" && addr != m.cfg.Listen {
			return m.twin(addr)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// registeredAddr is where the cluster has this machine; empty if it does not know it.
func (m *Machine) registeredAddr(known members.Map) string {
	i := slices.IndexFunc(known.Nodes, func(n members.Node) bool { return n.Name == m.data.node })
	if i < 0 {
		return ""
	}
	return known.Nodes[i].Addr
}

// addr is the address that the machine was last started with; empty if never.
func (d *dataDir) addr() (string, error) {
	text, err := os.ReadFile(filepath.Join(d.path, "addr"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// keepAddr notes it. A copy of the directory that is started elsewhere knows by
// it where the machine may be running.
func (d *dataDir) keepAddr(addr string) error {
	return replaceFile(filepath.Join(d.path, "addr"), addr+"\n")
}
