package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"dos/internal/trust"
)

// A machine that was removed is refused by all others for good, so there is
// nothing left for it to do: it says so and ends. It hears of it from the list of
// what was revoked, or, if it was away or nobody talks to it any more, asks.

const removedName = "removed"

// serveStanding tells who asks whether it was turned out.
func (m *Machine) serveStanding(ctx context.Context) error {
	l := m.port.Listener(trust.StandingProto)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		secure := conn.(interface{ ConnectionState() tls.ConnectionState }) // see Port.Listener
		if err := m.keys.ServeStanding(conn, secure.ConnectionState()); err != nil {
			slog.Debug("node: telling a machine whether it was turned out", "from", conn.RemoteAddr().String(), "err", err)
		}
	}
}

// doubt ends the machine if it was turned out.
func (m *Machine) doubt(ctx context.Context) {
	if !m.keys.Revoked() && !m.turnedOut(ctx) {
		return
	}
	if err := m.data.noteRemoved(); err != nil {
		slog.Warn("node: the next start will have to ask again", "err", err)
	}
	m.fail(m.data.removed())
}

// turnedOut asks those machines that are known. Each speaks the truth: it has
// proved that it is one of the cluster.
func (m *Machine) turnedOut(ctx context.Context) bool {
	addrs, err := m.data.peers()
	if err != nil {
		return false
	}
	var out atomic.Bool
	var wg sync.WaitGroup
	for _, addr := range addrs {
		if addr == m.cfg.Listen {
			continue
		}
		wg.Go(func() {
			if yes, err := m.keys.TurnedOut(ctx, addr); err == nil && yes {
				out.Store(true)
			}
		})
	}
	wg.Wait()
	return out.Load()
}

// removed is what a machine has to say that was turned out.
func (d *dataDir) removed() error {
	return fmt.Errorf("machine %s was removed from its cluster (node remove, or identity revoke --node): nothing in %s is needed there any more; to take the machine in again, give it another --data, empty --disk folders and a new token (--join)", d.node, d.path)
}

func (d *dataDir) noteRemoved() error {
	f, err := os.OpenFile(filepath.Join(d.path, removedName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(d.path))
}

func (d *dataDir) wasRemoved() bool {
	_, err := os.Stat(filepath.Join(d.path, removedName))
	return err == nil
}
