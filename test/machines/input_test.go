package machines

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestBadMachines has machines start that may not: each ends soon, says in one
// line why, and the cluster does not notice.
func TestBadMachines(t *testing.T) {
	cluster.NeedFuse(t)
	c := cluster.FoundedLocal(t, "2+1", cluster.Spec{Flags: threeDisks(t)})
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	a := c.Machines[0]

	good := c.Token(t, "--node")
	b := c.New(t, cluster.Spec{Name: "b"}, "--join", good)
	b.Again(t)
	c.Machines = append(c.Machines, b)
	awaitStores(t, c, 4)
	if err := os.Mkdir(filepath.Join(filepath.Dir(a.Data), "strange"), 0o755); err != nil {
		t.Fatal(err)
	}
	strange := filepath.Join(filepath.Dir(a.Data), "strange")
	if err := os.WriteFile(filepath.Join(strange, "thesis.tex"), []byte("years of work"), 0o644); err != nil {
		t.Fatal(err)
	}
	twin := b.Data + "-copy"
	if out, err := exec.Command("cp", "-a", b.Data, twin).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	expired := c.Token(t, "--node", "--ttl", "1s")
	fresh := c.Token(t, "--node")
	parts := strings.Split(fresh, "/")
	wrong := strings.Join([]string{parts[0], parts[1], strings.Repeat("a", len(parts[2]))}, "/")
	other := strings.Join([]string{parts[0], strings.Repeat("0", len(parts[1])), parts[2]}, "/")
	client := c.Token(t, "--client")
	cluster.Await(t, errorLimit, func() error { // until it has expired
		if r := c.Ctl(t, "token", "list"); r.Code != 0 || !strings.Contains(r.Stdout, "over since") {
			return fmt.Errorf("tokens: %s%s", r.Stdout, r.Stderr)
		}
		return nil
	})
	for _, bad := range []struct {
		name string
		spec cluster.Spec
		join []string
		says string
	}{
		{"a token that is none", cluster.Spec{}, []string{"--join", "nonsense"}, "token"},
		{"a wrong secret", cluster.Spec{}, []string{"--join", wrong}, "token"},
		{"another cluster's authority", cluster.Spec{}, []string{"--join", other}, "cluster"},
		{"a used token", cluster.Spec{}, []string{"--join", good}, "token"},
		{"an expired token", cluster.Spec{}, []string{"--join", expired}, "token"},
		{"a client's token", cluster.Spec{}, []string{"--join", client}, "client"},
		{"another's name", cluster.Spec{Name: "a"}, []string{"--join", fresh}, "a"},
		{"no token and a new directory", cluster.Spec{}, nil, "not a data directory"},
		{"data that is in use", cluster.Spec{Name: "a", Data: a.Data}, nil, "in use"},
		{"another's data", cluster.Spec{Name: "z", Data: a.Data}, nil, "a, not z"},
		{"a copy of another's data", cluster.Spec{Name: "b", Data: twin}, nil, "copy of its data"},
		{"a directory of something else", cluster.Spec{Data: strange}, []string{"--join", fresh}, "empty"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			if bad.spec.Data == "" {
				bad.spec.Data = filepath.Join(cluster.Dir(t), "data")
			}
			if bad.spec.Name == "" {
				bad.spec.Name = "x"
			}
			r := c.New(t, bad.spec, bad.join...).Refused(t)
			last := lastLine(r.Stderr)
			if r.Code != 1 && r.Code != 2 || !strings.HasPrefix(last, "dosd: ") || !strings.Contains(last, bad.says) {
				t.Errorf("exit status %d, last line %q; want 1 or 2 and a line of dosd that says %q", r.Code, last, bad.says)
			}
		})
	}
	files.Check(t, "after all the bad machines")
	c.AwaitHealth(t, "ok", repairLimit)
	if r := c.Ctl(t, "node", "list"); strings.Contains(r.Stdout, "\nx ") {
		t.Errorf("a machine that was refused is a member:\n%s", r.Stdout)
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestBadPeers speaks nonsense to the port of a machine: half a handshake, no
// handshake, frames that are too long, thousands of connections that say
// nothing. The others are served all the same, and nothing is told.
func TestBadPeers(t *testing.T) {
	cluster.NeedFuse(t)
	rnd := witness.Random(t)
	c := cluster.FoundedLocal(t, "2+1", cluster.Spec{Flags: threeDisks(t)})
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	a := c.Machines[0]

	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", a.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() }) //nolint:errcheck // the other side may have closed it
		return conn
	}
	for range 200 { // half-open, and they stay
		dial()
	}
	for i := range 50 { // garbage, some of which begins as TLS does
		conn := dial()
		junk := witness.Bytes(rnd.Uint64(), 1+rnd.IntN(10_000))
		if i%2 == 0 {
			junk = append([]byte{22, 3, 1, 0xff, 0xff}, junk...)
		}
		if _, err := conn.Write(junk); err != nil {
			continue // it has hung up: that is what it should do
		}
	}
	for _, proto := range []string{"", "h2", "http/1.1", "dos-raft/1", "dos-join/1", "nonsense"} {
		config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
		if proto != "" {
			config.NextProtos = []string{proto}
		}
		conn := tls.Client(dial(), config)
		if err := conn.SetDeadline(time.Now().Add(errorLimit)); err != nil {
			t.Fatal(err)
		}
		// A length of 4 GiB, and what could be its beginning; the certificate that
		// is missing is asked for in the handshake or at the first byte.
		huge := append(binary.BigEndian.AppendUint32(nil, 0xffffffff), bytes.Repeat([]byte{'{'}, 1000)...)
		_, err := conn.Write(huge)
		var answer [1 << 12]byte
		n := 0
		if err == nil {
			n, err = conn.Read(answer[:])
		}
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("protocol %q without a certificate: neither an answer nor an end in %v", proto, errorLimit)
		}
		if got := string(answer[:n]); strings.Contains(got, "dos ") || strings.Contains(got, a.Name+"/") {
			t.Errorf("protocol %q without a certificate: told %q", proto, got)
		}
	}
	began := time.Now()
	files.Add(t, m.Path("meanwhile"), 2)
	other := c.Mount(t)
	if took := time.Since(began); took > errorLimit {
		t.Errorf("with bad peers, files and a mount took %v", took)
	}
	if got, err := os.ReadFile(other.Path("meanwhile", "f300000")); err != nil || !bytes.Equal(got, files[m.Path("meanwhile", "f300000")]) {
		t.Errorf("with bad peers: %d bytes, %v", len(got), err)
	}
	c.AwaitHealth(t, "ok", repairLimit)
}
