package node

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/meta/client"
	"dos/meta/task"
)

// BenchmarkTasks has 100,000 tasks wait for 20 machines whose agents end each task at
// once, on a member with its log on the disk. An operation is a task from its assignment
// to its end; as many are submitted, 1000 in a commit. Memory is that of the heap: what
// tasks cost when as many wait as before is what it grows by.
func BenchmarkTasks(b *testing.B) {
	const waiting, machines = 100_000, 20
	n := start(b, b.TempDir())
	ctx := b.Context()
	tasks := client.Tasks{Caller: n.Session(openSession(b, n))}
	spec := newTask(b, "cpu=1")
	batch := make([]task.Spec, 1000)
	for i := range batch {
		batch[i] = spec
	}
	var users atomic.Uint32
	submit := func() {
		if _, err := tasks.Submit(ctx, task.Owner{UID: users.Add(1) % 10}, batch...); err != nil {
			b.Error(err)
		}
	}
	began := time.Now()
	for range waiting / len(batch) {
		submit()
	}
	submissions := waiting / time.Since(began).Seconds()
	var ended atomic.Int64
	var wg sync.WaitGroup
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	more := make(chan struct{}, 16)
	done := make(chan struct{})
	agent := func(i int) {
		s := openSession(b, n)
		own := client.Tasks{Caller: n.Session(s)}
		if err := own.Offer(ctx, task.Offer{Node: fmt.Sprint("n", i), Have: task.Resources{CPU: 32000}, Slots: 32}); err != nil {
			b.Error(err)
		}
		var seen uint64
		for {
			select {
			case <-done:
				return
			default:
			}
			out, err := own.Orders(ctx, s, seen)
			if err != nil {
				b.Error(err)
				return
			}
			seen = out.Version
			var list []task.Report
			for _, a := range out.Attempts {
				list = append(list, task.Report{ID: a.ID, Token: a.Token, What: task.Claim}, task.Report{ID: a.ID, Token: a.Token, What: task.Ended, Exit: &task.Exit{}})
			}
			if each, err := own.Report(ctx, list...); errors.Join(append(each, err)...) != nil {
				b.Error(each, err)
				return
			}
			was := ended.Load() / int64(len(batch))
			if now := ended.Add(int64(len(out.Attempts))); now/int64(len(batch)) > was {
				more <- struct{}{}
			}
		}
	}
	goal := int64(b.N)
	b.ResetTimer()
	for i := range machines {
		wg.Go(func() { agent(i) })
	}
	for ended.Load() < goal {
		<-more
		submit()
	}
	b.StopTimer()
	b.ReportMetric(submissions, "submissions/s")
	b.ReportMetric(float64(ended.Load())/b.Elapsed().Seconds(), "tasks/s")
	close(done)
	go func() {
		for range more {
		}
	}()
	wg.Wait()
	close(more)
	b.ReportMetric(float64(int64(heap())-int64(before))/(1<<20), "MiB-grown")
}
