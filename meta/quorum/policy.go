// Package quorum decides which machines the metadata is on: who is a member of
// the Raft group, and who of them has a vote. The decision is a pure function of
// what the leader sees, one step at a time; a Keeper takes the steps while its
// member leads. The package does not know how members are reached, nor who says
// which machines there are.
package quorum

import (
	"cmp"
	"slices"
	"time"

	"dos/meta/replica"
)

// A Machine is one that belongs to the cluster.
type Machine struct {
	Name  string
	Addr  string // where its member is reached
	Meta  bool   // it is to hold the metadata
	Alive bool   // it has been heard of lately
	// Member is the name of its member, as it says itself. Empty: it has none yet,
	// or has not said so.
	Member string
}

// VotersMax is the largest number of voters that there can be: each write waits
// for a majority of them.
const VotersMax = 5

// An act is what can be done to a group.
type act uint8

const (
	add     act = iota + 1 // make it a member without a vote
	move                   // it is at another address
	promote                // give it a vote
	demote                 // take its vote
	remove                 // it is no member any more
	yield                  // hand the lead over: the leader itself is to go
)

func (a act) String() string {
	return [...]string{add: "add", move: "move", promote: "promote", demote: "demote", remove: "remove", yield: "yield"}[a]
}

// A step is one change of a group.
type step struct {
	act    act
	member string
	addr   string // for add and move
	why    string
}

// A view is what the leader sees.
type view struct {
	self     string // the leader
	voters   int    // wanted; 0: by the number of machines
	members  []replica.Member
	machines []Machine

	now    time.Time
	since  time.Time     // when this leader began to listen
	answer time.Duration // who was heard of within it answers
	dead   time.Duration // who was not heard of within it is dead
}

// next returns the next step, or false if the group is as it should be, or as
// near to it as is safe.
//
// No step leaves a group whose voters that answer are no majority. So a spare
// gets its vote before the dead voter that it replaces loses its own, and
// everything waits while too few answer.
func next(v view) (step, bool) {
	if len(v.machines) == 0 {
		return step{}, false // there is no cluster yet
	}
	if !v.safe(step{}) {
		return step{}, false // nothing would be committed
	}
	for _, rule := range []func(view) (step, bool){
		view.moved, view.strayNonvoter, view.strayVoter, view.deadVoter, view.newcomer, view.tooFew, view.tooMany,
	} {
		if s, ok := rule(v); ok {
			return s, ok
		}
	}
	return step{}, false
}

// want is how many voters there should be: an odd number, since one more than
// that makes a majority larger and nothing safer.
func (v view) want() int {
	if v.voters != 0 {
		return v.voters
	}
	n := 0
	for _, m := range v.machines {
		if m.Meta {
			n++
		}
	}
	n = min(n, VotersMax)
	return max(1, n-(n+1)%2)
}

func (v view) count() int {
	n := 0
	for _, m := range v.members {
		if m.Voter {
			n++
		}
	}
	return n
}

func (v view) machine(m replica.Member) (Machine, bool) {
	for _, machine := range v.machines {
		if machine.Name == replica.MachineOf(m.ID) {
			return machine, true
		}
	}
	return Machine{}, false
}

// stray says why a member is none of those that should be.
func (v view) stray(m replica.Member) (why string, is bool) {
	machine, ok := v.machine(m)
	switch {
	case !ok:
		return "its machine was removed", true
	case !machine.Meta:
		return "its machine is not to hold metadata any more", true
	case machine.Member != "" && machine.Member != m.ID:
		return "its machine began again with an empty directory", true
	}
	return "", false
}

func (v view) answers(m replica.Member) bool {
	return m.ID == v.self || v.now.Sub(m.Heard) <= v.answer
}

func (v view) isDead(m replica.Member) bool {
	heard := m.Heard
	if heard.Before(v.since) {
		heard = v.since
	}
	return m.ID != v.self && v.now.Sub(heard) > v.dead
}

// spares are those that could have a vote at once, the best first.
func (v view) spares() []replica.Member {
	var list []replica.Member
	for _, m := range v.members {
		if _, stray := v.stray(m); !m.Voter && !stray && v.answers(m) && m.Lag <= replica.CaughtUp {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b replica.Member) int {
		return cmp.Or(cmp.Compare(a.Lag, b.Lag), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// safe reports whether a majority of the voters answers once a step was taken.
func (v view) safe(s step) bool {
	voters, answer := 0, 0
	for _, m := range v.members {
		voter := m.Voter
		if m.ID == s.member {
			voter = s.act == promote
		}
		if voter {
			voters++
			if v.answers(m) {
				answer++
			}
		}
	}
	return answer > voters/2
}

// moved finds a member that is elsewhere. The leader's own address is its own affair.
func (v view) moved() (step, bool) {
	for _, m := range v.members {
		machine, ok := v.machine(m)
		if ok && m.ID != v.self && machine.Member == m.ID && machine.Alive && machine.Addr != "" && machine.Addr != m.Address {
			return step{act: move, member: m.ID, addr: machine.Addr, why: "it was at " + m.Address}, true
		}
	}
	return step{}, false
}

func (v view) strayNonvoter() (step, bool) {
	for _, m := range v.members {
		if why, stray := v.stray(m); stray && !m.Voter {
			return step{act: remove, member: m.ID, why: why}, true
		}
	}
	return step{}, false
}

// strayVoter lets a spare take its place first, if there is one.
func (v view) strayVoter() (step, bool) {
	for _, m := range v.members {
		why, stray := v.stray(m)
		switch {
		case !stray || !m.Voter:
			continue
		case m.ID == v.self:
			if v.otherVoterAnswers() {
				return step{act: yield, member: m.ID, why: why}, true
			}
			continue
		}
		if s, ok := v.replace(m, why); ok {
			return s, true
		}
		if s := (step{act: remove, member: m.ID, why: why}); v.safe(s) {
			return s, true
		}
	}
	return step{}, false
}

func (v view) otherVoterAnswers() bool {
	return slices.ContainsFunc(v.members, func(m replica.Member) bool { return m.Voter && m.ID != v.self && v.answers(m) })
}

// replace gives a spare the vote that m is to lose, unless that has happened.
func (v view) replace(m replica.Member, why string) (step, bool) {
	spares := v.spares()
	if len(spares) == 0 || v.count() > v.want() {
		return step{}, false
	}
	s := step{act: promote, member: spares[0].ID, why: "it takes the place of " + m.ID + ": " + why}
	return s, v.safe(s)
}

// deadVoter replaces a voter that has been away too long, if somebody can take
// its place. It stays without a vote: when it comes back it is a spare.
func (v view) deadVoter() (step, bool) {
	for _, m := range v.members {
		if !m.Voter || !v.isDead(m) {
			continue
		}
		why := "it has not been heard of for " + v.dead.String()
		if s, ok := v.replace(m, why); ok {
			return s, true
		}
		if s := (step{act: demote, member: m.ID, why: why}); v.count() > v.want() && v.safe(s) {
			return s, true
		}
	}
	return step{}, false
}

func (v view) newcomer() (step, bool) {
	for _, machine := range v.machines {
		if !machine.Meta || !machine.Alive || machine.Member == "" || machine.Addr == "" {
			continue
		}
		if !slices.ContainsFunc(v.members, func(m replica.Member) bool { return m.ID == machine.Member }) {
			return step{act: add, member: machine.Member, addr: machine.Addr, why: "it is new"}, true
		}
	}
	return step{}, false
}

// tooFew gives votes to spares. Of an odd number of voters it makes an even one
// only if the next can follow at once: two are no safer than one, and more easily
// without a majority.
func (v view) tooFew() (step, bool) {
	count, spares := v.count(), v.spares()
	if count >= v.want() || len(spares) < 1+count%2 {
		return step{}, false
	}
	s := step{act: promote, member: spares[0].ID, why: "it has caught up"}
	return s, v.safe(s)
}

// tooMany takes the vote of one that does not answer, else of the last by name,
// never of the leader.
func (v view) tooMany() (step, bool) {
	if v.count() <= v.want() {
		return step{}, false
	}
	var worst *replica.Member
	for i, m := range v.members {
		if !m.Voter || m.ID == v.self {
			continue
		}
		if worst == nil || !v.answers(m) && v.answers(*worst) || v.answers(m) == v.answers(*worst) && m.ID > worst.ID {
			worst = &v.members[i]
		}
	}
	if worst == nil {
		return step{}, false
	}
	s := step{act: demote, member: worst.ID, why: "there are more voters than machines are for"}
	return s, v.safe(s)
}
