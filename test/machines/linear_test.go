package machines

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"dos/test/cluster"
	"dos/test/history"
	"dos/test/witness"
)

// The names and registers of the linearizability test, and how many work on them.
const (
	linearNames   = 4
	linearWorkers = 3 // a mount
	linearOps     = 120
	// Registers that stay open and are mostly read, so that mounts share them: one
	// after the other, each with that many operations of a worker.
	linearShared    = 24
	linearSharedOps = 50
)

// A request is one operation on names or on a register.
type request struct {
	op   string // create, unlink, rename, stat; read, write
	a, b int    // names, or the register
	val  uint64 // to write
}

// An answer is how it ended.
type answer struct {
	err syscall.Errno
	val uint64
}

// names is a directory as a set of bits; everything about it is one operation at a time.
var names = porcupine.Model{
	Init: func() any { return uint(0) },
	Step: func(state, in, out any) (bool, any) {
		s, q, a := state.(uint), in.(request), out.(answer)
		there := s&(1<<q.a) != 0
		want := syscall.Errno(0)
		switch {
		case q.op == "create" && there:
			want = syscall.EEXIST
		case q.op == "create":
			s |= 1 << q.a
		case q.op == "rename" && !there && s&(1<<q.b) != 0 && a.err == 0:
			// The kernel looks up one name after the other, and says by itself that all
			// is well when both lead to one file: another mount made the same rename
			// in between.
		case !there:
			want = syscall.ENOENT
		case q.op == "unlink":
			s &^= 1 << q.a
		case q.op == "rename":
			s = s&^(1<<q.a) | 1<<q.b
		}
		return a.err == want, s
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprint(in, out) },
}

// registers are the first eight bytes of files, each by itself.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, max(linearNames, linearShared))
		for _, op := range history {
			i := op.Input.(request).a
			parts[i] = append(parts[i], op)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, in, out any) (bool, any) {
		q, a := in.(request), out.(answer)
		if q.op == "write" {
			return a.err == 0, q.val
		}
		return a.err == 0 && a.val == state.(uint64), state
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprint(in, out) },
}

// TestLinearizable has several programs on two mounts work on the same names and
// on the same bytes while the machine in charge is killed, and checks that what
// they were told could have come from one program after the other.
func TestLinearizable(t *testing.T) {
	cluster.NeedFuse(t)
	rnd := witness.Random(t)
	c := cluster.Three(t, cluster.FoundedLocal, "2+1")
	mounts := []*cluster.Mount{c.Mount(t), c.Mount(t)}
	for _, dir := range []string{"names", "kv/t"} {
		if err := os.Mkdir(mounts[0].Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range linearNames {
		if err := os.WriteFile(mounts[0].Path(fmt.Sprint("register", i)), make([]byte, 8), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	versions, shared := new(seen), newSharedRegisters(t, mounts)
	for _, test := range []struct {
		name  string
		model porcupine.Model
		ops   int // of a worker
		next  func(i int, rnd *rand.Rand) (in any, do func(*cluster.Mount) (out any))
		alone func() int64 // reads that a kernel answered alone: there must be some; nil: there need not
	}{
		{"names", names, linearOps, each(nextName, doName), nil},
		{"registers", registers, linearOps, each(nextRegister, doRegister), nil},
		{"values", values, linearOps, each(versions.next, versions.do), nil},
		{"shared registers", registers, linearShared * linearSharedOps, shared.next, shared.alone.Load},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			var mu sync.Mutex
			var told []porcupine.Operation // guarded by mu
			var wg sync.WaitGroup
			half := make(chan struct{})
			atHalf := sync.OnceFunc(func() { close(half) })
			for id := range linearWorkers * len(mounts) {
				m, rnd := mounts[id%len(mounts)], rand.New(rand.NewPCG(rnd.Uint64(), 0))
				wg.Go(func() {
					defer atHalf()
					for i := range test.ops {
						if i == test.ops/2 {
							atHalf()
						}
						in, do := test.next(i, rnd)
						op := porcupine.Operation{ClientId: id, Input: in, Call: int64(time.Since(began))}
						op.Output = do(m)
						op.Return = int64(time.Since(began))
						mu.Lock()
						told = append(told, op)
						mu.Unlock()
					}
				})
			}
			<-half
			leader := c.Leader(t)
			leader.Kill(t)
			wg.Wait()
			leader.Again(t)
			c.AwaitMembers(t, 3, repairLimit)
			if got, info := porcupine.CheckOperationsVerbose(test.model, told, time.Minute); got != porcupine.Ok {
				history.TellStuck(t, info, test.model, told)
				t.Errorf("the history of %d operations is %v, want %v", len(told), got, porcupine.Ok)
			}
			if test.alone == nil {
				return
			}
			if n := test.alone(); n < linearShared {
				t.Errorf("of %d operations %d were reads that a kernel answered alone: the registers were not shared", len(told), n)
			} else {
				t.Logf("of %d operations %d were reads that a kernel answered alone", len(told), n)
			}
		})
	}
}

// each makes of a way to choose a request and one to ask it what the test does.
func each[Q, A any](next func(*rand.Rand) Q, do func(*cluster.Mount, Q) A) func(int, *rand.Rand) (any, func(*cluster.Mount) any) {
	return func(_ int, rnd *rand.Rand) (any, func(*cluster.Mount) any) {
		q := next(rnd)
		return q, func(m *cluster.Mount) any { return do(m, q) }
	}
}

func nextName(rnd *rand.Rand) request {
	q := request{op: []string{"create", "create", "unlink", "rename", "stat"}[rnd.IntN(5)], a: rnd.IntN(linearNames)}
	q.b = (q.a + 1 + rnd.IntN(linearNames-1)) % linearNames
	return q
}

func doName(m *cluster.Mount, q request) answer {
	path := func(i int) string { return m.Path("names", fmt.Sprint(i)) }
	var err error
	switch q.op {
	case "create":
		var f *os.File
		if f, err = os.OpenFile(path(q.a), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err == nil {
			err = f.Close()
		}
	case "unlink":
		err = syscall.Unlink(path(q.a))
	case "rename":
		err = syscall.Rename(path(q.a), path(q.b))
	case "stat":
		_, err = os.Stat(path(q.a))
	}
	return answer{err: errno(err)}
}

func nextRegister(rnd *rand.Rand) request {
	return request{op: []string{"read", "write"}[rnd.IntN(2)], a: rnd.IntN(linearNames), val: rnd.Uint64()}
}

func doRegister(m *cluster.Mount, q request) answer {
	f, err := os.OpenFile(m.Path(fmt.Sprint("register", q.a)), os.O_RDWR, 0)
	if err != nil {
		return answer{err: errno(err)}
	}
	var b [8]byte
	if q.op == "write" {
		binary.BigEndian.PutUint64(b[:], q.val)
		_, err = f.WriteAt(b[:], 0)
	} else {
		_, err = f.ReadAt(b[:], 0)
	}
	return answer{errno(errors.Join(err, f.Close())), binary.BigEndian.Uint64(b[:])}
}

// aloneIn is less than a question to the mount takes, and the metadata service's
// answer; a kernel that has the file's pages, and may believe that they are right,
// takes a few microseconds.
const aloneIn = 50 * time.Microsecond

// sharedRegisters are files that stay open on all mounts, for reading, which a
// machine's kernel may answer from its pages, and for writing.
type sharedRegisters struct {
	read, written map[*cluster.Mount][]*os.File
	alone         atomic.Int64 // reads that took less than aloneIn
}

func newSharedRegisters(t *testing.T, mounts []*cluster.Mount) *sharedRegisters {
	s := &sharedRegisters{read: make(map[*cluster.Mount][]*os.File), written: make(map[*cluster.Mount][]*os.File)}
	open := func(m *cluster.Mount, name string, flag int) *os.File {
		f, err := os.OpenFile(m.Path(name), flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() }) //nolint:errcheck // what was written is another test's business
		return f
	}
	for i := range linearShared {
		name := fmt.Sprint("shared", i)
		if err := os.WriteFile(mounts[i%len(mounts)].Path(name), make([]byte, 8), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, m := range mounts {
			s.read[m] = append(s.read[m], open(m, name, os.O_RDONLY))
			s.written[m] = append(s.written[m], open(m, name, os.O_WRONLY))
		}
	}
	return s
}

// next is the i-th operation of a worker: its register is read for a while before
// anybody writes it.
func (s *sharedRegisters) next(i int, rnd *rand.Rand) (in any, do func(*cluster.Mount) any) {
	q := request{op: "read", a: i / linearSharedOps, val: rnd.Uint64()}
	if i%linearSharedOps > linearSharedOps/2 && rnd.IntN(10) == 0 {
		q.op = "write"
	}
	return q, func(m *cluster.Mount) any { return s.do(m, q) }
}

func (s *sharedRegisters) do(m *cluster.Mount, q request) answer {
	var b [8]byte
	var err error
	if q.op == "write" {
		binary.BigEndian.PutUint64(b[:], q.val)
		_, err = s.written[m][q.a].WriteAt(b[:], 0)
	} else {
		began := time.Now()
		_, err = s.read[m][q.a].ReadAt(b[:], 0)
		if time.Since(began) < aloneIn {
			s.alone.Add(1)
		}
	}
	return answer{errno(err), binary.BigEndian.Uint64(b[:])}
}

// errno is the number in an error; 0 for none.
func errno(err error) syscall.Errno {
	var n syscall.Errno
	if err != nil && !errors.As(err, &n) {
		panic(err)
	}
	return n
}
