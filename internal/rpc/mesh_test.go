package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/internal/trust"
)

// mesh runs a machine's port that speaks raw and echoes what comes.
func mesh(t *testing.T, keys *trust.Keyring) (*rpc.Port, *rpc.Mesh) {
	t.Helper()
	port := rpc.NewPort(rpctest.Listen(t), keys.ServerConfig(raw), slog.New(slog.DiscardHandler), raw)
	m := port.Mesh(raw, rpc.MeshConfig{Client: keys.ClientConfig, Admit: func(cs tls.ConnectionState) error {
		peer, err := keys.Peer(cs)
		if err == nil && !peer.IsNode() {
			err = errors.New("not a node")
		}
		return err
	}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- port.Run(ctx) }()
	go func() {
		for {
			conn, err := m.Accept()
			if err != nil {
				ended <- nil
				return
			}
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return port, m
}

func TestMesh(t *testing.T) {
	identity := realm(t)
	keys := identity("a", trust.Member)
	_, a := mesh(t, keys)
	port, b := mesh(t, identity("b", trust.Member))
	addr := port.Addr().String()
	conn, err := a.Dial("b", addr, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	echo := func(conn net.Conn) error {
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 5))
		return err
	}
	if err := echo(conn); err != nil {
		t.Error(err)
	}
	// Whoever answers is the machine that was asked for.
	if conn, err := a.Dial("c", addr, time.Minute); !errors.Is(err, rpc.ErrDown) || !errors.Is(err, trust.ErrRefused) {
		t.Errorf("dialling b as c: %v, %v", conn, err)
	}
	// A client of the cluster has a certificate too. It is no part of this.
	client, err := tls.Dial("tcp", addr, identity("c", trust.Admin).ClientConfig("b", raw))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := echo(client); err == nil {
		t.Error("a client was served")
	}
	// Who is turned out loses the connections that others have to it.
	b.Drop(func(tls.ConnectionState) bool { return true }) // it has dialled nobody
	if err := echo(conn); err != nil {
		t.Errorf("after others' connections were dropped: %v", err)
	}
	a.Drop(func(cs tls.ConnectionState) bool { peer, err := keys.Peer(cs); return err == nil && peer.Name == "b" })
	if err := echo(conn); err == nil {
		t.Error("a dropped connection is open still")
	}
	conn.Close()
}

// TestMeshWhole writes much from several goroutines at once: each write arrives
// whole.
func TestMeshWhole(t *testing.T) {
	const writers, each, size = 4, 5, 1 << 20
	identity := realm(t)
	_, a := mesh(t, identity("a", trust.Member))
	port, _ := mesh(t, identity("b", trust.Member))
	conn, err := a.Dial("b", port.Addr().String(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range writers {
		wg.Go(func() {
			for range each {
				if n, err := conn.Write(bytes.Repeat([]byte{byte(i)}, size)); n != size || err != nil {
					t.Errorf("writing: %d, %v", n, err)
				}
			}
		})
	}
	got := make([]byte, size)
	seen := make(map[byte]int)
	for range writers * each {
		if _, err := io.ReadFull(conn, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, bytes.Repeat(got[:1], size)) {
			t.Fatal("two writes are mixed")
		}
		seen[got[0]]++
	}
	for i := range writers {
		if seen[byte(i)] != each {
			t.Errorf("writer %d: %d of %d writes arrived", i, seen[byte(i)], each)
		}
	}
}

// A machine that takes connections and says nothing, as one that is stopped does,
// is not waited for without bound.
func TestMeshHalfOpen(t *testing.T) {
	_, a := mesh(t, realm(t)("a", trust.Member))
	silent := rpctest.Listen(t)
	defer silent.Close()
	began := time.Now()
	if _, err := a.Dial("b", silent.Addr().String(), 100*time.Millisecond); !errors.Is(err, rpc.ErrDown) {
		t.Errorf("dialling a silent machine: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
