package machines

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// drainLimit bounds how long a machine with as little data may take to be drained.
const drainLimit = 3 * time.Minute

// TestChange has one more machine join, one drained and one removed, under a
// load that checks what it reads. It is never told of anything.
func TestChange(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "fio")
	c := three(t, cluster.FoundedLocal, "2+1")
	m := c.Mount(t)
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 1)
	load := startVerify(t, m.Path("load"), 1)
	defer load.end(t)

	d := c.Join(t, cluster.Spec{})
	awaitStores(t, c, 4)
	load.runs(t, "one more joined")
	gone := c.Machines[1]
	if r := d.Ctl(t, "node", "drain", gone.Name); r.Code != 0 {
		t.Fatalf("dosctl node drain: exit status %d\n%s", r.Code, r.Stderr)
	}
	cluster.Await(t, drainLimit, func() error {
		r := d.Ctl(t, "node", "remove", gone.Name)
		if r.Code != 0 {
			return fmt.Errorf("dosctl node remove: exit status %d: %s", r.Code, strings.TrimSpace(r.Stderr))
		}
		return nil
	})
	load.runs(t, "one was drained and removed")
	gone.Retire(t)
	// What a machine shows of the others is a second old.
	cluster.Await(t, drainLimit, func() error {
		if r := d.Ctl(t, "node", "list"); r.Code != 0 || strings.Contains(r.Stdout, "\n"+gone.Name+" ") {
			return fmt.Errorf("dosctl node list after the removal of %s: exit status %d\n%s%s", gone.Name, r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
	load.end(t)
	cluster.DropCaches(t)
	files.Check(t, "one joined, one left")
	c.Machines = append(c.Machines[:1], c.Machines[2:]...)
	c.AwaitMembers(t, 3, repairLimit)
	c.AwaitHealth(t, "ok", repairLimit)
	fsck(t, c)
}

// verify is a fio that writes random blocks and reads them back, again and again.
type verify struct {
	stop  chan struct{}
	ended chan struct{} // closed at the end
	done  chan int      // a round each
	err   error         // what fio said; valid after ended
}

// startVerify starts one on files of its own below dir, which is made.
func startVerify(tb testing.TB, dir string, jobs int) *verify {
	tb.Helper()
	if out, err := exec.Command("mkdir", "-p", dir).CombinedOutput(); err != nil {
		tb.Fatalf("mkdir: %v\n%s", err, out)
	}
	v := &verify{stop: make(chan struct{}), ended: make(chan struct{}), done: make(chan int)}
	state := cluster.Dir(tb)
	go func() {
		defer close(v.ended)
		for round := 0; ; round++ {
			cmd := exec.Command("fio", "--name=v", "--directory="+dir, fmt.Sprint("--numjobs=", jobs), "--size=8m", "--bs=4k-256k",
				"--rw=randwrite", "--ioengine=psync", "--fsync=16", "--verify=crc32c", "--verify_fatal=1", "--verify_dump=0",
				"--do_verify=1", fmt.Sprint("--randseed=", round), "--group_reporting", "--output-format=terse")
			cmd.Dir = state
			if out, err := cmd.CombinedOutput(); err != nil {
				v.err = fmt.Errorf("%w\n%s", err, out)
				return
			}
			select {
			case <-v.stop:
				return
			case v.done <- round:
			default:
			}
		}
	}()
	return v
}

// runs returns when a whole round has ended that began after the call.
func (v *verify) runs(tb testing.TB, when string) {
	tb.Helper()
	for range 2 {
		select {
		case <-v.done:
		case <-v.ended:
			tb.Fatalf("%s: fio --verify: %v", when, v.err)
		case <-time.After(repairLimit):
			tb.Fatalf("%s: fio --verify: no round has ended in %v", when, repairLimit)
		}
	}
}

// end stops the load, and says what it met. It may be called again.
func (v *verify) end(tb testing.TB) {
	tb.Helper()
	select {
	case <-v.stop:
		return
	default:
		close(v.stop)
	}
	<-v.ended
	if v.err != nil {
		tb.Errorf("fio --verify: %v", v.err)
	}
}
