package replica

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream is a Stream as raft wants it. Raft names peers by addresses alone; the
// peers type puts the member's name before the address, and here it comes off
// again, so that whoever answers can be held to the name: the Stream sees to the
// machine, and the member on it hears whom the call is for. A machine that began
// again with an empty directory has another member, at the address of the first,
// whose votes it must not cast.
type stream struct {
	Stream
	id   string // of this member
	addr string
}

func (s stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr, ok := strings.Cut(string(to), nameEnd)
	if !ok {
		return nil, fmt.Errorf("replica: dialling %q without a name", to)
	}
	if len(id) > math.MaxUint8 {
		return nil, fmt.Errorf("replica: dialling a name of %d bytes", len(id))
	}
	began := time.Now()
	conn, err := s.Stream.Dial(MachineOf(id), addr, timeout)
	if err != nil {
		return nil, err
	}
	err = conn.SetDeadline(began.Add(timeout))
	if err == nil {
		_, err = conn.Write(append([]byte{uint8(len(id))}, id...))
	}
	if err := errors.Join(err, conn.SetDeadline(time.Time{})); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (s stream) Accept() (net.Conn, error) {
	conn, err := s.Stream.Accept()
	if err != nil {
		return nil, err
	}
	return &called{Conn: conn, id: s.id}, nil
}

// called is a connection that has been accepted. Whom it is for is read with the
// first of what Raft reads, which nobody else waits for.
type called struct {
	net.Conn
	id      string // of this member
	checked bool
}

func (c *called) Read(p []byte) (int, error) {
	if !c.checked {
		var n [1]byte
		if _, err := io.ReadFull(c.Conn, n[:]); err != nil {
			return 0, err
		}
		name := make([]byte, n[0])
		if _, err := io.ReadFull(c.Conn, name); err != nil {
			return 0, err
		}
		if string(name) != c.id {
			return 0, fmt.Errorf("replica: a call for member %q, this is %s", name, c.id)
		}
		c.checked = true
	}
	return c.Conn.Read(p)
}

func (s stream) Addr() net.Addr { return address(s.addr) }

// nameEnd is in no address and in no name that a connection could be asked for.
const nameEnd = "\n"

// address is where others reach us, which may not be what we listen on.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// A contact is what a follower said when it last answered a heartbeat.
type contact struct {
	at  time.Time
	lag uint64 // entries that the leader had and the follower had not
}

// peers is the way to the other members. It notes what followers answer to
// heartbeats, which go their own way past what is written to disks: Raft knows
// it too, and tells nobody.
type peers struct {
	*raft.NetworkTransport
	last func() uint64 // the last index of our own log

	mu    sync.Mutex
	heard map[raft.ServerID]contact // guarded by mu
	term  uint64                    // in which it was heard; guarded by mu
}

func named(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + nameEnd + addr
}

func (p *peers) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	return p.NetworkTransport.AppendEntriesPipeline(id, named(id, to))
}

func (p *peers) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	last := p.last()
	err := p.NetworkTransport.AppendEntries(id, named(id, to), args, resp)
	if err == nil && len(args.Entries) == 0 && resp.Term == args.Term {
		p.note(id, args.Term, contact{time.Now(), last - min(last, resp.LastLog)})
	}
	return err
}

func (p *peers) note(id raft.ServerID, term uint64, c contact) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if term > p.term {
		p.term, p.heard = term, make(map[raft.ServerID]contact)
	}
	if term == p.term {
		p.heard[id] = c
	}
}

// contact returns what a follower said last in this term.
func (p *peers) contact(id raft.ServerID, term uint64) (contact, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.heard[id]
	return c, ok && term == p.term
}

func (p *peers) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return p.NetworkTransport.RequestVote(id, named(id, to), args, resp)
}

func (p *peers) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return p.NetworkTransport.RequestPreVote(id, named(id, to), args, resp)
}

func (p *peers) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return p.NetworkTransport.InstallSnapshot(id, named(id, to), args, resp, data)
}

func (p *peers) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return p.NetworkTransport.TimeoutNow(id, named(id, to), args, resp)
}

// It must not lose what Raft asks a transport for by type.
var (
	_ raft.Transport   = (*peers)(nil)
	_ raft.WithPreVote = (*peers)(nil)
	_ raft.WithClose   = (*peers)(nil)
)
