package named

import (
	"fmt"
	"slices"
	"strings"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpAsk, "named.ask", ask)
	state.Handle(m, OpRelease, "named.release", release)
	state.Handle(m, OpReturn, "named.return", giveBack)
	state.Handle(m, OpByID, "named.by-id", byID)
	state.Handle(m, OpSet, "named.set", set)
	state.Handle(m, OpBreak, "named.break", breakLock)
	state.Handle(m, OpRecall, "named.recall", recall)
	state.Handle(m, OpWatch, "named.watch", watch)
	state.Handle(m, OpMkdir, "named.mkdir", mkdir)
	state.Handle(m, OpRmdir, "named.rmdir", rmdir)
	state.Handle(m, OpRemove, "named.remove", removeLock)
	state.Handle(m, OpExpire, "named.expire", expire)
	state.Query(m, OpStatus, "named.status", status)
	state.Query(m, OpList, "named.list", list)
	state.Query(m, OpAwait, "named.await", await)
	state.Query(m, OpFollow, "named.follow", status)
	state.Query(m, OpDue, "named.due", due)
}

type none = struct{}

func (c *Claim) check() error {
	switch {
	case c.Mode != meta.Shared && c.Mode != meta.Exclusive, c.Number == 0:
		return fmt.Errorf("claim %d with mode %d: %w", c.Number, c.Mode, meta.Invalid)
	case c.ID != "" && (c.TTL < TTLMin || c.TTL > TTLMax):
		return fmt.Errorf("a time to live of %v, not %v to %v: %w", c.TTL, TTLMin, TTLMax, meta.Invalid)
	case len(c.ID) > TextMax, len(c.Who.Cmd) > TextMax, len(c.Who.Node) > TextMax:
		return fmt.Errorf("a text of over %d bytes: %w", TextMax, meta.TooLarge)
	case strings.ContainsAny(c.ID, " \t\n"):
		return fmt.Errorf("id %q: %w", c.ID, meta.Invalid)
	}
	return nil
}

func ask(tx *state.Tx, req Ask) (Outcome, error) {
	l, err := enter(tx, req.Name)
	if err == nil {
		err = req.Claim.check()
	}
	if err != nil {
		return Outcome{}, err
	}
	c, me, now := req.Claim, tx.Session, meta.At(tx.Now)
	c.Session, c.Token, c.Since, c.Expires = me, 0, 0, 0
	switch {
	case l.Lent == me: // it does not know that yet, or has forgotten
		return Outcome{Away: me}, nil
	case l.Lent != 0 && !req.Wait:
		return l.away(tx, req.Name)
	case l.Lent != 0:
		// Whoever waits there goes first: they will stand before this one.
		if find(l.Lock.Waits, me, c.Number) < 0 {
			c.Since = now
			l.Lock.Waits = append(l.Lock.Waits, c)
			tx.Set(claimKey(me, c.Number), state.Marshal(mine{Name: req.Name}))
		}
		l.recall(tx, req.Name)
		return Outcome{Wait: true}, save(tx, req.Name, l)
	}
	lend := req.Borrow && c.ID == "" && l.Lock.Free() && l.Lock.Prev == me && !l.Lock.Fenced && len(l.Watch) == 0
	token, waits := l.Lock.Ask(c, req.Wait, now)
	if token == 0 && !waits {
		return Outcome{}, nil
	}
	if lend && token != 0 {
		// The state keeps the lock as it was: if the loan is lost, so is the claim.
		loan := &Loan{Lock: l.Lock, Last: token + LoanTokens}
		l.Lock.Holds, l.Lent, l.Last = nil, me, loan.Last
		tx.Set(loanKey(me, req.Name), state.Marshal(mine{Name: req.Name}))
		return Outcome{Token: token, Loan: loan}, save(tx, req.Name, l)
	}
	if !has(tx, claimKey(me, c.Number)) {
		tx.Set(claimKey(me, c.Number), state.Marshal(mine{Name: req.Name}))
	}
	return Outcome{Token: token, Wait: waits}, save(tx, req.Name, l)
}

func release(tx *state.Tx, req Release) (none, error) {
	untell(tx, tx.Session, claimKey(tx.Session, req.Number))
	l, ok := read[row](tx, lockKey(req.Name))
	if !ok {
		return none{}, nil
	}
	if _, had := l.Lock.Leave(tx.Session, req.Number); !had {
		return none{}, nil
	}
	return none{}, save(tx, req.Name, &l)
}

func giveBack(tx *state.Tx, req Return) (none, error) {
	if len(req.Locks) > ListMax {
		return none{}, fmt.Errorf("%d locks at once: %w", len(req.Locks), meta.TooLarge)
	}
	for _, back := range req.Locks {
		l, ok := read[row](tx, lockKey(back.Name))
		if !ok || l.Lent != tx.Session {
			continue
		}
		if err := l.giveBack(tx, back); err != nil {
			return none{}, err
		}
	}
	return none{}, nil
}

// giveBack makes a lock what the session that it was lent to says.
func (l *row) giveBack(tx *state.Tx, back Returned) error {
	me, here := tx.Session, l.Lock.Waits
	if !back.Known {
		back.Lock.Token = l.Last
	}
	if t := back.Lock.Token; t < l.Lock.Token || t > l.Last {
		return fmt.Errorf("lock %q comes back with token %d, lent were %d to %d: %w", back.Name, t, l.Lock.Token, l.Last, meta.Invalid)
	}
	l.end(tx, back.Name)
	l.Lock.Token, l.Lock.Prev = back.Lock.Token, me
	l.Lock.Holds, l.Lock.Waits = back.Lock.Holds, append(back.Lock.Waits, here...)
	for _, list := range [][]Claim{l.Lock.Holds, back.Lock.Waits} {
		for i := range list {
			if err := list[i].check(); err != nil {
				return err
			}
			list[i].Session, list[i].ID, list[i].TTL = me, "", 0
			tx.Set(claimKey(me, list[i].Number), state.Marshal(mine{Name: back.Name}))
		}
	}
	return save(tx, back.Name, l)
}

// held finds what an ID has.
func (l *row) held(id string, now meta.Time) int {
	return slices.IndexFunc(l.Lock.Holds, func(c Claim) bool { return c.ID == id && now < c.Expires })
}

func byID(tx *state.Tx, req ByID) (Outcome, error) {
	l, err := enter(tx, req.Name)
	if err != nil {
		return Outcome{}, err
	}
	now := meta.At(tx.Now)
	at := l.held(req.ID, now)
	if req.ID == "" || at < 0 {
		return Outcome{}, fmt.Errorf("id %.80q does not have lock %q: %w", req.ID, req.Name, meta.Conflict)
	}
	c := &l.Lock.Holds[at]
	if req.UID != 0 && req.UID != c.Who.UID {
		return Outcome{}, fmt.Errorf("id %.80q is user %d's: %w", req.ID, c.Who.UID, meta.Permission)
	}
	token := c.Token
	if req.Release || c.Session != tx.Session {
		untell(tx, c.Session, claimKey(c.Session, c.Number))
	}
	if req.Release {
		l.Lock.Holds = slices.Delete(l.Lock.Holds, at, at+1)
		return Outcome{Token: token}, save(tx, req.Name, l)
	}
	if c.Session != tx.Session { // whoever speaks for the ID changes what is fenced
		c.Session, c.Number = tx.Session, 0
	}
	if req.TTL != 0 {
		if req.TTL < TTLMin || req.TTL > TTLMax {
			return Outcome{}, fmt.Errorf("a time to live of %v, not %v to %v: %w", req.TTL, TTLMin, TTLMax, meta.Invalid)
		}
		c.TTL = req.TTL
	}
	c.Expires = now + meta.Time(c.TTL)
	return Outcome{Token: token}, save(tx, req.Name, l)
}

func set(tx *state.Tx, req Set) (Outcome, error) {
	l, err := enter(tx, req.Name)
	switch {
	case err != nil:
		return Outcome{}, err
	case req.Limit != nil && (*req.Limit < 0 || *req.Limit > LimitMax):
		return Outcome{}, fmt.Errorf("a limit of %d, not 0 to %d: %w", *req.Limit, LimitMax, meta.Invalid)
	case req.Delay != nil && (*req.Delay < 0 || *req.Delay > DelayMax):
		return Outcome{}, fmt.Errorf("a delay of %v, not 0 to %v: %w", *req.Delay, DelayMax, meta.Invalid)
	case req.Value != nil && len(*req.Value) > ValueMax:
		return Outcome{}, fmt.Errorf("a value of %d bytes: %w", len(*req.Value), meta.TooLarge)
	case l.Lent != 0:
		return l.away(tx, req.Name)
	}
	change(&l.Lock.Limit, req.Limit)
	change(&l.Lock.Delay, req.Delay)
	change(&l.Lock.Value, req.Value)
	change(&l.Lock.Fenced, req.Fenced)
	return Outcome{}, save(tx, req.Name, l)
}

func change[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func breakLock(tx *state.Tx, req Named) (Outcome, error) {
	l, err := enter(tx, req.Name)
	switch {
	case err != nil:
		return Outcome{}, err
	case l.Lent != 0:
		return l.away(tx, req.Name)
	case len(l.Lock.Holds) == 0:
		return Outcome{}, nil
	}
	held := l.Lock.Holds
	l.Lock.Holds = nil
	for _, c := range held {
		lost(tx, req.Name, c)
	}
	l.lose(tx)
	return Outcome{}, save(tx, req.Name, l)
}

// lost tells the session of a claim that had the lock that it has it no more. Its
// row stays until the session has given it up.
func lost(tx *state.Tx, name string, c Claim) {
	key := claimKey(c.Session, c.Number)
	if !has(tx, key) {
		return
	}
	untell(tx, c.Session, key)
	tx.Set(key, state.Marshal(mine{name, tell(tx, c.Session, News{Name: name, Number: c.Number, Lost: true})}))
}

func recall(tx *state.Tx, req Names) (Names, error) {
	if len(req.Names) > ListMax {
		return Names{}, fmt.Errorf("%d locks at once: %w", len(req.Names), meta.TooLarge)
	}
	var reply Names
	for _, name := range req.Names {
		l, ok := read[row](tx, lockKey(name))
		if !ok || l.Lent == 0 {
			continue
		}
		reply.Names = append(reply.Names, name)
		if _, err := l.away(tx, name); err != nil {
			return Names{}, err
		}
	}
	return reply, nil
}

func watch(tx *state.Tx, req Watch) (Outcome, error) {
	l, err := enter(tx, req.Name)
	if err != nil {
		return Outcome{}, err
	}
	at := l.watched(tx.Session)
	switch {
	case req.Off == (at < 0):
		return Outcome{}, nil
	case req.Off:
		l.Watch = slices.Delete(l.Watch, at, at+1)
		tx.Delete(watchKey(tx.Session, req.Name))
		return Outcome{}, save(tx, req.Name, l)
	case len(l.Watch) >= ClaimsMax:
		return Outcome{}, fmt.Errorf("%d watch lock %q: %w", len(l.Watch), req.Name, meta.Quota)
	case l.Lent != 0:
		return l.away(tx, req.Name)
	}
	l.Watch = append(l.Watch, tx.Session)
	tx.Set(watchKey(tx.Session, req.Name), []byte{})
	return Outcome{}, save(tx, req.Name, l)
}

func removeLock(tx *state.Tx, req Named) (Outcome, error) {
	l, ok := read[row](tx, lockKey(req.Name))
	switch {
	case !ok || !l.there() && l.Lent == 0:
		return Outcome{}, meta.NotExist
	case l.Lent != 0:
		return l.away(tx, req.Name)
	case !l.Lock.Free():
		return Outcome{}, fmt.Errorf("lock %q is held or waited for: %w", req.Name, meta.Busy)
	}
	l.Lock.Limit, l.Lock.Delay, l.Lock.Value, l.Lock.Fenced = 0, 0, "", false
	return Outcome{}, save(tx, req.Name, &l)
}

// expire does what is due: an ID loses what it did not renew, a lock that was shut
// is given to the next one, and one that nobody has used for a while is forgotten.
func expire(tx *state.Tx, _ none) (none, error) {
	now := meta.At(tx.Now)
	var names []string
	for key := range tx.Scan([]byte("6E"), dueKey(now+1, "")) {
		if names = append(names, string(key[len("6E")+8:])); len(names) == dueMax {
			break
		}
	}
	for _, name := range names {
		l, ok := read[row](tx, lockKey(name))
		if !ok {
			panic(fmt.Sprintf("named: lock %q is due and is not there", name))
		}
		if !l.used() {
			forget(tx, name, &l)
			continue
		}
		held := l.Lock.Holds
		l.Lock.Holds = nil
		for _, c := range held {
			if c.ID == "" || now < c.Expires {
				l.Lock.Holds = append(l.Lock.Holds, c)
				continue
			}
			lost(tx, name, c)
			l.lose(tx)
		}
		if err := save(tx, name, &l); err != nil {
			return none{}, err
		}
	}
	return none{}, nil
}

// Drop gives up at most limit claims, loans and watches of a session that has
// ended; it is a session.Release.
func Drop(tx *state.Tx, s meta.SessionID, limit int) (n int, more bool) {
	for _, table := range "MBO" {
		prefix := sessionKey(byte(table), s)
		var keys [][]byte
		for k := range tx.Scan(prefix, state.After(prefix)) {
			if n == limit {
				return n, true
			}
			n++
			keys = append(keys, slices.Clone(k))
		}
		for _, k := range keys {
			drop(tx, s, k)
		}
	}
	remove(tx, AwaitKey(s))
	return n, false
}

// drop gives up what one row of a session says.
func drop(tx *state.Tx, s meta.SessionID, key []byte) {
	table, name := key[1], string(key[len("6O")+8:])
	if table == 'M' {
		m, _ := read[mine](tx, key)
		name = m.Name
	}
	number := uint64(0)
	if table == 'M' {
		number = numberOf(key)
	}
	l, ok := read[row](tx, lockKey(name))
	changed := false
	switch {
	case !ok:
	case table == 'M':
		if at := find(l.Lock.Holds, s, number); at >= 0 && l.Lock.Holds[at].ID != "" {
			l.Lock.Holds[at].Number, changed = 0, true // it is the ID's
			break
		}
		var c Claim
		if c, changed = l.Lock.Leave(s, number); changed && c.Token != 0 {
			l.lose(tx)
		}
	case table == 'B' && l.Lent == s: // whatever was granted there
		l.Lock.Token = l.Last
		l.end(tx, name)
		l.lose(tx)
		changed = true
	case table == 'O':
		if at := l.watched(s); at >= 0 {
			l.Watch, changed = slices.Delete(l.Watch, at, at+1), true
		}
	}
	if table == 'O' {
		tx.Delete(key)
	} else {
		untell(tx, s, key)
	}
	if !changed {
		return
	}
	if err := save(tx, name, &l); err != nil {
		panic(fmt.Sprintf("named: dropping what session %d has of %q: %v", s, name, err)) // nothing grows
	}
}

func await(r state.Reader, req Await) (Arrived, error) {
	if err := session.Check(r, req.Session); err != nil {
		return Arrived{}, err
	}
	var reply Arrived
	for _, val := range r.Scan(newsKey(req.Session, req.Seen+1), state.After(sessionKey('Q', req.Session))) {
		if len(reply.News) == ListMax {
			break
		}
		var n News
		state.MustUnmarshal(val, &n)
		reply.News = append(reply.News, n)
	}
	return reply, nil
}

func due(r state.Reader, _ none) (Due, error) {
	for key := range r.Scan([]byte("6E"), state.After([]byte("6E"))) {
		return Due{At: timeOf(key)}, nil
	}
	return Due{}, nil
}
