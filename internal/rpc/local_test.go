package rpc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/internal/trust"
)

// tap passes connections on and keeps what it saw.
type tap struct {
	mu   sync.Mutex
	seen bytes.Buffer // guarded by mu
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.Write(p)
}

func (t *tap) saw(p []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Contains(t.seen.Bytes(), p)
}

// pass carries what comes to l to network and addr until l is closed.
func (t *tap) pass(l net.Listener, network, addr string) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial(network, addr)
		if err != nil {
			from.Close()
			continue
		}
		go func() {
			io.Copy(io.MultiWriter(to, t), from) //nolint:errcheck // either end may go
			to.Close()
		}()
		go func() {
			io.Copy(io.MultiWriter(from, t), to) //nolint:errcheck // either end may go
			from.Close()
		}()
	}
}

func listenUnix(t *testing.T, name string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

var clear = bytes.Repeat([]byte("to be read by nobody else "), 1000)

// TestLocal: within a machine a payload stays in the kernel, as it is.
func TestLocal(t *testing.T) {
	h := startHauler(t, echoes(nil, nil))
	// Another address, whose local socket leads to the first one's.
	front := rpctest.Listen(t)
	var tcp, local tap
	go tcp.pass(front, "tcp", h.addr)
	go local.pass(listenUnix(t, "@dos/"+front.Addr().String()), "unix", "@dos/"+h.addr)
	h.addr = front.Addr().String()
	c := h.dial(t, 0)
	if _, got, err := haul(t.Context(), c.Bulk, "Echo", "the header", clear); err != nil || !bytes.Equal(got, clear) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if !local.saw(clear) {
		t.Error("the payload went another way, or was changed on it")
	}
	if local.saw([]byte("the header")) {
		t.Error("the header was to be read")
	}
	if tcp.saw(clear) {
		t.Error("the payload left the machine unsealed")
	}
}

// TestNotLocal: without the local socket, payloads are sealed.
func TestNotLocal(t *testing.T) {
	h := startHauler(t, echoes(nil, nil))
	front := rpctest.Listen(t)
	var tcp tap
	go tcp.pass(front, "tcp", h.addr)
	h.addr = front.Addr().String()
	c := h.dial(t, 0)
	for end := time.Now().Add(10 * time.Second); h.bulk.Load() == 0; { // gRPC may not say yet that it is connected
		if _, got, err := haul(t.Context(), c.Bulk, "Echo", "h", clear); err != nil || !bytes.Equal(got, clear) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if time.Now().After(end) {
			t.Fatal("it did not go in bulk")
		}
	}
	if tcp.saw(clear) {
		t.Error("the payload left the machine unsealed")
	}
}

// TestLocalRelayed: somebody who carries what comes by TCP to a local socket is not
// believed, for there the payload is not sealed.
func TestLocalRelayed(t *testing.T) {
	h := startHauler(t, echoes(nil, nil))
	front := rpctest.Listen(t)
	var relay tap
	go relay.pass(front, "unix", "@dos/"+h.addr)
	config := h.identity("client", trust.Admin).ClientConfig("a", rpc.HTTP2)
	c := rpctest.Dial(t, front.Addr().String(), rpc.ClientConfig{TLS: config, Conns: 1, Bulk: true})
	if _, _, err := haul(t.Context(), c.Call, "Echo", "", nil); err != nil {
		t.Fatal(err) // TLS from end to end
	}
	if _, _, err := haul(t.Context(), c.Bulk, "Echo", "h", clear); err == nil {
		t.Error("a bulk call was carried from one kind of connection to the other")
	}
	if relay.saw(clear) {
		t.Error("the payload was sent unsealed")
	}
}

// TestLocalOfAnother: a name that another user has taken is passed by.
func TestLocalOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to listen as another user")
	}
	h := startHauler(t, echoes(nil, nil))
	front := rpctest.Listen(t)
	var tcp, thief tap
	go tcp.pass(front, "tcp", h.addr)
	var stolen net.Listener
	as(t, 65534, func() { stolen = listenUnix(t, "@dos/"+front.Addr().String()) })
	go thief.pass(stolen, "unix", "@dos/"+h.addr)
	h.addr = front.Addr().String()
	c := h.dial(t, 0)
	if _, got, err := haul(t.Context(), c.Bulk, "Echo", "h", clear); err != nil || !bytes.Equal(got, clear) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if thief.saw(clear) {
		t.Error("the payload was sent to another user")
	}
	if tcp.saw(clear) {
		t.Error("the payload left the machine unsealed")
	}
}

// as does something as another user.
func as(t *testing.T, uid int, do func()) {
	t.Helper()
	// Of this thread alone, as what it listens on remembers (unix(7), SO_PEERCRED).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid int) {
		const same = ^uintptr(0)
		if _, _, err := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); err != 0 {
			t.Fatal(err)
		}
	}
	become(uid)
	defer become(0)
	do()
}

// TestFile: an answer may be a part of a file, as far as it goes.
func TestFile(t *testing.T) {
	const size = 3 << 20
	data := make([]byte, size)
	rand.Read(data) //nolint:errcheck // it never fails
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	var f atomic.Pointer[os.File]
	f.Store(open())
	service := echoes(nil, nil)
	service.Calls["File"] = func(ctx context.Context, req *rpc.Frame) (*rpc.Frame, error) {
		return &rpc.Frame{Header: fmt.Append(nil, rpc.Local(ctx)), File: &rpc.FilePart{File: f.Load(), Off: 100, Len: size - 100}}, nil
	}
	h := startHauler(t, service)
	c := h.dial(t, 0)
	read := func(want []byte) {
		t.Helper()
		resp := rpc.Frame{Into: make([]byte, size)}
		if err := c.Bulk(t.Context(), "test", "File", new(rpc.Frame), &resp); err != nil || string(resp.Header) != "true" {
			t.Fatalf("local %q, %v", resp.Header, err)
		}
		if !bytes.Equal(resp.Into, want) {
			t.Error("other bytes than in the file")
		}
	}
	read(data[100:])
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	read(append(data[100:1<<20:1<<20], make([]byte, size-1<<20)...))
	f.Load().Close()
	read(make([]byte, size-100))
	f.Store(open())
	read(append(data[100:1<<20:1<<20], make([]byte, size-1<<20)...))

	front := rpctest.Listen(t)
	var tcp tap
	go tcp.pass(front, "tcp", h.addr)
	h.addr = front.Addr().String()
	if _, _, err := haul(t.Context(), h.dial(t, 0).Bulk, "File", "", nil); !errors.Is(err, rpc.ErrRefused) {
		t.Errorf("to another machine: %v", err)
	}
}
