package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/client"
	metanode "dos/meta/node"
	"dos/meta/replica"
)

// groupWait bounds how long a machine looks for the rest of the metadata group
// before it says that it cannot start.
const groupWait = 20 * time.Second

// openMember opens this machine's metadata member. One that has lost something of
// its log or its state must not vote by what is left: if the group goes on without
// it, its directory is set aside, and it begins as another member, which gets
// everything from the others before it has a vote.
func (m *Machine) openMember(ctx context.Context) error {
	m.mesh = m.port.Mesh(protoRaft, rpc.MeshConfig{Client: m.keys.ClientConfig, Admit: membersOnly(m.keys)})
	lost := m.openMemberDir()
	if !errors.Is(lost, meta.Lost) {
		return lost
	}
	if err := m.groupLives(ctx); err != nil {
		return fmt.Errorf("%w; nor can it begin anew, since no other member is known to lead (%v)", lost, err)
	}
	kept, err := replica.SetAside(m.data.meta())
	if err != nil {
		return errors.Join(lost, err)
	}
	slog.Warn("node: this machine's metadata has lost something: it is kept aside, and all of it comes from the other machines", "err", lost, "kept", kept)
	return m.openMemberDir()
}

func (m *Machine) openMemberDir() (err error) {
	dir := m.data.meta()
	if m.member, err = replica.MemberID(dir, m.data.node); err == nil {
		m.meta, err = metanode.Open(replica.Config{Dir: dir, ID: m.member, Stream: m.mesh, Address: m.cfg.Listen, Fatal: m.fail})
	}
	if err != nil {
		return fmt.Errorf("metadata in %s: %w", dir, err)
	}
	return nil
}

// groupLives asks the other machines for an answer that only a leader gives.
func (m *Machine) groupLives(ctx context.Context) error {
	addrs, err := m.data.peers()
	if err != nil {
		return err
	}
	addrs = slices.DeleteFunc(addrs, func(addr string) bool { return addr == m.cfg.Listen })
	service, err := dialMeta(m.keys, &m.dialled, addrs)
	if err != nil {
		return err
	}
	defer service.close()
	ctx, cancel := context.WithTimeout(ctx, groupWait)
	defer cancel()
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		_, err := (client.Members{Caller: service.anyone()}).Map(ctx, 0)
		if err == nil || !errors.Is(err, meta.Unavailable) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
