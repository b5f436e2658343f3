package node

import (
	"errors"
	"fmt"
	"testing"

	"dos/chunk"
	"dos/internal/rpc"
	"dos/meta"
	"dos/procfs/cluster"
)

// The authority of a cluster is replaced while it runs, and a machine that is turned
// out is one that nobody speaks to any more, over connections old and new, and
// that ends.
func TestMachineTrust(t *testing.T) {
	a := machineConfig(t, "a")
	a.Bootstrap, a.Code = true, chunk.Code{K: 1, M: 2}
	all := []*machineTest{startMachine(t, a)}
	for i, name := range []string{"b", "c"} {
		c := machineConfig(t, name)
		if c.Join = all[0].token(t, name); i == 1 {
			c.Roles = []string{roleChunk} // it has no key of the authority
		}
		all = append(all, startMachine(t, c))
	}
	whole := func() error {
		s, err := all[0].status(t.Context())
		if err == nil && (states(s, cluster.Up) != len(all) || s.Health().Word != cluster.OK) {
			err = fmt.Errorf("%d stores are up, health %v", states(s, cluster.Up), s.Health())
		}
		return err
	}
	eventually(t, "whole cluster", whole)

	first := all[0].keys.Issuer()
	asked := machineAccess{all[2].Machine} // which passes it on
	if err := asked.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of the rotation", func() error {
		r, err := asked.Rotation(t.Context())
		if err == nil && r.Underway {
			err = fmt.Errorf("waiting for %v", r.Waiting)
		}
		return err
	})
	for _, m := range all {
		if issuer := m.keys.Issuer(); issuer == first || issuer != all[0].keys.Issuer() {
			t.Errorf("%s has a certificate of %q, the first authority was %q", m.data.node, issuer, first)
		}
	}
	eventually(t, "whole cluster after it", whole)
	all[1].stop()
	all[1] = startMachine(t, all[1].cfg) // with what it has kept
	eventually(t, "whole cluster after a restart", whole)

	if err := asked.Revoke(t.Context(), true, "c"); err != nil {
		t.Fatal(err)
	}
	p, ok := all[0].fleet.Peer("c").(peer)
	if !ok {
		t.Fatal("a does not know c")
	}
	eventually(t, "silence between a and c", func() error {
		if _, err := p.State(t.Context()); !errors.Is(err, rpc.ErrDown) {
			return fmt.Errorf("c answers a: %v", err)
		}
		if _, err := all[2].members().Map(t.Context(), 0); !errors.Is(err, meta.Unavailable) {
			return fmt.Errorf("c is answered: %v", err)
		}
		return nil
	})
	all[2].out()
	eventually(t, "the others alone", func() error {
		s, err := all[0].status(t.Context())
		if err == nil && states(s, cluster.Up) != 2 {
			err = fmt.Errorf("%d stores are up", states(s, cluster.Up))
		}
		return err
	})
}
