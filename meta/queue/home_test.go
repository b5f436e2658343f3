package queue

import (
	"testing"

	"dos/meta"
)

func (w *world) whose(name string) Home {
	w.t.Helper()
	return must[Home](w, 0, OpWhose, Whose{Name: name})
}

func (w *world) memory(name string) {
	w.t.Helper()
	on := true
	must[none](w, 0, OpMake, Make{Name: name})
	must[none](w, 0, OpSet, Set{Name: name, Memory: &on})
}

func sessionsOf(h Home) [2]meta.SessionID {
	return [2]meta.SessionID{h.Primary.Session, h.Backup.Session}
}

// Who holds a queue changes by commands only, one for each epoch.
func TestHome(t *testing.T) {
	w := newWorld(t)
	on := true
	must[none](w, 0, OpMake, Make{Name: "q"})
	wantKind[none](w, 0, OpSet, Set{Name: "q", Memory: &on}, meta.Unavailable) // nobody could
	var all []meta.SessionID
	for _, node := range []string{"a", "b", "c"} {
		s := w.open()
		must[More](w, s, OpServe, Serve{Node: node, Addr: node + ":1"})
		must[More](w, s, OpServe, Serve{Node: node, Addr: node + ":1"}) // asked again
		all = append(all, s)
	}
	must[none](w, 0, OpSet, Set{Name: "q", Memory: &on})
	h := w.whose("q")
	if h.Primary.Node == "" || h.Backup.Node == "" || h.Primary.Session == h.Backup.Session || h.Begun != h.Epoch || sessionsOf(h) != [2]meta.SessionID{h.First, h.Second} {
		t.Fatalf("it begins at %+v", h)
	}
	primary, backup := h.Primary.Session, h.Backup.Session
	third := all[0] + all[1] + all[2] - primary - backup
	list := must[HomeList](w, 0, OpHomes, Homes{Session: backup, Limit: 9})
	if len(list.List) != 1 || list.List[0].Queue != h.Queue || len(list.Holders) != 3 || list.Version == 0 {
		t.Errorf("the backup has %+v", list)
	}

	// One who does not hold it, or who knows of another epoch, changes nothing.
	wantKind[Home](w, third, OpMove, Move{Queue: h.Queue, Epoch: h.Epoch}, meta.Conflict)
	wantKind[Home](w, 0, OpMove, Move{Queue: h.Queue, Epoch: h.Epoch}, meta.Conflict)
	wantKind[Home](w, backup, OpMove, Move{Queue: h.Queue, Epoch: h.Epoch - 1}, meta.Conflict)
	wantKind[Home](w, primary, OpMove, Move{Queue: h.Queue, Epoch: h.Epoch, Backup: primary}, meta.Conflict)
	wantKind[Home](w, primary, OpMove, Move{Queue: h.Queue, Epoch: h.Epoch, Backup: 99}, meta.Conflict)
	wantKind[Home](w, primary, OpMove, Move{Queue: 99, Epoch: h.Epoch}, meta.NotExist)

	// The backup takes over; the primary, which would leave it out, is too late.
	now := must[Home](w, backup, OpMove, Move{Queue: h.Queue, Epoch: h.Epoch})
	if sessionsOf(now) != [2]meta.SessionID{backup, 0} || now.Epoch != h.Epoch+1 || now.Begun != h.Begun {
		t.Errorf("taken over: %+v", now)
	}
	wantKind[Home](w, primary, OpMove, Move{Queue: h.Queue, Epoch: h.Epoch}, meta.Conflict)
	now = must[Home](w, backup, OpMove, Move{Queue: h.Queue, Epoch: now.Epoch, Backup: third})

	// What a session has goes with it: to the other, and when that goes, it is lost.
	w.end(backup)
	if now = w.whose("q"); sessionsOf(now) != [2]meta.SessionID{third, 0} || now.Lost != 0 {
		t.Errorf("the primary's session ended: %+v", now)
	}
	w.end(third)
	now = w.whose("q")
	if sessionsOf(now) != [2]meta.SessionID{primary, 0} || now.Lost != 1 || now.LostAt == 0 || now.Begun != now.Epoch {
		t.Errorf("both are gone: %+v", now)
	}
	// The machine comes back: what its last process held it does not have.
	again := w.open()
	must[More](w, again, OpServe, Serve{Node: now.Primary.Node, Addr: "x:1"})
	if now = w.whose("q"); sessionsOf(now) != [2]meta.SessionID{again, 0} || now.Lost != 2 {
		t.Errorf("it restarted: %+v", now)
	}
	w.end(again)
	if now = w.whose("q"); sessionsOf(now) != [2]meta.SessionID{} || now.Lost != 3 {
		t.Errorf("nobody is there: %+v", now)
	}
	last := w.open()
	must[More](w, last, OpServe, Serve{Node: "d", Addr: "d:1"})
	if now = w.whose("q"); now.Primary.Session != last {
		t.Errorf("somebody is there again: %+v", now)
	}
	resigned := must[Home](w, last, OpMove, Move{Queue: h.Queue, Epoch: now.Epoch, Resign: true})
	if resigned.Lost != now.Lost+1 || resigned.Begun == now.Begun {
		t.Errorf("it has not what it should have: %+v", resigned)
	}
	must[none](w, 0, OpRemove, Named{Name: "q"})
	wantKind[Home](w, 0, OpWhose, Whose{Name: "q"}, meta.NotExist)
	if list := must[HomeList](w, 0, OpHomes, Homes{Session: last, Limit: 9}); len(list.List) != 0 {
		t.Errorf("of a queue that was removed: %+v", list)
	}
}

// What is for the machines that hold a queue is refused here, and a queue with
// messages is not moved.
func TestElsewhere(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	must[More](w, s, OpServe, Serve{Node: "a", Addr: "a:1"})
	w.memory("q")
	push := Push{Name: "q", Messages: []Message{{Body: []byte("x")}}}
	wantKind[Pushed](w, s, OpPush, push, meta.Unsupported)
	wantKind[Taken](w, s, OpTake, Take{Name: "q", Max: 1}, meta.Unsupported)
	wantKind[Settled](w, s, OpSettle, Settles{List: []Settle{{Name: "q", Claim: 1}}}, meta.Unsupported)
	wantKind[none](w, s, OpLeave, Leave{Name: "q", Place: 1}, meta.Unsupported)
	wantKind[none](w, 0, OpPurge, Named{Name: "q"}, meta.Unsupported)
	wantKind[none](w, 0, OpSeek, Seek{Name: "q", First: true}, meta.Unsupported)
	wantKind[none](w, 0, OpBury, Bury{Name: "q", Number: 1}, meta.Unsupported)
	wantKind[Log](w, 0, OpRead, Read{Name: "q", Limit: 1}, meta.Unsupported)
	wantKind[Flying](w, 0, OpFlights, Flights{Name: "q", Limit: 1}, meta.Unsupported)
	wantKind[Letters](w, 0, OpDead, Dead{Name: "q", Limit: 1}, meta.Unsupported)
	st := must[Status](w, 0, OpStatus, Named{Name: "q"})
	if !st.Settings.Memory || st.Home == nil || st.Home.Primary.Node != "a" {
		t.Errorf("status %+v", st)
	}
	on := true
	must[none](w, 0, OpMake, Make{Name: "full"})
	push.Name = "full"
	must[Pushed](w, s, OpPush, push)
	wantKind[none](w, 0, OpSet, Set{Name: "full", Memory: &on}, meta.Busy)
	must[Taken](w, s, OpTake, Take{Name: "full", Max: 1})
	must[Settled](w, s, OpSettle, Settles{List: []Settle{{Name: "full", Claim: 1}}})
	must[Taken](w, s, OpTake, Take{Name: "full", Max: 1, Wait: true})
	wantKind[none](w, 0, OpSet, Set{Name: "full", Memory: &on}, meta.Busy) // somebody waits

	// A durable queue whose dead go to one in memory keeps them itself.
	dead, attempts := "q", 1
	must[none](w, 0, OpSet, Set{Name: "full", Dead: &dead, Attempts: &attempts})
	must[Pushed](w, s, OpPush, push)
	must[Settled](w, s, OpSettle, Settles{List: []Settle{{Name: "full", Claim: 2, What: Nack}}})
	if st := must[Status](w, 0, OpStatus, Named{Name: "full"}); st.Dead != 1 {
		t.Errorf("dead: %+v", st)
	}
}
