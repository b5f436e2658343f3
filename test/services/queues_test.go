package services

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"dos/test/history"
)

const (
	// batchMax is how many messages one write brings.
	batchMax = 8
	// queueMax is how many messages a queue has at most: then who pushes waits.
	queueMax = 300
	// ackTime is how long an acknowledgement that nobody waits for may take, on a busy
	// machine.
	ackTime = 5 * time.Second
)

// A messageOp is one thing that happens to a message.
type messageOp struct {
	op    string
	claim uint64
}

// A message is nowhere, in its queue, with whoever has the claim, or done.
type message struct {
	state string // "", queued, taken, done
	claim uint64
}

// messageModel is a message, as what became of it.
//
//	push     it was acknowledged
//	pushed?  nobody knows whether it was
//	take     somebody got it
//	ack      that was acknowledged: nobody gets it any more
//	ack?     nobody knows whether it was
//	gone     acknowledging was refused: it is another's, or was settled already
//	back     it was given back
//	back?    it was or will be, or was lost
var messageModel = porcupine.Model{
	Init: func() any { return message{} },
	Step: func(state, in, _ any) (bool, any) {
		m, q := state.(message), in.(messageOp)
		mine := m == message{"taken", q.claim}
		switch q.op {
		case "push":
			return m.state == "", message{state: "queued"}
		case "pushed?":
			if m.state == "" {
				m.state = "queued"
			}
			return true, m
		case "take":
			return m.state == "queued", message{"taken", q.claim}
		case "ack":
			return mine, message{state: "done"}
		case "gone":
			return !mine, m
		case "back":
			return mine, message{state: "queued"}
		case "ack?":
			if mine {
				m = message{state: "done"}
			}
			return true, m
		case "back?":
			if mine {
				m = message{state: "queued"}
			}
			return true, m
		}
		panic(q.op)
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
}

// queues are programs that push and consume messages, in all ways that there are.
type queues struct {
	history.History
	name  string // of their queue
	mu    sync.Mutex
	later []taken // acknowledged without waiting for it; guarded by mu
}

func (qs *queues) add(w *worker, m, op string, claim uint64, call, end int64) {
	qs.Add(m, porcupine.Operation{ClientId: w.id, Input: messageOp{op, claim}, Call: call, Return: end})
}

// acked notes that a message was acknowledged in a way that nobody waits for. Until the
// service knows, it may be lost.
func (qs *queues) acked(w *worker, m taken, call int64) {
	qs.add(w, m.m, "ack?", m.claim, call, history.Never)
	m.site, m.acked = w.site, call
	qs.mu.Lock()
	defer qs.mu.Unlock()
	qs.later = append(qs.later, m)
}

// push is a step of a program that writes lines.
func (qs *queues) push(w *worker) int {
	var list []string
	for range 1 + w.rnd.IntN(batchMax) {
		list = append(list, fmt.Sprintf("%s/%d", qs.name, w.number()))
	}
	call := w.now()
	f, err := w.desk.at(w.site.Path("queues", qs.name, "push"), unix.O_WRONLY)
	if err != nil {
		w.failed("opening push", call, err)
		return 0
	}
	text := strings.Join(list, "\n") + "\n"
	done, err := f.write(text)
	end := w.now()
	sent := strings.Count(text[:done], "\n")
	for i, m := range list {
		if i < sent {
			qs.add(w, m, "push", 0, call, end)
		} else {
			qs.add(w, m, "pushed?", 0, call, history.Never)
		}
	}
	if err != nil {
		w.failed("pushing", call, err)
	}
	return sent
}

// consume is a step of a program that consumes, each in its own way.
func (qs *queues) consume(w *worker) int {
	switch w.id % workers {
	case 0, 1:
		return qs.lease(w)
	case 2:
		return qs.stream(w)
	}
	return qs.pop(w)
}

// take opens a file that takes a message.
func (qs *queues) take(w *worker, queue, name string, flags int) (f file, m string, call int64, ok bool) {
	call = w.now()
	f, err := open(w.site.Path("queues", queue, name+"@500ms"), flags)
	if err == syscall.ETIMEDOUT || err == syscall.EAGAIN {
		return 0, "", 0, false
	}
	if err != nil {
		w.failed("opening "+name, call, err)
		return 0, "", 0, false
	}
	text, err := f.read(w.buf)
	if err != nil {
		_ = f.close() // it fails as reading did
		w.failed("reading "+name, call, err)
		return 0, "", 0, false
	}
	return f, strings.TrimSuffix(text, "\n"), call, true
}

// settled says what became of a message that was said to be settled.
func (qs *queues) settled(w *worker, m, what string, claim uint64, began, call int64, err error) {
	end := w.now()
	switch {
	case err == nil:
		qs.add(w, m, what, claim, call, end)
	case err == syscall.ESTALE:
		qs.add(w, m, "gone", claim, call, end)
		if !w.lost(began) {
			w.tb.Errorf("%v: message %s, taken at %v, was lost without a reason", w, m, began)
		}
	default:
		qs.add(w, m, what+"?", claim, call, history.Never)
		w.failed(what+" of a lease", call, err)
	}
	if w.lost(began) {
		qs.add(w, m, "back?", claim, began, history.Never)
	}
}

func (qs *queues) lease(w *worker) int {
	f, m, began, ok := qs.take(w, qs.name, "lease", unix.O_RDWR)
	if !ok {
		return 0
	}
	claim, end := w.number(), w.now()
	qs.add(w, m, "take", claim, began, end)
	call := w.now()
	switch w.rnd.IntN(20) {
	case 0: // closing it gives it back, soon, if nothing did before
		if w.lost(began) {
			call = began
		}
		qs.add(w, m, "back?", claim, call, history.Never)
	case 1:
		_, err := f.write("nack\n")
		qs.settled(w, m, "back", claim, began, call, err)
	default:
		_, err := f.write("ack\n")
		qs.settled(w, m, "ack", claim, began, call, err)
	}
	if err := f.close(); err != nil {
		w.failed("closing a lease", call, err)
	}
	return 2
}

// pop reads a message to its end. Closing is not waited for.
func (qs *queues) pop(w *worker) int {
	f, m, began, ok := qs.take(w, qs.name, "pop", unix.O_RDONLY)
	if !ok {
		return 0
	}
	claim, call := w.number(), w.now()
	qs.add(w, m, "take", claim, began, call)
	qs.acked(w, taken{m: m, claim: claim, began: began}, call)
	if err := f.close(); err != nil {
		w.failed("closing pop", call, err)
	}
	return 2
}

// stream reads one more line, which acknowledges the one before it.
func (qs *queues) stream(w *worker) int {
	call := w.now()
	path := w.site.Path("queues", qs.name, "stream")
	f, err := w.desk.at(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		w.failed("opening stream", call, err)
		return 0
	}
	had := w.had
	w.had = taken{}
	line, err := f.read(w.buf)
	if had.m != "" {
		qs.acked(w, had, call)
	}
	switch {
	case err == syscall.EAGAIN:
		w.torn = w.rnd.IntN(8) == 0 // another time on a new one
		return 0
	case err == syscall.ESTALE && w.lost(had.began): // with all that it had not given out yet
		w.torn = true
		return 0
	case err != nil:
		w.failed("reading stream", call, err)
		return 0
	}
	w.had = taken{m: strings.TrimSuffix(line, "\n"), claim: w.number(), began: call}
	qs.add(w, w.had.m, "take", w.had.claim, call, w.now())
	if w.rnd.IntN(50) == 0 {
		w.leave(qs)
	}
	return 2
}

// A taken message is one that was taken by who does not wait for its acknowledgement.
type taken struct {
	m            string
	claim        uint64
	began, acked int64
	site         *site
}

// leave closes a stream: the last message goes back.
func (w *worker) leave(qs *queues) {
	if w.had.m != "" {
		qs.add(w, w.had.m, "back?", w.had.claim, w.had.began, history.Never)
	}
	w.had, w.torn = taken{}, true
}

// check checks what was told, and that all that was acknowledged was delivered.
func (qs *queues) check(t *testing.T) {
	t.Helper()
	for _, m := range qs.later {
		if m.site.disturbed(time.Duration(m.began), time.Duration(m.acked)+ackTime) {
			qs.Add(m.m, porcupine.Operation{Input: messageOp{"back?", m.claim}, Call: m.began, Return: history.Never})
		}
	}
	pushed, maybe, takes, acks, again, never := 0, 0, 0, 0, 0, 0
	qs.Each(func(m string, ops []porcupine.Operation) {
		n := make(map[string]int)
		for _, op := range ops {
			n[op.Input.(messageOp).op]++
		}
		pushed, maybe, takes, acks = pushed+n["push"], maybe+n["pushed?"], takes+n["take"], acks+n["ack"]
		again += max(0, n["take"]-1)
		switch {
		case n["push"] > 0 && n["take"] == 0:
			t.Errorf("message %s was acknowledged and never delivered", m)
		case n["take"] == 0:
			never++
		}
	})
	qs.Check(t, messageModel)
	t.Logf("queues: %d messages acknowledged and delivered, %d more perhaps, of which %d were not; %d deliveries, %d of them not the first, %d acknowledgements waited for",
		pushed, maybe, never, takes, again, acks)
}
