package replica

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream is a Stream as raft wants it. Raft names peers by addresses alone; the
// peers type puts the member's name before the address, and here it comes off
// again, so that whoever answers can be held to the name.
type stream struct {
	Stream
	addr string
}

func (s stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr, ok := strings.Cut(string(to), nameEnd)
	if !ok {
		return nil, fmt.Errorf("replica: dialling %q without a name", to)
	}
	return s.Stream.Dial(MachineOf(id), addr, timeout)
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
