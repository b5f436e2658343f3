package rpc

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// wireBuffer is how many bytes of TLS records go to the kernel, and come from
// it, in one system call.
const wireBuffer = 128 << 10

// A records lies between TLS and the network. TLS writes and reads each record,
// of at most 16 KiB, by itself (RFC 8446 §5.1): a shard of 1 MiB would be 64 system
// calls on either side, and the receiver woken as many times. Here the
// records of one write leave together, and what has arrived is read at once, so
// that gRPC reads without a buffer of its own.
//
// Until hands are shaken nothing is read but the record that TLS is at: what comes
// after the last one may not be for TLS (see sealed).
type records struct {
	net.Conn

	shaken bool
	in     *bufio.Reader // nil until it is needed, once hands are shaken
	head   [5]byte       // of a record, before that
	ready  []byte        // what TLS has not had of head
	left   int           // and of the rest of the record, in bytes

	mu   sync.Mutex
	held bool   // guarded by mu: more comes
	out  []byte // guarded by mu: waits for that
}

func newRecords(conn net.Conn) *records { return &records{Conn: conn} }

func (r *records) Read(p []byte) (int, error) {
	if r.shaken {
		if r.in == nil {
			r.in = bufio.NewReaderSize(r.Conn, wireBuffer)
		}
		return r.in.Read(p)
	}
	if len(r.ready) == 0 && r.left == 0 {
		if _, err := io.ReadFull(r.Conn, r.head[:]); err != nil {
			return 0, err
		}
		r.ready, r.left = r.head[:], int(binary.BigEndian.Uint16(r.head[3:]))
	}
	if len(r.ready) > 0 {
		n := copy(p, r.ready)
		r.ready = r.ready[n:]
		return n, nil
	}
	n, err := r.Conn.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		return r.Conn.Write(p)
	}
	r.out = append(r.out, p...)
	if len(r.out) < wireBuffer {
		return len(p), nil
	}
	return len(p), r.flush()
}

// hold begins to collect what is written.
func (r *records) hold() {
	r.mu.Lock()
	r.held = true
	r.mu.Unlock()
}

// release sends what was collected.
func (r *records) release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	return r.flush()
}

// flush sends what was collected. mu is held.
func (r *records) flush() error {
	if len(r.out) == 0 {
		return nil
	}
	_, err := r.Conn.Write(r.out)
	r.out = r.out[:0]
	return err
}
