package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// netnsDir has the named network namespaces; each of ours is nsPrefix, the
// process that made it, and a name.
const (
	netnsDir = "/run/netns"
	nsPrefix = "dos-test-"
)

// network is a switch in a namespace of its own, so that the machine's own
// network has no part in it, and addresses need not be unique.
type network struct {
	prefix string // of its namespaces
	hosts  int    // how many there were
}

// networks counts those of this process.
var networks atomic.Int64

func newNetwork(tb testing.TB) *network {
	tb.Helper()
	NeedRoot(tb)
	Need(tb, "ip", "nsenter")
	n := &network{prefix: fmt.Sprintf("%s%d-%d-", nsPrefix, os.Getpid(), networks.Add(1))}
	n.addNamespace(tb, n.center())
	ip(tb, "-n", n.center(), "link", "add", "br0", "type", "bridge")
	ip(tb, "-n", n.center(), "link", "set", "br0", "up")
	return n
}

// center is the namespace of the switch.
func (n *network) center() string { return n.prefix + "switch" }

func (n *network) addNamespace(tb testing.TB, name string) {
	tb.Helper()
	ip(tb, "netns", "add", name)
	tb.Cleanup(func() { ip(tb, "netns", "del", name) })
}

// host is one place on a network: a namespace with an address, and a cable to
// the switch. A nil host is this machine's own network.
type host struct {
	net  *network
	name string // of the namespace
	plug string // the cable's end at the switch
	addr string
}

func (n *network) addHost(tb testing.TB) *host {
	tb.Helper()
	n.hosts++
	h := &host{net: n, name: fmt.Sprint(n.prefix, n.hosts), plug: fmt.Sprint("port", n.hosts), addr: fmt.Sprint("10.0.0.", n.hosts)}
	n.addNamespace(tb, h.name)
	ip(tb, "-n", h.name, "link", "add", "eth0", "type", "veth", "peer", "name", h.plug, "netns", n.center())
	ip(tb, "-n", h.name, "addr", "add", h.addr+"/24", "dev", "eth0")
	ip(tb, "-n", h.name, "link", "set", "lo", "up")
	ip(tb, "-n", h.name, "link", "set", "eth0", "up")
	ip(tb, "-n", n.center(), "link", "set", h.plug, "master", "br0", "up")
	return h
}

// command runs name there.
func (h *host) command(name string, args ...string) *exec.Cmd {
	if h == nil {
		return exec.Command(name, args...)
	}
	all := append([]string{"--net=" + filepath.Join(netnsDir, h.name), "--", name}, args...)
	return exec.Command("nsenter", all...)
}

// cut has everything that is sent from there and to there vanish. Nobody is
// told: the links stay up.
func (h *host) cut(tb testing.TB) {
	tb.Helper()
	ip(tb, "-n", h.net.center(), "link", "set", h.plug, "nomaster")
}

// heal ends a cut.
func (h *host) heal(tb testing.TB) {
	tb.Helper()
	ip(tb, "-n", h.net.center(), "link", "set", h.plug, "master", "br0")
}

// nobody is a hardware address that no host has.
const nobody = "02:00:00:00:00:00"

// mute has everything vanish that is sent from there to another host. Nobody is told.
func (h *host) mute(tb testing.TB, to *host) {
	tb.Helper()
	ip(tb, "-n", h.name, "neigh", "replace", to.addr, "lladdr", nobody, "dev", "eth0", "nud", "permanent")
}

// unmute ends a mute.
func (h *host) unmute(tb testing.TB, to *host) {
	tb.Helper()
	ip(tb, "-n", h.name, "neigh", "del", to.addr, "dev", "eth0")
}

// pids are the processes there.
func (h *host) pids(tb testing.TB) (pids []int) {
	tb.Helper()
	for _, word := range strings.Fields(ip(tb, "netns", "pids", h.name)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			tb.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func ip(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out)
}

// sweepNetworks removes the namespaces of tests that are no more.
func sweepNetworks() error {
	list, err := filepath.Glob(filepath.Join(netnsDir, nsPrefix+"*"))
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	for _, path := range list {
		name := filepath.Base(path)
		text, _, _ := strings.Cut(strings.TrimPrefix(name, nsPrefix), "-")
		pid, err := strconv.Atoi(text)
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		// Another test may sweep at the same time.
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			if _, gone := os.Stat(path); gone == nil {
				return fmt.Errorf("ip netns del %s: %w: %s", name, err, bytes.TrimSpace(out))
			}
		}
	}
	return nil
}
