package services

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// once is programs that send messages until they know that each is there, and
// programs that count each of them once, whatever fails. A message has an id by which
// it is known when it is sent again. Who has one acknowledges it and counts it, in a
// counter of his own, in one transaction.
type once struct {
	mu      sync.Mutex
	sent    map[string]uint64  // the number that the queue gave each message; guarded by mu, as all below
	retry   map[*worker]string // what a program has to send again
	counts  map[*worker]*count // nil: it is to be read
	resends int
	back    int // messages that were not counted by who had them
}

// A count is a counter as its owner knows it.
type count struct{ n, version uint64 }

func newOnce() *once {
	return &once{sent: make(map[string]uint64), retry: make(map[*worker]string), counts: make(map[*worker]*count)}
}

// send is a step of a program that sends.
func (o *once) send(w *worker) int {
	o.mu.Lock()
	id, resend := o.retry[w]
	if resend {
		o.resends++
	} else {
		id = fmt.Sprint(w.number())
		o.retry[w] = id
	}
	o.mu.Unlock()
	call := w.now()
	f, err := w.desk.at(w.site.Path("queues", "once", "send"), unix.O_RDWR)
	var reply string
	if err == nil {
		reply, err = f.say(w.buf, fmt.Sprintf("dedup=%s %s\n", id, id))
	}
	if err != nil {
		w.failed("sending "+id, call, err)
		return 0
	}
	number, err := strconv.ParseUint(strings.TrimSpace(reply), 10, 64)
	if err != nil {
		w.tb.Errorf("%v: sending %s is answered %q", w, id, reply)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.retry, w)
	o.sent[id] = number
	return 1
}

// count is a step of a program that counts.
func (o *once) count(w *worker, qs *queues) int {
	f, id, call, ok := qs.take(w, "once", "lease", unix.O_RDWR)
	if !ok {
		return 0
	}
	defer func() { _ = f.close() }() // what was not acknowledged comes again
	o.mu.Lock()
	number, c := o.sent[id], o.counts[w]
	o.mu.Unlock()
	if number == 0 {
		return 0 // who sent it does not know yet that it is there
	}
	c, err := o.add(w, number, id, c)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts[w] = c
	if err == nil {
		return 3
	}
	o.back++
	if err != syscall.ESTALE || !w.lost(call) {
		w.failed("counting "+id, call, err)
	}
	return 0
}

// add counts a message, if it is still held. It returns the counter, nil if nobody
// knows what it is.
func (o *once) add(w *worker, number uint64, id string, c *count) (_ *count, err error) {
	name := "count-" + strings.ReplaceAll(w.String(), "/", "-")
	if c == nil {
		if c, err = o.read(w, name); err != nil {
			return nil, err
		}
	}
	f, err := w.desk.at(w.site.Path("kv", "once", ".txn"), unix.O_RDWR)
	if err != nil {
		return c, err
	}
	reply, err := f.say(w.buf, fmt.Sprintf("ack once %d\nput done-%s %v\nif %s version %d\nput %s %d\ncommit\n", number, id, w, name, c.version, name, c.n+1))
	if err != nil {
		w.torn = true // what was said of it
		return nil, err
	}
	for line := range strings.Lines(reply) {
		if words := strings.Fields(line); len(words) == 3 && words[1] == "once/"+name {
			version, err := strconv.ParseUint(words[2], 10, 64)
			return &count{c.n + 1, version}, err
		}
	}
	return nil, fmt.Errorf("a transaction is answered %q", reply)
}

// read reads a counter.
func (o *once) read(w *worker, name string) (*count, error) {
	f, err := w.desk.at(w.site.Path("kv", "once", ".scan"), unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	reply, err := f.say(w.buf, fmt.Sprintf("prefix %s\n", name))
	if err != nil || reply == "" {
		return new(count), err
	}
	c := new(count)
	words := strings.Fields(reply)
	if _, err := fmt.Sscan(strings.Join(words[1:], " "), &c.version, &c.n); err != nil {
		return nil, fmt.Errorf("%s is %q: %w", name, reply, err)
	}
	return c, nil
}

// check compares what was sent with what was counted.
func (o *once) check(t *testing.T, s *site) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	list, err := os.ReadDir(s.Path("kv", "once"))
	if err != nil {
		t.Fatal(err)
	}
	counted, sum := make(map[string]bool), 0
	for _, e := range list {
		if id, is := strings.CutPrefix(e.Name(), "done-"); is {
			counted[id] = true
			continue
		}
		if !strings.HasPrefix(e.Name(), "count") {
			continue
		}
		text, err := os.ReadFile(s.Path("kv", "once", e.Name()))
		n, e2 := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || e2 != nil {
			t.Fatalf("%s: %q, %v", e.Name(), text, err)
		}
		sum += n
	}
	numbers := make(map[uint64]string)
	for id, n := range o.sent {
		if other, is := numbers[n]; is {
			t.Errorf("messages %s and %s are both number %d", id, other, n)
		}
		numbers[n] = id
		if !counted[id] {
			t.Errorf("message %s was acknowledged and not counted", id)
		}
	}
	if sum != len(counted) {
		t.Errorf("%d messages were counted, and the counts are %d together", len(counted), sum)
	}
	t.Logf("exactly once: %d messages sent and counted; %d were sent again, %d were not counted by who had them first", sum, o.resends, o.back)
}
