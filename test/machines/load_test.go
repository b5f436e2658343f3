package machines

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"dos/test/cluster"
)

// A load is a program that works on a mount and checks what it reads, again and again.
type load struct {
	name  string
	stop  chan struct{}
	ended chan struct{} // closed at the end
	done  chan int      // a round each
	err   error         // what the program said; valid after ended
}

// startVerify starts a fio that writes random blocks and reads them back, in
// files of its own below dir, which is made.
func startVerify(tb testing.TB, dir string, jobs int) *load {
	tb.Helper()
	state := cluster.Dir(tb)
	return startLoad(tb, "fio --verify", dir, func(round int) *exec.Cmd {
		cmd := exec.Command("fio", "--name=v", "--directory="+dir, fmt.Sprint("--numjobs=", jobs), "--size=8m", "--bs=4k-256k",
			"--rw=randwrite", "--ioengine=psync", "--fsync=16", "--verify=crc32c", "--verify_fatal=1", "--verify_dump=0",
			"--do_verify=1", fmt.Sprint("--randseed=", round), "--group_reporting", "--output-format=terse")
		cmd.Dir = state
		return cmd
	})
}

// startTrees starts a shell that builds a tree below dir, which is made, with tar,
// cp, mv and ln, compares all with where it came from, and keeps the last.
func startTrees(tb testing.TB, dir string) *load {
	tb.Helper()
	src := cluster.Dir(tb) // a copy: somebody may be working on the checkout
	if err := os.CopyFS(src, os.DirFS("../../procfs/cluster")); err != nil {
		tb.Fatal(err)
	}
	return startLoad(tb, "trees", dir, func(round int) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-ec", `
			mkdir "$2"
			tar -C "$1" -cf - . | tar -C "$2" -xf -
			cp -r "$2" "$2.new"
			mv "$2.new" "$2.copy"
			diff -r "$1" "$2"
			diff -r "$1" "$2.copy"
			ln "$2/cluster.go" "$2.copy/hard"
			ln -s hard "$2.copy/soft"
			cmp "$1/cluster.go" "$2.copy/soft"
			rm -r "$2.copy"
			[ ! -e last ] || rm -r last
			mv "$2" last`, "trees", src, fmt.Sprint("tree", round))
		cmd.Dir = dir
		return cmd
	})
}

// startLoad starts one: a program for each round, which must end well.
func startLoad(tb testing.TB, name, dir string, program func(round int) *exec.Cmd) *load {
	tb.Helper()
	if out, err := exec.Command("mkdir", "-p", dir).CombinedOutput(); err != nil {
		tb.Fatalf("mkdir: %v\n%s", err, out)
	}
	l := &load{name: name, stop: make(chan struct{}), ended: make(chan struct{}), done: make(chan int)}
	go func() {
		defer close(l.ended)
		for round := 0; ; round++ {
			if out, err := program(round).CombinedOutput(); err != nil {
				l.err = fmt.Errorf("%w\n%s", err, out)
				return
			}
			select {
			case <-l.stop:
				return
			case l.done <- round:
			default:
			}
		}
	}()
	return l
}

// runs returns when a whole round has ended that began after the call.
func (l *load) runs(tb testing.TB, when string) {
	tb.Helper()
	for range 2 {
		select {
		case <-l.done:
		case <-l.ended:
			tb.Fatalf("%s: %s: %v", when, l.name, l.err)
		case <-time.After(repairLimit):
			tb.Fatalf("%s: %s: no round has ended in %v", when, l.name, repairLimit)
		}
	}
}

// end stops the load, and says what it met. It may be called again.
func (l *load) end(tb testing.TB) {
	tb.Helper()
	select {
	case <-l.stop:
		return
	default:
		close(l.stop)
	}
	<-l.ended
	if l.err != nil {
		tb.Errorf("%s: %v", l.name, l.err)
	}
}
