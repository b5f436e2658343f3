package machines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestLostIdentity loses the administrator's identity, and a machine's directory
// with its own, but not its disk. Whoever is root on any machine makes a new one of
// the first; the machine joins again under its name, with what its disk has.
func TestLostIdentity(t *testing.T) {
	cluster.NeedFuse(t)
	disk := cluster.Dir(t)
	c := cluster.FoundedLocal(t, "1+1", cluster.Spec{})
	spec := cluster.Spec{Roles: "chunk", Flags: []string{"--disk", filepath.Join(disk, "store")}}
	b := c.Join(t, spec)
	awaitStores(t, c, 2)
	c.AwaitHealth(t, "ok", repairLimit)
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)

	made := b.Ctl(t, "token", "create", "again", "--client", "--rights", "admin")
	if made.Code != 0 {
		t.Fatalf("dosctl token create: exit status %d\n%s", made.Code, made.Stderr)
	}
	token, identity := filepath.Join(disk, "token"), filepath.Join(disk, "identity")
	if err := os.WriteFile(token, []byte(made.Stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"login", "@" + token, "--name", "again"}, {"--cluster", c.Machines[0].Addr, "token", "create"}} {
		if r := cluster.Run(t, cluster.Bin("dosctl"), append([]string{"--identity", identity}, args...)...); r.Code != 0 {
			t.Fatalf("dosctl %v: exit status %d\n%s%s", args, r.Code, r.Stdout, r.Stderr)
		}
	}

	whose := filepath.Join(disk, "store", "identity")
	before, err := os.Stat(whose)
	if err != nil {
		t.Fatal(err)
	}
	b.Kill(t)
	if err := os.RemoveAll(b.Data); err != nil {
		t.Fatal(err)
	}
	if r := c.Ctl(t, "identity", "revoke", b.Name, "--node"); r.Code != 0 {
		t.Fatalf("dosctl identity revoke: exit status %d\n%s", r.Code, r.Stderr)
	}
	c.Machines = c.Machines[:1]
	spec.Name = b.Name
	now := c.Join(t, spec)
	cluster.Await(t, statusAge, func() error {
		if r := c.Ctl(t, "node", "list"); r.Code != 0 || !strings.Contains(r.Stdout, "up     "+now.Addr) {
			return fmt.Errorf("exit status %d, want %s at %s\n%s%s", r.Code, now.Name, now.Addr, r.Stdout, r.Stderr)
		}
		return nil
	})
	awaitStores(t, c, 2)
	c.AwaitHealth(t, "ok", repairLimit)
	files.Check(t, "a machine joined again with its disk")
	if after, err := os.Stat(whose); err != nil || !os.SameFile(before, after) {
		t.Errorf("the store was not used again: %v", err)
	}
	fsck(t, c)
}
