package quorum

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/meta/replica"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// A group is written as its members, the leader first:
//
//	a     a voter that answers
//	a?    one that does not
//	a#    one that has been away too long
//	(a)   no vote, ready for one
//	(a>)  no vote, far behind
//	(a?)  no vote, does not answer
func parseMembers(text string) (self string, list []replica.Member) {
	for _, word := range strings.Fields(text) {
		bare := strings.Trim(word, "()")
		m := replica.Member{ID: strings.TrimRight(bare, "?#>"), Voter: bare == word, Heard: noon}
		m.Address = "at-" + m.ID
		switch {
		case strings.HasSuffix(bare, "?"):
			m.Heard = noon.Add(-time.Minute)
		case strings.HasSuffix(bare, "#"):
			m.Heard = noon.Add(-time.Hour)
		case strings.HasSuffix(bare, ">"):
			m.Lag = replica.CaughtUp + 1
		}
		list = append(list, m)
	}
	return list[0].ID, list
}

// Machines are written as
//
//	a     holds the metadata and is alive
//	a-    is not alive
//	a~    is not to hold the metadata
//	a/2   its member is a/2
//	a@x   is at x
//	a.    has not said what member it has
func parseMachines(text string) (list []Machine) {
	for _, word := range strings.Fields(text) {
		word, addr, moved := strings.Cut(word, "@")
		id := strings.TrimRight(word, "-~.")
		m := Machine{Name: replica.MachineOf(id), Member: id, Addr: "at-" + id, Meta: !strings.HasSuffix(word, "~"), Alive: !strings.HasSuffix(word, "-")}
		if strings.HasSuffix(word, ".") {
			m.Member = ""
		}
		if moved {
			m.Addr = addr
		}
		list = append(list, m)
	}
	return list
}

func look(members, machines string, voters int) view {
	v := view{voters: voters, now: noon, since: noon.Add(-24 * time.Hour), answer: 3 * time.Second, dead: 2 * time.Minute}
	v.self, v.members = parseMembers(members)
	v.machines = parseMachines(machines)
	return v
}

func TestNext(t *testing.T) {
	for _, tc := range []struct {
		members, machines string
		voters            int
		want              string
	}{
		// All is well, and what there are no machines for.
		{"a", "a", 0, ""},
		{"a b c", "a b c", 0, ""},
		{"a b c (d)", "a b c d", 0, ""},
		{"a b c d e", "a b c d e", 0, ""},
		{"a b c d e (f)", "a b c d e f", 0, ""},
		{"a", "", 0, ""},
		{"a b c", "a b c d e~", 0, "add d"},

		// Growing, to an odd number.
		{"a", "a b", 0, "add b"},
		{"a", "a b.", 0, ""},
		{"a", "a b-", 0, ""},
		{"a (b)", "a b", 0, ""},
		{"a (b)", "a b c", 0, "add c"},
		{"a (b) (c>)", "a b c", 0, ""},
		{"a (b) (c)", "a b c", 0, "promote b"},
		{"a b (c>)", "a b c", 0, ""},
		{"a b (c)", "a b c", 0, "promote c"},
		{"a b c (d) (e)", "a b c d e", 0, "promote d"},
		{"a b c (d) (e)", "a b c d e", 3, ""},
		{"a (b) (c)", "a b c", 1, ""},
		{"a b? (c)", "a b c", 0, ""}, // nothing is committed by 1 of 2
		{"a b? (c>)", "a b c", 0, ""},

		// A voter dies: a spare first, then it loses its vote.
		{"a b c?", "a b c-", 0, ""},
		{"a b c#", "a b c-", 0, ""},
		{"a b c# (d>)", "a b c- d", 0, ""},
		{"a b c? (d)", "a b c- d", 0, ""},
		{"a b c# (d)", "a b c- d", 0, "promote d"},
		{"a b c# d", "a b c- d", 0, "demote c"},
		{"a b c d? e# (f)", "a b c d- e- f", 0, "promote f"},
		{"a b c d? e# f", "a b c d- e- f", 0, "demote e"},
		{"a b c d# e# (f)", "a b c d- e- f", 0, "promote f"},
		{"a b? c# (d)", "a b- c- d", 0, ""}, // 2 of 4 would be no majority
		{"a b c (d?)", "a b c d-", 0, ""},
		{"a b c d", "a b c d", 0, "demote d"}, // the one that was dead is back

		// A machine is removed, or does something else now, or began again.
		{"a b c (d?)", "a b c", 0, "remove d"},
		{"a b c (d)", "a b c d~", 0, "remove d"},
		{"a b c?", "a b", 0, "remove c"},
		{"a b", "a b", 0, "demote b"}, // and two machines are as good as one
		{"a b c? (d)", "a b d", 0, "promote d"},
		{"a b c? d", "a b d", 0, "remove c"},
		{"a b c", "a b c~ d-", 0, "remove c"},
		{"a b c", "a~ b c", 0, "yield a"},
		{"a b? c?", "a~ b- c-", 0, ""},
		{"a", "b", 0, "add b"},
		{"a b? c?", "a b", 0, ""}, // 1 of 2 would be no majority
		{"a b c/1?", "a b c/2", 0, "remove c/1"},
		{"a b (c/2>)", "a b c/2", 0, ""},
		{"a b c/1? (c/2)", "a b c/2", 0, "promote c/2"},
		{"a b c/1? c/2", "a b c/2", 0, "remove c/1"},

		// Too many.
		{"a b c d e", "a b c d e", 3, "demote e"},
		{"a b c? d e", "a b c- d e", 3, "demote c"},
		{"b a", "a b", 1, "demote a"},

		// Elsewhere.
		{"a b c", "a b c@x", 0, "move c to x"},
		{"a b c", "a@x b c", 0, ""}, // it says so itself
		{"a b (c?)", "a b c@x", 0, "move c to x"},
		{"a b c", "a b c-@x", 0, ""},
	} {
		s, ok := next(look(tc.members, tc.machines, tc.voters))
		got := ""
		if ok {
			got = fmt.Sprint(s.act, " ", s.member)
			if s.act == move {
				got += " to " + s.addr
			}
			if s.why == "" {
				t.Errorf("%s; %s: %s without a reason", tc.members, tc.machines, got)
			}
		}
		if got != tc.want {
			t.Errorf("members %s, machines %s, %d voters: %q, want %q", tc.members, tc.machines, tc.voters, got, tc.want)
		}
	}
}

// A leader gives everybody the whole time to answer.
func TestNewLeaderWaits(t *testing.T) {
	v := look("a b c# (d)", "a b c- d", 0)
	v.since = noon.Add(-time.Minute)
	if s, ok := next(v); ok {
		t.Errorf("a minute after it became the leader it does %v %s", s.act, s.member)
	}
}

// Machines come and go at random. No step costs the majority, and once all is
// quiet the group is what it should be.
func TestConverges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 300 {
		v := look("m0", "m0", 0)
		serial := 0
		for i := range rng.IntN(8) {
			name := fmt.Sprint("m", i+1)
			v.machines = append(v.machines, Machine{Name: name, Addr: "at-" + name, Member: name, Meta: true, Alive: true})
		}
		alive := func(m replica.Member) bool {
			machine, ok := v.machine(m)
			return ok && machine.Alive && machine.Meta && machine.Member == m.ID
		}
		var did []string
		settle := func(most int) {
			for range most {
				for i, m := range v.members {
					if alive(m) || m.ID == v.self {
						v.members[i].Heard, v.members[i].Lag = v.now, 0
					}
				}
				s, ok := next(v)
				if !ok {
					return
				}
				did = append(did, fmt.Sprint(s.act, s.member))
				at := slices.IndexFunc(v.members, func(m replica.Member) bool { return m.ID == s.member })
				switch s.act {
				case add:
					v.members = append(v.members, replica.Member{ID: s.member, Address: s.addr, Lag: replica.CaughtUp + 1})
				case move:
					v.members[at].Address = s.addr
				case promote:
					v.members[at].Voter = true
				case demote:
					v.members[at].Voter = false
				case remove:
					v.members = slices.Delete(v.members, at, at+1)
				case yield:
					t.Fatalf("round %d: the leader is to go: %v", round, did)
				}
				voters, answer := 0, 0
				for _, m := range v.members {
					if m.Voter {
						voters++
						if v.answers(m) {
							answer++
						}
					}
				}
				if s.act >= promote && answer <= voters/2 {
					t.Fatalf("round %d: %d of %d voters answer after %v", round, answer, voters, did)
				}
			}
		}
		for range rng.IntN(6) {
			settle(rng.IntN(10))
			v.now = v.now.Add(time.Duration(rng.IntN(240)) * time.Second)
			if len(v.machines) == 1 {
				continue
			}
			i := 1 + rng.IntN(len(v.machines)-1)
			switch m := &v.machines[i]; rng.IntN(4) {
			case 0:
				m.Alive = !m.Alive
			case 1:
				serial++
				m.Member = fmt.Sprintf("%s/%d", m.Name, serial)
			case 2:
				v.machines = slices.Delete(v.machines, i, i+1)
			case 3:
				m.Addr += "x"
			}
		}
		for i := range v.machines {
			v.machines[i].Alive = true
		}
		v.now = v.now.Add(time.Hour)
		left := 0
		for _, m := range v.members {
			if m.Voter && (alive(m) || m.ID == v.self) {
				left++
			}
		}
		if left <= v.count()/2 {
			continue // too many were lost for good
		}
		did = append(did, "quiet")
		settle(100)
		if got, want := v.count(), v.want(); got != want || len(v.members) != len(v.machines) {
			t.Fatalf("round %d: %d voters of %d members, want %d of %d: %v", round, got, len(v.members), want, len(v.machines), did)
		}
	}
}
