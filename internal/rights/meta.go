package rights

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"dos/internal/trust"
	"dos/meta"
	"dos/meta/cache"
	"dos/meta/members"
	"dos/meta/queue"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/task"
	metatrust "dos/meta/trust"
)

// A Handler executes requests (meta/rpc.Handler, which a metadata member is).
type Handler interface {
	Do(ctx context.Context, cmd state.Command) (state.Reply, error)
}

// Meta is a Handler for requests that come over connections. It passes on to
// another what the peers may ask for. Its methods may be called concurrently.
type Meta struct {
	next Handler
	who  func(context.Context) (trust.Peer, error)

	mu     sync.Mutex
	owners map[meta.SessionID]string // a session keeps its owner; guarded by mu
}

// ownersMax bounds the sessions whose owners are remembered. They are asked for
// again when they were forgotten.
const ownersMax = 1 << 14

// NewMeta returns a Meta.
func NewMeta(next Handler, who func(context.Context) (trust.Peer, error)) *Meta {
	return &Meta{next: next, who: who, owners: make(map[meta.SessionID]string)}
}

// Leader is meta/rpc.Leader's, for the handler behind.
func (m *Meta) Leader() (me bool, addr string) {
	if next, ok := m.next.(interface{ Leader() (bool, string) }); ok {
		return next.Leader()
	}
	return true, ""
}

// Do passes cmd on if the peer may ask for it, else it is meta.Permission.
func (m *Meta) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	peer, err := m.who(ctx)
	if err != nil {
		return state.Reply{}, fmt.Errorf("%w: %w", err, meta.Permission)
	}
	need, known := ops[cmd.Op]
	if !known {
		return state.Reply{}, fmt.Errorf("operation %#04x is unknown here: %w", uint16(cmd.Op), meta.Unsupported)
	}
	if peer.Rights < need {
		return state.Reply{}, fmt.Errorf("operation %#04x is not for %v: %w", uint16(cmd.Op), peer.Identity, meta.Permission)
	}
	if cmd.Session != 0 {
		if reply, err := m.owns(ctx, peer, cmd.Session); err != nil || reply.Kind != 0 {
			return reply, err
		}
	}
	if special, ok := specials[cmd.Op]; ok {
		if reply, err := special(m, ctx, peer, &cmd); err != nil || reply != nil {
			if reply == nil {
				reply = new(state.Reply)
			}
			return *reply, err
		}
	}
	return m.next.Do(ctx, cmd)
}

// specials look at the request itself. They may change it, answer it, or refuse it.
var specials = map[state.Op]func(*Meta, context.Context, trust.Peer, *state.Command) (*state.Reply, error){
	session.OpOpen:     open,
	session.OpEnd:      end,
	session.OpRenew:    renew,
	task.OpSubmit:      submit,
	task.OpOffer:       offer,
	members.OpPutNode:  putNode,
	members.OpPutStore: putStore,
	queue.OpServe:      holdQueues,
	cache.OpServe:      holdEntries,
}

// open notes whose session it is.
func open(_ *Meta, _ context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	var req session.Open
	if err := read(cmd, &req); err != nil {
		return nil, err
	}
	req.Peer = Owner(peer)
	cmd.Body = state.Marshal(req)
	return nil, nil
}

// end is for the owner and for administrators.
func end(m *Meta, ctx context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	var req session.End
	if err := read(cmd, &req); err != nil || peer.Rights >= trust.Admin {
		return nil, err
	}
	reply, err := m.owns(ctx, peer, req.ID)
	switch {
	case err != nil:
		return nil, err
	case reply.Kind == meta.Expired: // it has ended
		return &state.Reply{Body: state.Marshal(session.Ended{})}, nil
	case reply.Kind != 0:
		return &reply, nil
	}
	return nil, nil
}

// renew is for the owner: somebody else would keep alive what a dead one held.
func renew(m *Meta, ctx context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	var req session.Ask
	if err := read(cmd, &req); err != nil {
		return nil, err
	}
	if reply, err := m.owns(ctx, peer, req.ID); err != nil || reply.Kind != 0 {
		return &reply, err
	}
	return nil, nil
}

// submit is for everybody but of root's tasks: who runs programs as root on every
// machine administers them.
func submit(_ *Meta, _ context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	var req task.Submit
	if err := read(cmd, &req); err != nil {
		return nil, err
	}
	if req.Owner.UID == 0 && peer.Rights < trust.Admin {
		return nil, fmt.Errorf("tasks of root are not for %v: %w", peer.Identity, meta.Permission)
	}
	return nil, nil
}

// offer is for the machine itself.
func offer(m *Meta, ctx context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	var req task.Offer
	if err := read(cmd, &req); err != nil {
		return nil, err
	}
	if req.Node != peer.Name {
		return nil, fmt.Errorf("%v offers what %.80q has: %w", peer.Identity, req.Node, meta.Permission)
	}
	return nil, m.isIn(ctx, peer)
}

// putNode is for the machine itself.
func putNode(m *Meta, ctx context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	var req members.Node
	if err := read(cmd, &req); err != nil {
		return nil, err
	}
	if req.Name != peer.Name {
		return nil, fmt.Errorf("%v says that it is %.80q: %w", peer.Identity, req.Name, meta.Permission)
	}
	return nil, m.isIn(ctx, peer)
}

// holdQueues is for the machine itself.
func holdQueues(m *Meta, ctx context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	var req queue.Serve
	if err := read(cmd, &req); err != nil {
		return nil, err
	}
	if req.Node != peer.Name {
		return nil, fmt.Errorf("%v says that it is %.80q: %w", peer.Identity, req.Node, meta.Permission)
	}
	return nil, m.isIn(ctx, peer)
}

// holdEntries is for the machine itself.
func holdEntries(m *Meta, ctx context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	var req cache.Serve
	if err := read(cmd, &req); err != nil {
		return nil, err
	}
	if req.Node != peer.Name {
		return nil, fmt.Errorf("%v says that it is %.80q: %w", peer.Identity, req.Node, meta.Permission)
	}
	return nil, m.isIn(ctx, peer)
}

func putStore(m *Meta, ctx context.Context, peer trust.Peer, cmd *state.Command) (*state.Reply, error) {
	if err := read(cmd, new(members.Store)); err != nil {
		return nil, err
	}
	return nil, m.isIn(ctx, peer)
}

// isIn refuses who was turned out, by what is on record now: what this process was
// told last is a moment old, and who comes back in that moment would stay on record.
func (m *Meta) isIn(ctx context.Context, peer trust.Peer) error {
	reply, err := m.next.Do(ctx, state.Command{Op: metatrust.OpAuthorities, Body: state.Marshal(metatrust.Since{})})
	if err == nil {
		err = reply.Err()
	}
	if err != nil {
		return err
	}
	var now metatrust.Authorities
	if err := state.Unmarshal(reply.Body, &now); err != nil {
		return fmt.Errorf("whom to trust: %w: %v", meta.Invalid, err)
	}
	if slices.Contains(now.Revoked, peer.Serial) {
		return fmt.Errorf("%v was turned out: %w", peer.Identity, meta.Unavailable)
	}
	return nil
}

func read(cmd *state.Command, req any) error {
	if state.Unmarshal(cmd.Body, req) != nil {
		return fmt.Errorf("operation %#04x: the request does not decode: %w", uint16(cmd.Op), meta.Invalid)
	}
	return nil
}

// Owner names a peer in the record of a session.
func Owner(peer trust.Peer) string {
	if peer.IsNode() {
		return "node/" + peer.Name
	}
	return "client/" + peer.Name
}

// owns says whether a session is the peer's: an empty reply. A session that is not
// there has expired.
func (m *Meta) owns(ctx context.Context, peer trust.Peer, id meta.SessionID) (state.Reply, error) {
	whose, err := m.owner(ctx, id)
	switch {
	case errors.Is(err, meta.NotExist):
		return state.Reply{Kind: meta.Expired, Text: fmt.Sprintf("session %d: %v", id, meta.Expired)}, nil
	case err != nil:
		return state.Reply{}, err
	case whose != Owner(peer):
		return state.Reply{}, fmt.Errorf("session %d is not that of %v: %w", id, peer.Identity, meta.Permission)
	}
	return state.Reply{}, nil
}

// owner says who opened a session; nobody whom a connection names if it is one of
// a member's own process.
func (m *Meta) owner(ctx context.Context, id meta.SessionID) (string, error) {
	m.mu.Lock()
	whose, known := m.owners[id]
	m.mu.Unlock()
	if known {
		return whose, nil
	}
	reply, err := m.next.Do(ctx, state.Command{Op: session.OpSession, Body: state.Marshal(session.Ask{ID: id})})
	if err == nil {
		err = reply.Err()
	}
	if err != nil {
		return "", err
	}
	var info session.Info
	if err := state.Unmarshal(reply.Body, &info); err != nil {
		return "", fmt.Errorf("session %d: %w: %v", id, meta.Invalid, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.owners) >= ownersMax {
		clear(m.owners)
	}
	m.owners[id] = info.Peer
	return info.Peer, nil
}
