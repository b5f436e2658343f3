package services

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"dos/test/history"
)

const (
	// lockNames is how many locks all mounts want; each mount has one more to itself.
	lockNames = 6
	// fencedLocks of them are named in transactions. Those are not lent to mounts.
	fencedLocks = 2
	// awayLimit is how long a lock that is lent to a mount which does not answer is
	// waited for by who only tries. Then it counts as held.
	awayLimit = 1900e6
)

// A lockOp is one operation of a claim.
type lockOp struct {
	op     string
	claim  uint64
	shared bool
	token  uint64 // 0: not known
	lost   bool   // what it had may have been lost
}

// A lockState is a lock: who has it, and the last token that is known.
type lockState struct {
	shared bool
	claims string // of fixed size each, in order
	token  uint64
}

// with adds a claim if it can have the lock.
func (s lockState) with(q lockOp) (lockState, bool) {
	if s.claims != "" && !(s.shared && q.shared) {
		return s, false
	}
	i := 0
	mine := claimText(q.claim)
	for i < len(s.claims) && s.claims[i:i+len(mine)] < mine {
		i += len(mine)
	}
	s.claims, s.shared = s.claims[:i]+mine+s.claims[i:], q.shared
	s.token = max(s.token, q.token)
	return s, true
}

func (s lockState) without(q lockOp) (lockState, bool) {
	before, after, had := strings.Cut(s.claims, claimText(q.claim))
	s.claims = before + after
	return s, had
}

func claimText(n uint64) string { return fmt.Sprintf("%16x,", n) }

// lockModel is a lock as its claims.
//
//	acquire  the claim got the lock; a token is greater than all before
//	perhaps  it may have got it
//	busy     somebody was in the way
//	release  it gave the lock back
//	expire   it lost it, if it had it
//	check    a transaction that named the token was done, so it had the lock
//	refused  one was not, so it had not
var lockModel = porcupine.Model{
	Init: func() any { return lockState{} },
	Step: func(state, in, _ any) (bool, any) {
		s, q := state.(lockState), in.(lockOp)
		switch q.op {
		case "acquire":
			if q.token != 0 && q.token <= s.token {
				return false, s
			}
			next, free := s.with(q)
			return free, next
		case "perhaps":
			next, _ := s.with(q)
			return true, next
		case "busy":
			return s.claims != "", s
		case "release":
			next, had := s.without(q)
			return had || q.lost, next
		case "expire":
			next, _ := s.without(q)
			return true, next
		case "check":
			return s.claims == claimText(q.claim), s
		case "refused":
			return !strings.Contains(s.claims, claimText(q.claim)), s
		}
		panic(q.op)
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
}

// locks are programs that lock names for moments.
type locks struct{ history.History }

// step locks something once.
func (l *locks) step(w *worker) int {
	i := w.rnd.IntN(lockNames + 2)
	name := fmt.Sprint("lock", i)
	if i >= lockNames {
		name = "lock-" + w.site.name
	}
	path := w.site.Path("locks", name)
	began := w.now()
	f, err := w.desk.at(path, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		w.failed("opening "+name, began, err)
		return 0
	}
	c := lockOp{claim: w.number(), shared: w.rnd.IntN(4) == 0}
	try := w.rnd.IntN(4) == 0
	how := unix.LOCK_EX
	if c.shared {
		how = unix.LOCK_SH
	}
	if try {
		how |= unix.LOCK_NB
	}
	var ops []porcupine.Operation
	add := func(op string, call, end int64) {
		q := c
		q.op = op
		ops = append(ops, porcupine.Operation{ClientId: w.id, Input: q, Call: call, Return: end})
	}
	defer func() { l.Add(name, ops...) }()

	call := w.now()
	_, err = f.flock(how)
	end := w.now()
	switch {
	case err == syscall.EWOULDBLOCK && try:
		if end-call < awayLimit {
			add("busy", call, end)
		}
		return 1
	case err == syscall.ESTALE && w.lost(call): // it was waited for in a session that is over
		add("perhaps", call, end)
		add("expire", call, end)
		if err := w.desk.drop(path); err != nil {
			w.failed("closing "+name, call, err)
		}
		return 1
	case err != nil:
		add("perhaps", call, history.Never)
		add("expire", call, history.Never)
		w.failed("locking "+name, call, err)
		return 1
	}
	done := 2
	var checks []porcupine.Operation
	if !c.shared && (i < fencedLocks || w.rnd.IntN(8) == 0) {
		c.token, err = l.token(w, f)
		switch {
		case err == syscall.ESTALE && w.lost(call):
		case err != nil:
			w.failed("reading "+name, call, err)
		}
		if done++; c.token != 0 && i < fencedLocks && w.rnd.IntN(2) == 0 {
			checks, done = l.check(w, name, c), done+1
		}
	}
	add("acquire", call, end)
	ops = append(ops, checks...)
	back := w.now()
	_, err = f.flock(unix.LOCK_UN)
	end = w.now()
	if c.lost = w.lost(call); c.lost {
		add("expire", call, end)
	}
	if err != nil {
		add("release", back, history.Never)
		w.failed("unlocking "+name, back, err)
		return done
	}
	add("release", back, end)
	return done
}

// token reads the token of the only one who has a lock.
func (l *locks) token(w *worker, f file) (uint64, error) {
	text, err := f.read(w.buf)
	if err != nil {
		return 0, err
	}
	end := text
	for end != "" { // what is read anew begins after the end
		if end, err = f.read(w.buf); err != nil {
			return 0, err
		}
	}
	if value(text, "state") == "lent" {
		return 0, nil // to a mount that does not answer
	}
	token, err := strconv.ParseUint(value(text, "token"), 10, 64)
	if err != nil {
		w.tb.Errorf("%v: a lock that is held says\n%s", w, text)
	}
	return token, nil
}

// check has a transaction done that is conditional on the token.
func (l *locks) check(w *worker, name string, c lockOp) []porcupine.Operation {
	c.op = "check"
	call := w.now()
	f, err := w.desk.at(w.site.Path("kv", "fenced", ".txn"), unix.O_RDWR)
	if err == nil {
		_, err = f.say(w.buf, fmt.Sprintf("fence %s:%d\nput %s %d\ncommit\n", name, c.token, name, c.token))
	}
	switch {
	case err == syscall.ESTALE:
		c.op = "refused"
	case err != nil:
		w.failed("a transaction with "+name, call, err)
		return nil
	}
	return []porcupine.Operation{{ClientId: w.id, Input: c, Call: call, Return: w.now()}}
}
