package cluster

import (
	"fmt"
	"time"

	"dos/meta"
)

// A Status says everything about the safety of what is stored. dosctl prints
// it too: as text by Text, or as JSON.
type Status struct {
	Name     string     `json:"name,omitempty"` // of the node that answers
	Version  string     `json:"version"`
	Since    meta.Time  `json:"since"` // when this node started
	Now      meta.Time  `json:"now"`
	Code     string     `json:"code"`            // of new large stripes, now: "4+2"; empty: none can be written
	Want     string     `json:"want"`            // what the cluster was made with
	Spare    int        `json:"spare"`           // stores that may be lost from now on without losing data: M, or less
	Worst    int        `json:"worst,omitempty"` // shards of one stripe that may lie on one machine, at most; 0: as few as can be
	Stripes  Redundancy `json:"stripes"`
	Repair   Repair     `json:"repair"`
	Machines []Machine  `json:"machines,omitempty"` // none in an embedded cluster
	Stores   []Store    `json:"stores"`
	Meta     Metadata   `json:"meta"`
	Capacity int64      `json:"capacity"` // bytes of data that the stores hold in all, at the code of now
	Free     int64      `json:"free"`     // bytes of data that can still be written
	Used     int64      `json:"used"`     // bytes of data that files hold
	Files    int64      `json:"files"`    // inodes
	Dirty    int64      `json:"dirty"`    // bytes written and not yet stored
	Scrub    Scrub      `json:"scrub"`
	Fold     Fold       `json:"fold"`
	Garbage  Garbage    `json:"garbage"`
	Lacks    string     `json:"lacks,omitempty"` // as Machine's, of an embedded cluster
}

// Redundancy counts stripes by how much more they can lose. Each is in one of
// the five.
type Redundancy struct {
	Full       int64 `json:"full"`       // every shard is where it should be
	Short      int64 `json:"short"`      // whole, but written with fewer stores than wanted: re-encoded when they return
	Degraded   int64 `json:"degraded"`   // some shards are missing, and more could be
	Endangered int64 `json:"endangered"` // can be read, and not after one more loss
	Lost       int64 `json:"lost"`       // too few shards are left
}

// Total is the number of stripes.
func (r Redundancy) Total() int64 {
	return r.Full + r.Short + r.Degraded + r.Endangered + r.Lost
}

// Repair is what is being rebuilt.
type Repair struct {
	Running bool          `json:"running"`
	Done    int64         `json:"done"`  // stripes mended in this round
	Total   int64         `json:"total"` // stripes that this round has found to mend
	Rate    int64         `json:"rate"`  // bytes a second
	Left    time.Duration `json:"left"`  // about; zero if that is not known
	Error   string        `json:"error,omitempty"`
}

// The states of a store.
const (
	Up         = "up"
	Down       = "down"       // does not answer
	Lost       = "lost"       // its folder or disk is gone, or not to be trusted
	Rebuilding = "rebuilding" // answers, and is being given its shards again
)

// Store is one place where shards are kept.
type Store struct {
	ID       uint32 `json:"id"`
	Node     string `json:"node,omitempty"`
	Path     string `json:"path"`
	State    string `json:"state"`
	Capacity int64  `json:"capacity"` // bytes
	Free     int64  `json:"free"`
	Used     int64  `json:"used"`
	Shards   int64  `json:"shards"`
	Error    string `json:"error,omitempty"` // the last
	// Unmounted, when it is lost, is where its file system was mounted and is not.
	Unmounted string `json:"unmounted,omitempty"`
}

// Metadata is the state of the replicated machine.
type Metadata struct {
	Leader  string `json:"leader"`  // empty: there is none, nothing can be changed
	Members int    `json:"members"` // with a vote
	Alive   int    `json:"alive"`
	Term    uint64 `json:"term"`
	Applied uint64 `json:"applied"`
}

// Spare is how many of the members may be lost from now on while changes go on.
func (m Metadata) Spare() int { return max(0, m.Alive-(m.Members/2+1)) }

// Scrub is the reading of every record to find what has rotted.
type Scrub struct {
	Done     int64     `json:"done"`     // shards read in this round
	Total    int64     `json:"total"`    // shards there are
	Bad      int64     `json:"bad"`      // shards that did not match, since the start
	Finished meta.Time `json:"finished"` // the last whole round; zero if none
}

// Fold is the rewriting of small and half-dead stripes into large ones.
type Fold struct {
	Waiting int64 `json:"waiting"` // files
	Done    int64 `json:"done"`    // since the start
}

// Garbage is what waits to be deleted.
type Garbage struct {
	Stripes int64 `json:"stripes"`
	Bytes   int64 `json:"bytes"`
}

// Health is the first thing to know. Its word is one of those below; why
// says in a few words how it comes.
type Health struct {
	Word string   `json:"word"`
	Why  []string `json:"why,omitempty"`
}

// The words of Health, best first.
const (
	OK         = "ok"
	Degraded   = "degraded"   // all data is there; less may be lost from now on than wanted
	Endangered = "endangered" // all data is there; one more loss takes some of it
	DataLost   = "lost"       // some data cannot be read
	NoQuorum   = "no-quorum"  // nothing can be changed
)

// Health works out how the cluster is.
func (s Status) Health() Health {
	h := Health{Word: OK}
	worse := func(word, why string) {
		if rank(word) > rank(h.Word) {
			h.Word = word
		}
		h.Why = append(h.Why, why)
	}
	if s.Meta.Leader == "" {
		worse(NoQuorum, "no metadata leader")
	}
	if n := s.Stripes.Lost; n > 0 {
		worse(DataLost, count(n, "stripe")+" cannot be read")
	}
	if n := s.Stripes.Endangered; n > 0 {
		worse(Endangered, count(n, "stripe")+" cannot lose another shard")
	}
	if n := s.Stripes.Degraded; n > 0 {
		worse(Degraded, count(n, "stripe")+" with shards missing")
	}
	if n := s.Stripes.Short; n > 0 {
		worse(Degraded, count(n, "stripe")+" with a smaller code than wanted")
	}
	if n := len(s.machines(Machine.down)); n > 0 {
		worse(Degraded, count(int64(n), "machine")+" down")
	}
	for _, state := range []string{Lost, Down, Rebuilding} {
		if n := s.ailing(state); n > 0 {
			worse(Degraded, count(int64(n), "store")+" "+state)
		}
	}
	if why := s.tooFew(); why != "" {
		worse(Degraded, why)
	}
	if s.Meta.Leader != "" && s.Meta.Alive < s.Meta.Members {
		worse(Degraded, count(int64(s.Meta.Members-s.Meta.Alive), "metadata member")+" down")
	}
	return h
}

func (s Status) stores(state string) int {
	n := 0
	for _, st := range s.Stores {
		if st.State == state {
			n++
		}
	}
	return n
}

// ailing counts the stores in a state, those apart whose whole machine is down.
func (s Status) ailing(state string) int {
	n := 0
	for _, st := range s.Stores {
		if st.State == state && !s.gone(st.Node) {
			n++
		}
	}
	return n
}

// tooFew says what is wrong if there are too few stores for the code.
func (s Status) tooFew() string {
	k, m, ok := s.code()
	up := s.stores(Up) + s.stores(Rebuilding)
	switch {
	case !ok:
		return ""
	case up <= m:
		return fmt.Sprintf("files of more than 4 KiB cannot be written: %s needs %d stores, %s up", s.Want, m+1, are(up))
	case len(s.Stores) < k+m:
		return fmt.Sprintf("%s, and %s needs %d", count(int64(len(s.Stores)), "store"), s.Want, k+m)
	}
	return ""
}

// code is the code that is wanted.
func (s Status) code() (k, m int, ok bool) {
	n, _ := fmt.Sscanf(s.Want, "%d+%d", &k, &m)
	return k, m, n == 2
}

func are(n int) string {
	if n == 1 {
		return "1 is"
	}
	return fmt.Sprintf("%d are", n)
}

func rank(word string) int {
	for i, w := range []string{OK, Degraded, Endangered, DataLost, NoQuorum} {
		if w == word {
			return i
		}
	}
	panic("cluster: " + word + " is no word of health")
}
