package memory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/queue"
)

// drain takes all that there is and acknowledges it.
func drain(t *testing.T, c *client.Taker, name string) (got []string) {
	t.Helper()
	for {
		r, m, err := c.Take(t.Context(), name, "", "test", client.Process{}, false)
		if errors.Is(err, meta.WouldWait) {
			return got
		}
		if err == nil {
			got = append(got, string(m.Body))
			err = r.Close(t.Context(), true)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func push(t *testing.T, c *client.Taker, name string, list ...string) {
	t.Helper()
	if _, err := c.Push(t.Context(), name, bodies(list...)...); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, got []string, list ...string) {
	t.Helper()
	if !slices.Equal(got, list) {
		t.Errorf("got %q, want %q", got, list)
	}
}

// What one machine loses the other one has, and then a third.
func TestOneAfterTheOther(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	c := w.client()
	w.make(c, "q")
	push(t, c, "q", "1", "2", "3")
	st, err := c.Status(t.Context(), "q")
	if err != nil || !st.Settings.Memory || st.Home == nil || len(held(*st.Home)) != 2 || st.Depth() != 3 {
		t.Fatalf("status %+v, %v", st, err)
	}
	var dead []string
	for i := range 2 { // its primary, then the one that took over
		home := w.awaitHome("q", 2)
		w.kill(home.Primary.Node)
		dead = append(dead, home.Primary.Node)
		push(t, c, "q", fmt.Sprint(4+i))
		if now := w.home("q"); slices.Contains(held(now), home.Primary.Node) || now.Lost != 0 || now.Epoch <= home.Epoch {
			t.Errorf("after %s was killed the home is %+v", home.Primary.Node, now)
		}
		if i == 0 { // the third machine gets all that there is
			w.awaitHome("q", 2)
		}
	}
	want(t, drain(t, c, "q"), "1", "2", "3", "4", "5")
	if st, err = c.Status(t.Context(), "q"); err != nil || len(held(*st.Home)) != 1 {
		t.Errorf("of three machines %q are dead, and the status says %+v, %v", dead, st.Home, err)
	}
}

// The backup goes: nobody waits longer than until it is left out.
func TestBackupKilled(t *testing.T) {
	w := newWorld(t, "a", "b")
	c := w.client()
	w.make(c, "q")
	push(t, c, "q", "1")
	home := w.home("q")
	w.kill(home.Backup.Node)
	push(t, c, "q", "2")
	if now := w.awaitHome("q", 1); now.Primary.Node != home.Primary.Node {
		t.Errorf("the backup was killed, and now %s is the primary", now.Primary.Node)
	}
	w.begin(home.Backup.Node) // it comes back, with nothing
	w.awaitHome("q", 2)
	w.kill(home.Primary.Node)
	want(t, drain(t, c, "q"), "1", "2")
}

// Both go: what was in the queue is lost, and counted; the queue is not. Who waits goes
// on waiting.
func TestBothKilled(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	c, other := w.client(), w.client()
	w.make(c, "q")
	if err := c.MakeGroup(t.Context(), "q", "g"); err != nil {
		t.Fatal(err)
	}
	limit := 7
	if err := c.Set(t.Context(), queue.Set{Name: "q", Max: &limit}); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	waiting := make(chan error, 1)
	go func() {
		_, m, err := other.Take(t.Context(), "q", "g", "test", client.Process{}, true)
		got <- string(m.Body)
		waiting <- err
	}()
	cluster(t, func() error {
		st, err := c.Status(t.Context(), "q")
		if g, _ := st.Group("g"); err == nil && g.Waiters != 1 {
			err = errors.New("nobody waits")
		}
		return err
	})
	home := w.home("q")
	a, b := w.all[home.Primary.Node].session, w.all[home.Backup.Node].session
	w.kill(home.Primary.Node)
	w.kill(home.Backup.Node)
	w.bury(a)
	w.bury(b)
	push(t, c, "q", "new")
	if m := <-got; m != "new" {
		t.Errorf("who waited got %q, %v", m, <-waiting)
	}
	st, err := c.Status(t.Context(), "q")
	if err != nil || st.Home.Lost != 1 || st.Settings.Max != 7 || len(st.Groups) != 2 {
		t.Errorf("the queue that was lost is %+v, %v", st, err)
	}
	want(t, drain(t, c, "q"), "new")
}

// Cut off from each other, one of the two goes on, and what the other says is nothing.
func TestPartition(t *testing.T) {
	w := newWorld(t, "a", "b")
	c := w.client()
	w.make(c, "q")
	push(t, c, "q", "1")
	home := w.home("q")
	w.setCut("a", "b", true)
	push(t, c, "q", "2")
	now := w.awaitHome("q", 1)
	loser := home.Primary
	if now.Primary.Node == home.Primary.Node {
		loser = home.Backup
	}
	m := w.all[loser.Node]
	cluster(t, func() error {
		if m.holder.find("q", 0) != nil {
			return fmt.Errorf("%s has the queue still", loser.Node)
		}
		return nil
	})
	push(t, c, "q", "3")
	w.setCut("a", "b", false)
	w.awaitHome("q", 2)
	w.kill(now.Primary.Node)
	want(t, drain(t, c, "q"), "1", "2", "3")
}

// Where a session ends, what it had is back.
func TestSessionEnds(t *testing.T) {
	w := newWorld(t, "a", "b")
	c, gone := w.client(), w.client()
	w.make(c, "q")
	push(t, c, "q", "1")
	r, _, err := gone.Take(t.Context(), "q", "", "test", client.Process{}, false)
	if err != nil {
		t.Fatal(err)
	}
	infos, err := client.Session{Caller: client.Direct(w.meta, 0)}.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.bury(infos[len(infos)-1].ID)
	cluster(t, func() error {
		if got := drain(t, c, "q"); len(got) != 1 {
			return errors.New("the message is not back")
		}
		return nil
	})
	if err := r.Close(t.Context(), true); !errors.Is(err, meta.Expired) && !errors.Is(err, meta.Fenced) {
		t.Errorf("acknowledged by a session that is over: %v", err)
	}
	if _, err := gone.Push(t.Context(), "q", bodies("late")...); !errors.Is(err, meta.Expired) {
		t.Errorf("pushed by a session that is over: %v", err)
	}
}

// What would be too much is refused, and what makes room is not.
func TestBound(t *testing.T) {
	w := newWorld(t, "a")
	w.all["a"].holder.Limit(100 << 10)
	c := w.client()
	w.make(c, "q")
	n := 0
	for ; ; n++ {
		_, err := c.Push(t.Context(), "q", bodies(strings.Repeat("x", 1000))...)
		if errors.Is(err, meta.NoSpace) {
			break
		}
		if err != nil || n > 100 {
			t.Fatalf("after %d messages: %v", n, err)
		}
	}
	if got := drain(t, c, "q"); len(got) != n || n < 50 {
		t.Errorf("%d of %d messages", len(got), n)
	}
	push(t, c, "q", "again")
}

// What is for durable queues is refused, and nothing is changed.
func TestRefused(t *testing.T) {
	w := newWorld(t, "a", "b")
	c := w.client()
	w.make(c, "q")
	keep, dead, pri, memory := time.Hour, "other", queue.ByPri, false
	push(t, c, "q", "1")
	for _, one := range []struct {
		set  queue.Set
		want meta.Kind
	}{
		{queue.Set{KeepFor: &keep}, meta.Unsupported}, {queue.Set{Dead: &dead}, meta.Unsupported},
		{queue.Set{Order: &pri}, meta.Busy}, {queue.Set{Memory: &memory}, meta.Busy},
	} {
		one.set.Name = "q"
		if err := c.Set(t.Context(), one.set); !errors.Is(err, one.want) {
			t.Errorf("%+v: %v, want %v", one.set, err, one.want)
		}
	}
	_, err := c.TryPush(t.Context(), queue.Push{Name: "q", Messages: bodies("x"), Token: &queue.Token{Lock: "l", Number: 1}})
	if !errors.Is(err, meta.Unsupported) {
		t.Errorf("under a token: %v", err)
	}
	if err := c.Remove(t.Context(), "q"); !errors.Is(err, meta.Busy) {
		t.Errorf("removed with a message in it: %v", err)
	}
	want(t, drain(t, c, "q"), "1")
	for _, set := range []queue.Set{{Order: &pri}, {Memory: &memory}} {
		set.Name = "q"
		if err := c.Set(t.Context(), set); err != nil {
			t.Errorf("%+v of an empty queue: %v", set, err)
		}
	}
	st, err := c.Status(t.Context(), "q")
	if err != nil || st.Settings.Memory || st.Home != nil || st.Settings.Order != queue.ByPri {
		t.Errorf("durable again: %+v, %v", st, err)
	}
	push(t, c, "q", "2")
	want(t, drain(t, c, "q"), "2")
	if err := c.Remove(t.Context(), "q"); err != nil {
		t.Error(err)
	}
}

// Many push and take while machines go, come and are cut off from each other, never
// both that have the queue: all that was acknowledged is delivered, and what was
// acknowledged by who took it is delivered no more.
func TestHistory(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	c := w.client()
	w.make(c, "q")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	sent, acked, taken := make(map[string]bool), make(map[string]int), make(map[string]bool)
	var work sync.WaitGroup
	const programs = 4
	for id := range programs {
		taker := w.client()
		go taker.Run(t.Context()) //nolint:errcheck // it never fails
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				m := fmt.Sprintf("%d/%d", id, n)
				if _, err := taker.Push(t.Context(), "q", bodies(m)...); err != nil {
					t.Errorf("pushing %s: %v", m, err)
					return
				}
				mu.Lock()
				sent[m] = true
				mu.Unlock()
			}
		})
		work.Go(func() {
			for ctx.Err() == nil {
				r, m, err := taker.Take(ctx, "q", "", "test", client.Process{}, true)
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("taking: %v", err)
					}
					return
				}
				mu.Lock()
				taken[string(m.Body)] = true
				again := acked[string(m.Body)]
				mu.Unlock()
				if again > 0 {
					t.Errorf("%s is delivered after it was acknowledged", m.Body)
				}
				if err := r.Close(t.Context(), true); err != nil {
					t.Errorf("acknowledging %s: %v", m.Body, err)
				}
				mu.Lock()
				acked[string(m.Body)]++
				mu.Unlock()
			}
		})
	}
	for range 6 {
		home := w.awaitHome("q", 2)
		list := held(home)
		one := list[rnd.IntN(2)]
		switch rnd.IntN(3) {
		case 0, 1:
			w.kill(one)
			w.awaitHome("q", 1)
			w.begin(one)
		case 2:
			w.setCut(list[0], list[1], true)
			cluster(t, func() error {
				if now := w.home("q"); now.Epoch == home.Epoch {
					return errors.New("both hold the queue still")
				}
				return nil
			})
			w.setCut(list[0], list[1], false)
		}
	}
	w.awaitHome("q", 2)
	stop()
	work.Wait()
	// Who was stopped while he waited may have been given something, which comes back.
	cluster(t, func() error {
		for _, m := range drain(t, c, "q") {
			taken[m] = true
		}
		if st, err := c.Status(t.Context(), "q"); err != nil || st.Messages > 0 {
			return fmt.Errorf("%d messages are left, %v", st.Messages, err)
		}
		return nil
	})
	if w.home("q").Lost != 0 {
		t.Error("the queue was lost")
	}
	for m := range sent {
		if !taken[m] {
			t.Errorf("%s was acknowledged and never delivered", m)
		}
	}
	t.Logf("%d messages, %d acknowledged", len(sent), len(acked))
}
