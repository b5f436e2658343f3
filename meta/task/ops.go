package task

import (
	"time"

	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpSubmit      state.Op = 0x0800 // Submit → Submitted
	OpControl     state.Op = 0x0801 // Control → nothing
	OpForget      state.Op = 0x0802 // Forget → nothing
	OpOffer       state.Op = 0x0803 // Offer → nothing
	OpWithdraw    state.Op = 0x0804 // Named → nothing
	OpReport      state.Op = 0x0805 // Reports → Heard
	OpSchedule    state.Op = 0x0806 // Bound → More
	OpMakeQueue   state.Op = 0x0807 // MakeQueue → nothing
	OpSetQueue    state.Op = 0x0808 // SetQueue → nothing
	OpRemoveQueue state.Op = 0x0809 // Named → nothing
	OpCleared     state.Op = 0x080a // Cleared → nothing

	OpGet       state.Op = 0x0840 // Ask → Task
	OpAwait     state.Op = 0x0841 // Follow → Task; held back until the task is another
	OpSpec      state.Op = 0x0842 // Ask → Spec
	OpList      state.Op = 0x0843 // List → Listed
	OpEvents    state.Op = 0x0844 // Since → Events; held back until there are some
	OpStatus    state.Op = 0x0845 // nothing → Status
	OpOrders    state.Op = 0x0846 // Seen → Orders; held back until there are some
	OpQueue     state.Op = 0x0847 // Named → Queue
	OpQueues    state.Op = 0x0848 // nothing → Queues
	OpDue       state.Op = 0x0849 // Due → Work
	OpForgotten state.Op = 0x084a // nothing → Jobs
	OpOffers    state.Op = 0x084b // nothing → Offers
)

// Limits of this room.
const (
	NameMax   = 128       // bytes of a name of a resource, a partition, or a label's key
	TextMax   = 4096      // bytes of a path and other short texts
	ScriptMax = 256 << 10 // bytes of a script
	SpecMax   = 384 << 10 // bytes of a script, arguments and variables together
	// SubmitMax and SubmitBytes bound one command: what it makes of rows.
	SubmitMax   = 1024
	SubmitBytes = SpecMax
	ArrayMax    = 32768 // elements of an array
	IndexMax    = 1<<24 - 1
	AfterMax    = 64  // tasks that one comes after
	LabelsMax   = 64  // labels of a machine, or that a task asks for
	KindsMax    = 32  // counted resources of a machine or a task
	PreferMax   = 64  // machines that are near
	RetriesMax  = 100 // of one task
	GroupsMax   = 1024
	CPUMax      = 1e9 // thousandths of a core
	MemMax      = 1 << 50
	CountMax    = 1e9
	PrioMax     = 1000
	EveryMin    = time.Second
	// SlotsMax bounds the tasks that a machine has at once, and so its row.
	SlotsMax = 512
	// NodesMax bounds the machines that offer something, and so the look at them.
	NodesMax = 1024
	// QueuesMax bounds the partitions.
	QueuesMax = 256
	// WeightMax bounds the weight of a partition and a user's share, and SharesMax the
	// users who have one of their own.
	WeightMax = 10_000
	SharesMax = 1024
	// ReportMax bounds the reports in one command, and the orders in one answer.
	ReportMax = 256
	// OrdersMax bounds the orders to one attempt that its machine has not obeyed yet.
	OrdersMax = 16
	// LossesMax is how often a task may lose its machine. One that takes down each
	// machine that it runs on is not to take down all of them.
	LossesMax = 16
	// PastMax is how many of the attempts that have ended a task remembers.
	PastMax = 8
	// EndedMax is how many jobs that have ended are kept, and EndedKeep for how long:
	// an older one is forgotten as if somebody had said so.
	EndedMax  = 10_000
	EndedKeep = 7 * 24 * time.Hour
	// EventsMax is how many events are kept.
	EventsMax = 4096
	// ListMax bounds one answer, and listBytes what attempts have in it together.
	ListMax   = 1024
	listBytes = 1 << 20
	// RetryMin and RetryMax bound the pause before a task that failed is run again,
	// which doubles with each time.
	RetryMin = time.Second
	RetryMax = 5 * time.Minute
	// ClaimWait is how long an assignment waits for its machine to claim it. Then another
	// machine gets it, and the one nothing more for as long, unless it offers anew.
	ClaimWait = 30 * time.Second
	// timeMax bounds every duration.
	timeMax = 10 * 365 * 24 * time.Hour
)

// Submit submits jobs, all of them or none.
type Submit struct {
	Owner Owner  `cbor:"1,keyasint,omitempty"`
	Specs []Spec `cbor:"2,keyasint,omitempty"`
}

// Submitted answers Submit: jobs have consecutive numbers, in the order of the request.
type Submitted struct {
	First uint64 `cbor:"1,keyasint,omitempty"`
}

// A Verb is what somebody wants of a task.
type Verb uint8

const (
	Cancel  Verb = iota + 1 // end it: TERM, and KILL after a while; at once with Signal 9
	Hold                    // it does not begin until it is released
	Release                 // what was held
	SetPrio                 // to Number
	Requeue                 // run it again from the beginning, whether it runs or has ended
	Signal                  // send it signal Number, to all its processes
	Freeze                  // stop all its processes
	Thaw                    // and go on
)

var verbs = []string{Cancel: "cancel", Hold: "hold", Release: "release", SetPrio: "prio", Requeue: "requeue", Signal: "signal", Freeze: "freeze", Thaw: "thaw"}

func (v Verb) String() string {
	if v > 0 && int(v) < len(verbs) {
		return verbs[v]
	}
	return "nothing"
}

// Control does something with a task, or with all elements of an array. It is for the
// task's owner and for root (meta.Permission).
type Control struct {
	ID     ID     `cbor:"1,keyasint,omitempty"`
	Verb   Verb   `cbor:"2,keyasint,omitempty"`
	Number int    `cbor:"3,keyasint,omitempty"` // a priority, or a signal's number
	UID    uint32 `cbor:"4,keyasint,omitempty"` // who asks
	Why    string `cbor:"5,keyasint,omitempty"` // for people
}

// Forget removes a job that has ended; Busy while it has not.
type Forget struct {
	ID  ID     `cbor:"1,keyasint,omitempty"`
	UID uint32 `cbor:"2,keyasint,omitempty"` // who asks
}

// An Offer is what a machine has for tasks. It belongs to the session of the command
// and ends with it; what runs under it is then lost. Offering again changes it. A
// later session's offer for the same machine takes the place of an earlier one's,
// whose tasks go on until that session ends.
type Offer struct {
	Node   string            `cbor:"1,keyasint,omitempty"`
	Have   Resources         `cbor:"2,keyasint,omitempty"`
	Labels map[string]string `cbor:"3,keyasint,omitempty"`
	Slots  int               `cbor:"4,keyasint,omitempty"` // tasks at once
	// Closed says why nothing new is to begin; "" if it may.
	Closed string `cbor:"5,keyasint,omitempty"`
}

// Named names a machine or a partition.
type Named struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

// What a machine reports of an attempt.
type What uint8

const (
	// Claim is before anything else: the machine has the attempt and will start it. From
	// then on it is the machine's until it reports the end or its session is over.
	Claim What = iota + 1
	Started
	Used    // so far
	Obeyed  // orders up to Order
	Frozen  // it stands still
	Thawed  // and goes on
	Ended   // with Exit and Usage: no process of it is left
	Decline // it cannot be started here; for reason Text
)

// A Cause is why an attempt ended.
type Cause uint8

const (
	Exited   Cause = iota // by itself: with an exit status, or by a signal
	TimedOut              // its time was over
	OOM                   // it used more memory than it had asked for
	NotBegun              // it could not be begun, as Text says: no such directory, user, program, …
	Killed                // somebody cancelled it, or its machine had to end it
)

var causes = []string{Exited: "exited", TimedOut: "timeout", OOM: "oom", NotBegun: "not-begun", Killed: "killed"}

func (c Cause) String() string {
	if int(c) < len(causes) {
		return causes[c]
	}
	return "unknown"
}

// An Exit is how an attempt ended.
type Exit struct {
	Cause  Cause  `cbor:"1,keyasint,omitempty"`
	Code   int    `cbor:"2,keyasint,omitempty"` // the exit status, from 0 to 255
	Signal int    `cbor:"3,keyasint,omitempty"` // that ended it; 0: none
	Text   string `cbor:"4,keyasint,omitempty"` // for people
}

// Good reports whether the attempt did what it was for.
func (e Exit) Good() bool { return e.Cause == Exited && e.Code == 0 && e.Signal == 0 }

// Status is the exit status as a shell gives it: 128 and the signal, 124 for a time that is over.
func (e Exit) Status() int {
	switch {
	case e.Good():
		return 0
	case e.Cause == TimedOut:
		return 124
	case e.Signal != 0:
		return 128 + e.Signal
	case e.Code != 0:
		return e.Code
	case e.Cause == NotBegun:
		return 127
	}
	return 1
}

// Usage is what an attempt has used.
type Usage struct {
	CPU  time.Duration `cbor:"1,keyasint,omitempty"` // user and system
	Peak int64         `cbor:"2,keyasint,omitempty"` // bytes of memory at most
	Wall time.Duration `cbor:"3,keyasint,omitempty"`
}

// A Report is one thing that a machine says of an attempt, which Token tells from
// earlier and later ones. Reporting a thing again succeeds.
type Report struct {
	ID    ID     `cbor:"1,keyasint,omitempty"`
	Token uint64 `cbor:"2,keyasint,omitempty"`
	What  What   `cbor:"3,keyasint,omitempty"`
	Exit  *Exit  `cbor:"4,keyasint,omitempty"`
	Usage *Usage `cbor:"5,keyasint,omitempty"`
	Order uint64 `cbor:"6,keyasint,omitempty"`
	Text  string `cbor:"7,keyasint,omitempty"`
}

// Reports are at most ReportMax, heard in order. Each succeeds or fails by itself.
type Reports struct {
	List []Report `cbor:"1,keyasint,omitempty"`
}

// Heard answers Reports, one for one. meta.Fenced: the attempt is not the caller's any
// more, and nothing of it may be running.
type Heard struct {
	Kinds []meta.Kind `cbor:"1,keyasint,omitempty"` // zero on success
}

// Bound bounds the decisions of one command.
type Bound struct {
	Limit int `cbor:"1,keyasint,omitempty"`
}

// More says that there was more to do.
type More struct {
	More bool `cbor:"1,keyasint,omitempty"`
	Done int  `cbor:"2,keyasint,omitempty"` // what was decided
}

// Ask asks for one task.
type Ask struct {
	ID ID `cbor:"1,keyasint,omitempty"`
}

// Follow asks for one task. Whoever runs the machine may hold the answer back while
// the task's version is Seen.
type Follow struct {
	ID   ID     `cbor:"1,keyasint,omitempty"`
	Seen uint64 `cbor:"2,keyasint,omitempty"`
}

// A State is what has become of a task.
type State uint8

const (
	Held      State = iota + 1 // it waits for somebody to release it
	Pending                    // it waits, as its reason says
	Running                    // a machine has it
	Done                       // it ended well
	Failed                     // it ended otherwise
	Cancelled                  // somebody ended it, or what it came after did not end as it should
	Lost                       // its machines were lost LossesMax times
	states
)

var stateText = [states]string{Held: "held", Pending: "pending", Running: "running", Done: "done", Failed: "failed", Cancelled: "cancelled", Lost: "lost"}

// States are all of them, in order.
func States() []State { return []State{Held, Pending, Running, Done, Failed, Cancelled, Lost} }

func (s State) String() string {
	if s < states && s > 0 {
		return stateText[s]
	}
	return "unknown"
}

// Ended reports whether nothing more will become of the task by itself.
func (s State) Ended() bool { return s >= Done }

// A Past is an attempt that has ended.
type Past struct {
	Token   uint64    `cbor:"1,keyasint,omitempty"`
	Node    string    `cbor:"2,keyasint,omitempty"`
	Claimed meta.Time `cbor:"3,keyasint,omitempty"`
	Ended   meta.Time `cbor:"4,keyasint,omitempty"`
	Exit    *Exit     `cbor:"5,keyasint,omitempty"` // nil: the machine was lost
	Usage   Usage     `cbor:"6,keyasint,omitempty"`
	Text    string    `cbor:"7,keyasint,omitempty"` // why it was lost or given up
}

// A Task is what is known of a task.
type Task struct {
	ID      ID     `cbor:"1,keyasint,omitempty"`
	Version uint64 `cbor:"2,keyasint,omitempty"` // grows with each change
	Owner   Owner  `cbor:"3,keyasint,omitempty"`
	Name    string `cbor:"4,keyasint,omitempty"`
	Queue   string `cbor:"5,keyasint,omitempty"`
	Prio    int    `cbor:"6,keyasint,omitempty"`
	State   State  `cbor:"7,keyasint,omitempty"`
	// Reason says why it is held or pending, or was cancelled or lost.
	Reason string `cbor:"8,keyasint,omitempty"`
	Frozen bool   `cbor:"9,keyasint,omitempty"`

	// Of the attempt that is, or was the last.
	Node    string    `cbor:"10,keyasint,omitempty"`
	Token   uint64    `cbor:"11,keyasint,omitempty"`
	Attempt int       `cbor:"12,keyasint,omitempty"` // from 1
	Claimed meta.Time `cbor:"13,keyasint,omitempty"`
	Started meta.Time `cbor:"14,keyasint,omitempty"`
	Exit    *Exit     `cbor:"15,keyasint,omitempty"`
	Usage   Usage     `cbor:"16,keyasint,omitempty"`

	Submitted meta.Time `cbor:"17,keyasint,omitempty"`
	Ended     meta.Time `cbor:"18,keyasint,omitempty"` // it reached its last state
	Due       meta.Time `cbor:"19,keyasint,omitempty"` // it waits until then: by at=, every=, or to be tried again
	Start     meta.Time `cbor:"20,keyasint,omitempty"` // a machine is kept for it, and will be free then at the latest
	Failures  int       `cbor:"21,keyasint,omitempty"` // attempts that failed, since it was submitted or last repeated
	Losses    int       `cbor:"22,keyasint,omitempty"` // attempts that were lost with their machine
	Past      []Past    `cbor:"23,keyasint,omitempty"` // the last first
	Need      Resources `cbor:"24,keyasint,omitempty"`
	// Elements counts the elements of an array by their states, of which State is the index.
	Elements []int `cbor:"25,keyasint,omitempty"`
}

// A List asks for tasks, at most Limit, after the one given, in the order of their
// IDs. What is not zero must be so. Elements of an array are tasks of their own as
// soon as anything has become of them; those that only wait are seen in the array.
type List struct {
	After ID      `cbor:"1,keyasint,omitempty"`
	Limit int     `cbor:"2,keyasint,omitempty"`
	State State   `cbor:"3,keyasint,omitempty"`
	Node  string  `cbor:"4,keyasint,omitempty"` // that runs it now
	Name  string  `cbor:"5,keyasint,omitempty"`
	UID   *uint32 `cbor:"6,keyasint,omitempty"`
	Job   uint64  `cbor:"7,keyasint,omitempty"` // the array and its elements
}

// Listed answers List. Past and Need are left out of tasks in a list. If there is
// More, go on after the last ID that was looked at.
type Listed struct {
	Tasks []Task `cbor:"1,keyasint,omitempty"`
	More  bool   `cbor:"2,keyasint,omitempty"`
	Last  ID     `cbor:"3,keyasint,omitempty"`
}

// Since asks for events after one, at most Limit.
type Since struct {
	Seq   uint64 `cbor:"1,keyasint,omitempty"`
	Limit int    `cbor:"2,keyasint,omitempty"`
}

// An Event is that a task has another state.
type Event struct {
	Seq   uint64    `cbor:"1,keyasint,omitempty"`
	Time  meta.Time `cbor:"2,keyasint,omitempty"`
	ID    ID        `cbor:"3,keyasint,omitempty"`
	State State     `cbor:"4,keyasint,omitempty"`
	Node  string    `cbor:"5,keyasint,omitempty"`
	Text  string    `cbor:"6,keyasint,omitempty"`
}

// Events answers Since. Those before First are not kept any more. To hear of what
// happens from now on, ask after Last.
type Events struct {
	List  []Event `cbor:"1,keyasint,omitempty"`
	First uint64  `cbor:"2,keyasint,omitempty"`
	Last  uint64  `cbor:"3,keyasint,omitempty"`
}

// Status is an overview.
type Status struct {
	Counts    []int64      `cbor:"1,keyasint,omitempty"` // of tasks by State, each element of an array for itself
	Nodes     []NodeStatus `cbor:"2,keyasint,omitempty"` // by name
	Queues    []Queue      `cbor:"3,keyasint,omitempty"` // by name
	Submitted uint64       `cbor:"4,keyasint,omitempty"` // the last job
}

// A NodeStatus is a machine as the scheduler sees it.
type NodeStatus struct {
	Offer Offer     `cbor:"1,keyasint,omitempty"`
	Used  Resources `cbor:"2,keyasint,omitempty"`
	Tasks int       `cbor:"3,keyasint,omitempty"`
	Why   string    `cbor:"4,keyasint,omitempty"` // nothing new begins there; "" if it may
	// Kept is the task that the machine is kept for, and from when at the latest; zero: nobody knows.
	Kept  ID        `cbor:"5,keyasint,omitempty"`
	Start meta.Time `cbor:"6,keyasint,omitempty"`
}

// Offers are the machines that offer something, by name.
type Offers struct {
	Nodes []NodeStatus `cbor:"1,keyasint,omitempty"`
}

// Seen asks what is new for the session of an offer, after a version.
type Seen struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Version uint64         `cbor:"2,keyasint,omitempty"`
}

// Orders answers Seen: the attempts of the session that are new or changed, in the
// order of change. Version is what to ask with next. What was assigned and is not there
// any more is refused when it is claimed.
type Orders struct {
	Attempts []Attempt `cbor:"1,keyasint,omitempty"`
	Version  uint64    `cbor:"2,keyasint,omitempty"`
}

// An Attempt is one run of a task on a machine, as that is told of it.
type Attempt struct {
	ID      ID     `cbor:"1,keyasint,omitempty"`
	Token   uint64 `cbor:"2,keyasint,omitempty"` // greater than any before, of all tasks
	Number  int    `cbor:"3,keyasint,omitempty"` // from 1
	Node    string `cbor:"4,keyasint,omitempty"`
	Owner   Owner  `cbor:"5,keyasint,omitempty"`
	Spec    Spec   `cbor:"6,keyasint,omitempty"`
	Claimed bool   `cbor:"7,keyasint,omitempty"`
	// Orders are those that the machine has not said it obeyed, the oldest first.
	Orders []Order `cbor:"8,keyasint,omitempty"`
	Frozen bool    `cbor:"9,keyasint,omitempty"` // it is to stand still
}

// An Order is something to do with an attempt. Verb is Cancel (Number is the signal:
// 9 at once, else TERM and KILL after a while) or Signal.
type Order struct {
	Seq    uint64 `cbor:"1,keyasint,omitempty"` // grows within the attempt
	Verb   Verb   `cbor:"2,keyasint,omitempty"`
	Number int    `cbor:"3,keyasint,omitempty"`
}

// Preemption says what becomes of a partition's tasks when one with a higher priority
// has no room.
type Preemption uint8

const (
	Keep          Preemption = iota // they run on
	PreemptRetry                    // they are ended, and run again later
	PreemptCancel                   // they are cancelled
)

var preemptions = []string{Keep: "off", PreemptRetry: "requeue", PreemptCancel: "cancel"}

func (p Preemption) String() string {
	if int(p) < len(preemptions) {
		return preemptions[p]
	}
	return "unknown"
}

// Limits bound what runs at once; zero fields do not.
type Limits struct {
	Tasks int       `cbor:"1,keyasint,omitempty"`
	Need  Resources `cbor:"2,keyasint,omitempty"`
}

// Rules are what is set of a partition.
type Rules struct {
	Weight  int    `cbor:"1,keyasint,omitempty"` // its tasks' share against those of others; 0 is 1
	Limits  Limits `cbor:"2,keyasint,omitempty"` // of all its tasks
	PerUser Limits `cbor:"3,keyasint,omitempty"` // of those of each user
	// Timeout is the longest that a task may ask for. One that asks for none has Default,
	// or else this.
	Timeout time.Duration `cbor:"4,keyasint,omitempty"`
	Default time.Duration `cbor:"5,keyasint,omitempty"`
	Preempt Preemption    `cbor:"6,keyasint,omitempty"`
	// Label, if it is not "", is what machines must have for its tasks.
	Label  string `cbor:"7,keyasint,omitempty"`
	Paused bool   `cbor:"8,keyasint,omitempty"` // nothing begins
	// Shares are weights of users, which else is 1.
	Shares map[uint32]int `cbor:"9,keyasint,omitempty"`
}

// A Queue is a partition. The default one has the name "" and is always there.
type Queue struct {
	Name  string    `cbor:"1,keyasint,omitempty"`
	UID   uint32    `cbor:"2,keyasint,omitempty"`
	GID   uint32    `cbor:"3,keyasint,omitempty"`
	Mode  uint32    `cbor:"4,keyasint,omitempty"`
	Made  meta.Time `cbor:"5,keyasint,omitempty"`
	Rules Rules     `cbor:"6,keyasint,omitempty"`
	Used  Resources `cbor:"7,keyasint,omitempty"` // by what runs
	Tasks int       `cbor:"8,keyasint,omitempty"` // that run
	Waits int       `cbor:"9,keyasint,omitempty"` // jobs that have not ended
}

// MakeQueue makes a partition: Exist if there is one.
type MakeQueue struct {
	Name string `cbor:"1,keyasint,omitempty"`
	UID  uint32 `cbor:"2,keyasint,omitempty"`
	GID  uint32 `cbor:"3,keyasint,omitempty"`
	Mode uint32 `cbor:"4,keyasint,omitempty"`
}

// SetQueue changes what is not nil.
type SetQueue struct {
	Name  string  `cbor:"1,keyasint,omitempty"`
	Rules *Rules  `cbor:"2,keyasint,omitempty"`
	UID   *uint32 `cbor:"3,keyasint,omitempty"`
	GID   *uint32 `cbor:"4,keyasint,omitempty"`
	Mode  *uint32 `cbor:"5,keyasint,omitempty"`
}

// Queues are all partitions, by name.
type Queues struct {
	List []Queue `cbor:"1,keyasint,omitempty"`
}

// Due asks whether Schedule has something to do at Now.
type Due struct {
	Now meta.Time `cbor:"1,keyasint,omitempty"`
}

// Work answers Due.
type Work struct {
	Schedule bool `cbor:"1,keyasint,omitempty"`
}

// Jobs are jobs that were forgotten and whose output is still to be removed.
type Jobs struct {
	Jobs []uint64 `cbor:"1,keyasint,omitempty"` // at most ListMax, in order
}

// Cleared says that nothing is left of the output of jobs that were forgotten.
type Cleared struct {
	Jobs []uint64 `cbor:"1,keyasint,omitempty"`
}
