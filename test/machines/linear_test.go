package machines

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"dos/test/cluster"
)

// The registers of the linearizability test, and how many work on them.
const (
	linearFiles   = 4
	linearWorkers = 3 // a mount
	linearOps     = 120
)

// A request is one operation on a register.
type request struct {
	op  string // read, write
	a   int    // which register
	val uint64 // to write
}

// An answer is how it ended.
type answer struct {
	err syscall.Errno
	val uint64
}

// registers are the first eight bytes of files, each by itself.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, linearFiles)
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

// TestLinearizable has several programs on two mounts work on the same bytes
// while the machine in charge is killed, and checks that what
// they were told could have come from one program after the other.
func TestLinearizable(t *testing.T) {
	cluster.NeedFuse(t)
	rnd := random(t)
	c := three(t, cluster.FoundedLocal, "2+1")
	mounts := []*cluster.Mount{c.Mount(t), c.Mount(t)}
	for i := range linearFiles {
		if err := os.WriteFile(mounts[0].Path(fmt.Sprint("register", i)), make([]byte, 8), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name  string
		model porcupine.Model
		next  func(*rand.Rand) request
		do    func(*cluster.Mount, request) answer
	}{
		{"registers", registers, nextRegister, doRegister},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			var mu sync.Mutex
			var history []porcupine.Operation // guarded by mu
			var wg sync.WaitGroup
			half := make(chan struct{})
			atHalf := sync.OnceFunc(func() { close(half) })
			for id := range linearWorkers * len(mounts) {
				m, rnd := mounts[id%len(mounts)], rand.New(rand.NewPCG(rnd.Uint64(), 0))
				wg.Go(func() {
					defer atHalf()
					for i := range linearOps {
						if i == linearOps/2 {
							atHalf()
						}
						op := porcupine.Operation{ClientId: id, Input: test.next(rnd), Call: int64(time.Since(began))}
						op.Output = test.do(m, op.Input.(request))
						op.Return = int64(time.Since(began))
						mu.Lock()
						history = append(history, op)
						mu.Unlock()
					}
				})
			}
			<-half
			leader, err := c.Leader(t)
			if err != nil {
				t.Fatal(err)
			}
			leader.Kill(t)
			wg.Wait()
			leader.Again(t)
			c.AwaitMembers(t, 3, repairLimit)
			if got, info := porcupine.CheckOperationsVerbose(test.model, history, time.Minute); got != porcupine.Ok {
				tellStuck(t, info, test.model, history)
				t.Errorf("the history of %d operations is %v, want %v", len(history), got, porcupine.Ok)
			}
		})
	}
}

// tellStuck logs where the longest order that is possible ends, and the
// operations around it that could not follow.
func tellStuck(t *testing.T, info porcupine.LinearizationInfo, model porcupine.Model, history []porcupine.Operation) {
	for _, part := range info.PartialLinearizationsOperations() {
		var longest []porcupine.Operation
		for _, list := range part {
			if len(list) > len(longest) {
				longest = list
			}
		}
		if len(longest) == 0 {
			continue
		}
		in := make(map[porcupine.Operation]bool)
		for _, op := range longest {
			in[op] = true
		}
		end := longest[len(longest)-1].Call
		for _, op := range history {
			if !in[op] && op.Call <= end+int64(20*time.Millisecond) {
				t.Logf("not in: %d: %v to %v: %v", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), model.DescribeOperation(op.Input, op.Output))
			}
		}
		for _, op := range longest[max(0, len(longest)-20):] {
			t.Logf("%d: %v to %v: %v", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), model.DescribeOperation(op.Input, op.Output))
		}
	}
}

func nextRegister(rnd *rand.Rand) request {
	return request{op: []string{"read", "write"}[rnd.IntN(2)], a: rnd.IntN(linearFiles), val: rnd.Uint64()}
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

// errno is the number in an error; 0 for none.
func errno(err error) syscall.Errno {
	var n syscall.Errno
	if err != nil && !errors.As(err, &n) {
		panic(err)
	}
	return n
}
