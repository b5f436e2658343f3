package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dos/chunk"
	"dos/meta"
)

// spoilMeta damages what a machine's member says it has acknowledged, so that it
// cannot prove its log whole.
func spoilMeta(t *testing.T, data string) {
	t.Helper()
	path := filepath.Join(data, "meta", "acked")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 1024)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A machine whose metadata has lost something gets it from the others, as another
// member. Alone it does not start.
func TestMemberBeginsAnew(t *testing.T) {
	a := machineConfig(t, "a")
	a.Bootstrap, a.Code = true, chunk.Code{K: 1, M: 2}
	first := startMachine(t, a)
	eventually(t, "metadata", func() error { _, err := first.status(t.Context()); return err })
	first.stop()
	kept := filepath.Join(a.Data, "meta", "acked")
	good, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	spoilMeta(t, a.Data)
	if m, err := openMachine(t.Context(), a); !errors.Is(err, meta.Lost) || strings.Contains(err.Error(), "\n") {
		if err == nil {
			err = m.close()
		}
		t.Fatalf("alone with damaged metadata: %v", err)
	}
	if err := os.WriteFile(kept, good, 0o600); err != nil {
		t.Fatal(err)
	}

	all := []*machineTest{startMachine(t, a)}
	for _, name := range []string{"b", "c"} {
		c := machineConfig(t, name)
		c.Join = all[0].token(t, name)
		all = append(all, startMachine(t, c))
	}
	for _, m := range all {
		eventually(t, "whole cluster", func() error { return m.whole(t.Context(), 3) })
	}
	for i, m := range all { // the founder among them
		was := m.member
		m.stop()
		spoilMeta(t, m.cfg.Data)
		all[i] = startMachine(t, m.cfg) // by the same command
		if all[i].member == was {
			t.Errorf("%s is the same member still", was)
		}
		if _, err := os.Stat(filepath.Join(m.cfg.Data, "meta.lost-1", "acked")); err != nil {
			t.Errorf("what it had is not kept: %v", err)
		}
		for _, m := range all {
			eventually(t, "whole cluster again", func() error { return m.whole(t.Context(), 3) })
		}
		eventually(t, "vote of the new member", func() error {
			for _, other := range all {
				list, err := other.meta.Replica().Members()
				if err != nil {
					return err
				}
				if len(list) != len(all) {
					return fmt.Errorf("%s knows of %d members", other.data.node, len(list))
				}
				for _, member := range list {
					if member.ID == was || !member.Voter {
						return errors.New(other.data.node + " knows of " + member.ID + " without a vote, or gone")
					}
				}
			}
			return nil
		})
	}
}
