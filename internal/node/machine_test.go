package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/chunk"
	"dos/internal/admission"
	"dos/internal/trust"
	"dos/procfs/cluster"
)

// A machineTest is one machine of a cluster in this process.
type machineTest struct {
	*Machine
	cfg  MachineConfig
	stop func() // cleanly; returns when it has stopped
	out  func() // waits until it has ended because it was removed
}

// startMachine runs a machine until the test ends or stop is called.
func startMachine(t *testing.T, c MachineConfig) *machineTest {
	t.Helper()
	m, err := openMachine(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- errors.Join(m.run(ctx), m.close()) }()
	stopped := false
	mt := &machineTest{Machine: m, cfg: c}
	mt.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("machine %s: %v", m.data.node, err)
		}
	}
	mt.out = func() {
		stopped = true
		if err := <-done; err == nil || err.Error() != m.data.removed().Error() {
			t.Errorf("machine %s, removed: %v", m.data.node, err)
		}
		cancel()
	}
	t.Cleanup(mt.stop)
	return mt
}

// freeAddr is an address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// machineConfig is that of a machine with all roles.
func machineConfig(t *testing.T, name string) MachineConfig {
	return MachineConfig{Data: filepath.Join(t.TempDir(), name), Listen: freeAddr(t), Name: name, Roles: Roles}
}

func (m *machineTest) token(t *testing.T, name string) string {
	t.Helper()
	var text string
	eventually(t, "a token", func() (err error) {
		text, err = m.office.CreateToken(t.Context(), admission.TokenWish{Name: name, Rights: trust.Member})
		return err
	})
	return text
}

// eventually waits until cond is nil.
func eventually(t *testing.T, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s after a minute: %v", what, err)
		}
		select { // a poll of a condition that other goroutines bring about
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// status is what dosctl is told.
func (m *machineTest) status(ctx context.Context) (cluster.Status, error) {
	s, err := machineAdmin{m.Machine}.Status(ctx)
	if err != nil {
		return cluster.Status{}, err
	}
	return s.(cluster.Status), nil
}

// whole is nil if the machine sees a cluster of n machines that is as it should be.
func (m *machineTest) whole(ctx context.Context, n int) error {
	s, err := m.status(ctx)
	switch {
	case err != nil:
		return err
	case s.Meta.Leader == "":
		return errors.New(s.Repair.Error)
	case s.Meta.Members != n || s.Meta.Alive != n:
		return fmt.Errorf("%d of %d metadata members are alive, want %d", s.Meta.Alive, s.Meta.Members, n)
	case states(s, cluster.Up) != n:
		return fmt.Errorf("%d stores are up, want %d", states(s, cluster.Up), n)
	case s.Health().Word != cluster.OK:
		return fmt.Errorf("health %v", s.Health())
	}
	return nil
}

// Three machines become one cluster, and stay one while each is restarted.
func TestMachines(t *testing.T) {
	a := machineConfig(t, "a")
	a.Bootstrap, a.Code = true, chunk.Code{K: 1, M: 2}
	all := []*machineTest{startMachine(t, a)}
	for _, name := range []string{"b", "c"} {
		c := machineConfig(t, name)
		c.Join = all[0].token(t, name)
		all = append(all, startMachine(t, c))
	}
	for _, m := range all {
		eventually(t, "whole cluster", func() error { return m.whole(t.Context(), 3) })
	}
	// A disk that loses all it had, with the folder it lay in, is filled again.
	if err := os.RemoveAll(filepath.Join(all[2].cfg.Data, "chunk")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new store", func() error {
		if list := all[2].events.Log(); !slices.ContainsFunc(list, func(e cluster.Event) bool { return strings.Contains(e.Text, "starts empty") }) {
			return fmt.Errorf("events: %v", list)
		}
		return nil
	})
	for _, m := range all {
		eventually(t, "whole cluster after a loss", func() error { return m.whole(t.Context(), 3) })
	}
	for i, m := range all { // the leader among them
		m.stop()
		other := all[(i+1)%3]
		eventually(t, "other machine in charge", func() error {
			s, err := other.status(t.Context())
			if err == nil && (s.Name == "" || s.Name == m.data.node || s.Meta.Alive != 2) {
				err = fmt.Errorf("%q is in charge of %d members", s.Name, s.Meta.Alive)
			}
			return err
		})
		all[i] = startMachine(t, m.cfg) // by the same command
		for _, m := range all {
			eventually(t, "whole cluster again", func() error { return m.whole(t.Context(), 3) })
		}
	}
}

// What does not fit is refused with a line that says so, and nothing is touched.
func TestMachineRefused(t *testing.T) {
	first := machineConfig(t, "a")
	first.Bootstrap = true
	a := startMachine(t, first)
	used := a.token(t, "")
	b := machineConfig(t, "b")
	b.Join = used
	startMachine(t, b).stop()

	change := func(c MachineConfig, change func(*MachineConfig)) MachineConfig {
		change(&c)
		return c
	}
	fresh := machineConfig(t, "c")
	for _, test := range []struct {
		name string
		c    MachineConfig
		want string
	}{
		{"neither founds nor joins", fresh, "not a data directory"},
		{"used token", change(fresh, func(c *MachineConfig) { c.Join = used }), "token"},
		{"token of another name", change(fresh, func(c *MachineConfig) { c.Join = a.token(t, "d") }), "d"},
		{"name that is taken", change(fresh, func(c *MachineConfig) { c.Join, c.Name = a.token(t, ""), "b" }), "b"},
		{"cut token", change(fresh, func(c *MachineConfig) { c.Join = used[:len(used)-4] }), "not whole"},
		{"another's data", change(b, func(c *MachineConfig) { c.Name = "c" }), "belongs to machine b"},
		{"data in use", change(first, func(c *MachineConfig) { c.Listen = freeAddr(t) }), "in use"},
		{"address in use", change(b, func(c *MachineConfig) { c.Listen = first.Listen }), "in use"},
		{"no address", change(fresh, func(c *MachineConfig) { c.Listen = "0.0.0.0:7600" }), "reach this one"},
		{"another code", change(first, func(c *MachineConfig) { c.Code = chunk.Code{K: 2, M: 1} }), "--ec"},
	} {
		m, err := openMachine(t.Context(), test.c)
		if err == nil {
			m.close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if _, _, err := takeData(fresh.Data, false, nil); err == nil || !strings.Contains(err.Error(), "not a data directory") {
		t.Errorf("a machine that was refused left a directory: %v", err)
	}
}
