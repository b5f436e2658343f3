package named

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"dos/meta"
)

var seed = flag.Uint64("seed", 0, "of the random test; 0: some")

// A borrower is a session as the room knows one, with the locks that it was lent.
type borrower struct {
	id    meta.SessionID
	last  uint64 // number of a claim
	seen  uint64
	loans map[string]*Lock
	mine  map[string][]uint64 // claims
	told  map[uint64]uint64   // tokens that it heard of
}

// A walk does at random what sessions do, and says what must come of it without
// rows, news or loans: a queue is a list of claims in the order they came.
type walk struct {
	*world
	random *rand.Rand
	people []*borrower
	queue  map[string][]Claim // who waits
	holds  map[string][]Claim
	limit  map[string]int
	token  map[string]uint64 // the greatest that was given
}

// lent returns a lock that is lent to somebody.
func (k *walk) lent(name string) *Lock {
	for _, b := range k.people {
		if l := b.loans[name]; l != nil {
			return l
		}
	}
	return nil
}

// grant gives a lock to who is next. Who waits in the state for one that is lent gets
// it when it is returned.
func (k *walk) grant(name string, here int) {
	for ; here > 0 && len(k.queue[name]) > 0 && k.fits(name, k.queue[name][0].Mode); here-- {
		k.holds[name] = append(k.holds[name], k.queue[name][0])
		k.queue[name] = k.queue[name][1:]
	}
}

func (k *walk) fits(name string, mode meta.LockMode) bool {
	held := k.holds[name]
	if k.limit[name] > 0 {
		return len(held) < k.limit[name]
	}
	return len(held) == 0 || mode == meta.Shared && !slices.ContainsFunc(held, func(c Claim) bool { return c.Mode == meta.Exclusive })
}

// fresh notes a token.
func (k *walk) fresh(name string, token uint64) {
	if token <= k.token[name] {
		k.t.Fatalf("lock %q gives token %d after %d", name, token, k.token[name])
	}
	k.token[name] = token
}

func (k *walk) claim(b *borrower, name string) {
	b.last++
	c := Claim{Number: b.last, Mode: meta.LockMode(1 + k.random.IntN(2)), Session: b.id}
	wait := k.random.IntN(3) > 0
	free := len(k.queue[name]) == 0 && k.fits(name, c.Mode)
	if l := b.loans[name]; l != nil {
		free = len(l.Waits) == 0 && k.fits(name, c.Mode)
		token, waits := l.Ask(c, wait, meta.Time(k.now))
		k.asked(b, name, c, free, wait, token, waits, len(l.Waits)-1)
		return
	}
	lent := k.lent(name) != nil
	out := must[Outcome](k.world, b.id, OpAsk, Ask{Name: name, Claim: c, Wait: wait, Borrow: true})
	switch {
	case out.Away != 0:
		if !lent || wait {
			k.t.Fatalf("asking for %q: %+v", name, out)
		}
		return
	case lent: // it waits here, behind all, until the lock is returned
		if !out.Wait {
			k.t.Fatalf("asking for %q, which is lent: %+v", name, out)
		}
		k.queue[name] = append(k.queue[name], c)
		b.mine[name] = append(b.mine[name], c.Number)
		return
	case out.Loan != nil:
		b.loans[name] = &out.Loan.Lock
	}
	k.asked(b, name, c, free, wait, out.Token, out.Wait, len(k.queue[name]))
}

// asked compares what came of a claim; at is where in the queue it stands.
func (k *walk) asked(b *borrower, name string, c Claim, free, wait bool, token uint64, waits bool, at int) {
	if (token != 0) != free || waits != (wait && !free) {
		k.t.Fatalf("claim %+v of %q, free: %v, waits: %v: token %d, in the queue: %v", c, name, free, wait, token, waits)
	}
	switch {
	case token != 0:
		k.fresh(name, token)
		k.holds[name] = append(k.holds[name], c)
	case waits:
		k.queue[name] = slices.Insert(k.queue[name], at, c)
	default:
		return
	}
	b.mine[name] = append(b.mine[name], c.Number)
}

func (k *walk) leave(b *borrower, name string) {
	list := b.mine[name]
	if len(list) == 0 {
		return
	}
	at := k.random.IntN(len(list))
	number := list[at]
	b.mine[name] = slices.Delete(list, at, at+1)
	here := len(k.queue[name])
	if k.lent(name) != nil {
		here = 0
	}
	if l := b.loans[name]; l != nil && (find(l.Holds, b.id, number) >= 0 || find(l.Waits, b.id, number) >= 0) {
		l.Leave(b.id, number)
		here = len(l.Waits)
		l.Next(meta.Time(k.now))
	} else {
		k.release(b.id, name, number)
	}
	is := func(c Claim) bool { return c.is(b.id, number) }
	k.holds[name], k.queue[name] = slices.DeleteFunc(k.holds[name], is), slices.DeleteFunc(k.queue[name], is)
	k.grant(name, here)
}

// hear takes a session's news: it returns what is wanted.
func (k *walk) hear(b *borrower) {
	for _, n := range k.news(b.id, b.seen) {
		b.seen = n.Seq
		if n.Number != 0 {
			b.told[n.Number] = n.Token
			continue
		}
		l := b.loans[n.Name]
		if l == nil {
			k.t.Fatalf("session %d is to return %q, which it does not have", b.id, n.Name)
		}
		must[none](k.world, b.id, OpReturn, Return{Locks: []Returned{{Name: n.Name, Known: true, Lock: *l}}})
		delete(b.loans, n.Name)
		k.grant(n.Name, len(k.queue[n.Name]))
	}
}

// die ends a session and begins another one.
func (k *walk) die(b *borrower) {
	k.end(b.id)
	for name := range k.holds {
		here := len(k.queue[name])
		if b.loans[name] == nil && k.lent(name) != nil {
			here = 0
		}
		is := func(c Claim) bool { return c.Session == b.id }
		k.holds[name], k.queue[name] = slices.DeleteFunc(k.holds[name], is), slices.DeleteFunc(k.queue[name], is)
		k.grant(name, here)
	}
	*b = borrower{id: k.open(), loans: make(map[string]*Lock), mine: make(map[string][]uint64), told: make(map[uint64]uint64)}
}

// compare says whether the room and the model agree on who has a lock, with
// which tokens, and who waits.
func (k *walk) compare(name string) {
	info := k.status(name)
	l := info.Lock
	if info.Lent != 0 {
		for _, b := range k.people {
			if lent := b.loans[name]; lent != nil {
				if b.id != info.Lent {
					k.t.Fatalf("lock %q is lent to session %d and %d has it", name, info.Lent, b.id)
				}
				l = *lent
				l.Waits = slices.Concat(lent.Waits, info.Lock.Waits)
			}
		}
	}
	for _, c := range l.Holds {
		if c.Token > k.token[name] { // granted out of the queue, in order
			k.fresh(name, c.Token)
		}
	}
	same := func(a, b Claim) bool { return a.is(b.Session, b.Number) && a.Mode == b.Mode }
	if !slices.EqualFunc(l.Holds, k.holds[name], same) || !slices.EqualFunc(l.Waits, k.queue[name], same) {
		k.t.Fatalf("lock %q: held by %+v, in the queue %+v,\nwant %+v, %+v", name, l.Holds, l.Waits, k.holds[name], k.queue[name])
	}
}

// Whatever sessions do, the lock goes to who comes next, each grant has a greater
// token, lent or not, and nothing is left of those who are gone.
func TestModel(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed=%d", s)
	for round := range uint64(30) {
		k := &walk{
			world: newWorld(t, 0), random: rand.New(rand.NewPCG(s, round)),
			queue: make(map[string][]Claim), holds: make(map[string][]Claim), limit: make(map[string]int), token: make(map[string]uint64),
		}
		for range 3 {
			b := new(borrower)
			k.people = append(k.people, b)
			k.die(b)
		}
		names := []string{"a", "b"}
		lent := 0
		for range 1500 {
			b, name := k.people[k.random.IntN(3)], names[k.random.IntN(2)]
			switch n := k.random.IntN(100); {
			case n < 40:
				k.claim(b, name)
			case n < 85:
				k.leave(b, name)
			case n < 95:
				k.hear(b)
			case n < 98:
				limit := k.random.IntN(3)
				if k.limit[name] == limit {
					break
				}
				if must[Outcome](k.world, b.id, OpSet, Set{Name: name, Limit: &limit}).Away == 0 {
					k.limit[name] = limit
					k.grant(name, len(k.queue[name]))
				}
			default:
				k.die(b)
			}
			lent += len(b.loans)
			for _, name := range names {
				k.compare(name)
			}
		}
		if lent == 0 {
			t.Error("nothing was lent")
		}
		for _, b := range k.people {
			for number, token := range b.told {
				if token == 0 {
					t.Errorf("session %d heard of claim %d without a token", b.id, number)
				}
			}
			k.end(b.id)
		}
		for _, name := range names {
			must[none](k.world, k.open(), OpSet, Set{Name: name, Limit: new(int)})
		}
		k.pass(2 * keepTime)
		if n := k.rows(); n != 1 { // the greatest token
			t.Errorf("%d rows are left of locks that nobody has", n)
		}
	}
}
