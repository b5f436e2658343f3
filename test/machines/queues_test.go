package machines

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"dos/test/cluster"
	"dos/test/witness"
)

// messages has one mount send what the other takes, small and large, and dosctl do so
// without a mount.
func messages(t *testing.T, c *cluster.Cluster, a, b *cluster.Mount) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(a.Path("queues", "q"), 0o755))
	must(os.Mkdir(a.Path("kv", "t"), 0o755))
	large := witness.Bytes(31, 9<<20+1)
	must(os.WriteFile(a.Path("queues", "q", "put", "x"), large, 0o644))
	must(os.WriteFile(b.Path("queues", "q", "push"), []byte("small\n"), 0))
	if got, err := os.ReadFile(b.Path("queues", "q", "pop")); err != nil || !bytes.Equal(got, large) {
		t.Fatalf("a large message comes to the other mount as %d bytes, %v", len(got), err)
	}

	// Taken, a value changed and another sent, in one.
	lease, err := os.OpenFile(a.Path("queues", "q", "lease"), os.O_RDWR, 0)
	must(err)
	defer lease.Close()
	got := make([]byte, 100)
	n, err := lease.Read(got)
	must(err)
	commit, err := os.OpenFile(a.Path("kv", "t", ".txn"), os.O_RDWR, 0)
	must(err)
	defer commit.Close()
	_, err = commit.WriteString("ack q\nput last " + strings.TrimSpace(string(got[:n])) + "\npush q next\ncommit\n")
	must(err)
	if last, err := os.ReadFile(b.Path("kv", "t", "last")); err != nil || string(last) != "small\n" {
		t.Errorf("the value is %q, %v", last, err)
	}

	if r := c.Ctl(t, "queue", "pop", "q", "--wait", "0"); r.Code != 0 || r.Stdout != "next\n" {
		t.Errorf("dosctl queue pop: %+v", r)
	}
	if r := c.Ctl(t, "queue", "take", "q", "--wait", "0", "--", "cat"); r.Code != 1 {
		t.Errorf("dosctl queue take of nothing: %+v", r)
	}
	must(os.Remove(b.Path("queues", "q")))
}
