// Package members is the state of the cluster itself: which cluster it is and
// how it codes data, its machines, their stores, and the table of placement
// groups that says where new stripes are written. Place computes that table
// from the stores, and Plan what is to change in it when they do, both pure
// functions. The package does not know who is alive now: that is not replicated
// state. What became of it is: a store that was away for too long is Out, which
// the steward of the cluster says, and one that is to be emptied is Draining,
// which the administrator says, of a store or of its machine. What else he says of
// a machine (labels, weight, whether tasks may start there) and of the cluster (its
// settings) is here too.
//
// Keys:
//
//	"3c"                   the cluster, a row
//	"3g" row(2)            a placement group, a chunk.Group
//	"3k" name              a setting of the cluster: its text
//	"3n" name              a Node
//	"3s" store(4)          a Store
//
// Numbers are big-endian; values are CBOR.
package members

import (
	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpInit        state.Op = 0x0200 // Init → nothing
	OpPutNode     state.Op = 0x0201 // Node → nothing
	OpRemoveNode  state.Op = 0x0202 // Named → nothing
	OpPutStore    state.Op = 0x0203 // Store → Store
	OpRemoveStore state.Op = 0x0204 // Numbered → nothing
	OpSetGroups   state.Op = 0x0205 // SetGroups → Changed
	OpDrain       state.Op = 0x0206 // Drain → nothing
	OpSetOut      state.Op = 0x0207 // SetOut → Changed
	OpSetNode     state.Op = 0x0208 // SetNode → nothing
	OpConfigure   state.Op = 0x0209 // Setting → nothing

	OpMap   state.Op = 0x0240 // Since → Map
	OpEpoch state.Op = 0x0241 // nothing → Changed
)

// Limits of this room.
const (
	StoresMax = 4096 // stores of a cluster
	NodesMax  = 1024 // machines of a cluster
	TextMax   = 255  // bytes of a name, zone, address, label's key or label's value
	PathMax   = 4096 // bytes of a store's path
	LabelsMax = 64   // labels of a machine
	RolesMax  = 16   // roles of a machine
	Spares    = 2    // stores of a placement group beyond k+m, if there are so many

	WeightMax = 10000 // the largest weight, in hundredths
)

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpInit, "members.init", initCluster)
	state.Handle(m, OpPutNode, "members.put-node", putNode)
	state.Handle(m, OpRemoveNode, "members.remove-node", removeNode)
	state.Handle(m, OpPutStore, "members.put-store", putStore)
	state.Handle(m, OpRemoveStore, "members.remove-store", removeStore)
	state.Handle(m, OpSetGroups, "members.set-groups", setGroups)
	state.Handle(m, OpDrain, "members.drain", drain)
	state.Handle(m, OpSetOut, "members.set-out", setOut)
	state.Handle(m, OpSetNode, "members.set-node", setNode)
	state.Handle(m, OpConfigure, "members.configure", configure)
	state.Query(m, OpMap, "members.map", readMap)
	state.Query(m, OpEpoch, "members.epoch", readEpoch)
}

// A ClusterID is drawn when a cluster is made. The zero value names none.
type ClusterID [16]byte

// Init makes the cluster. Making it again with the same values succeeds, with
// others is meta.Conflict: the data belongs to another cluster.
type Init struct {
	Cluster ClusterID  `cbor:"1,keyasint"`
	Code    chunk.Code `cbor:"2,keyasint,omitempty"`
}

// A Node is one machine. PutNode registers it or changes what is known of it,
// but for the fields from Drain on, which only Drain and SetNode change.
type Node struct {
	Name   string            `cbor:"1,keyasint,omitempty"`
	Zone   string            `cbor:"2,keyasint,omitempty"` // what fails together: a rack, a room
	Addr   string            `cbor:"3,keyasint,omitempty"` // HOST:PORT; empty in an embedded cluster
	Labels map[string]string `cbor:"4,keyasint,omitempty"` // that it was started with; see Label
	Roles  []string          `cbor:"5,keyasint,omitempty"` // what it does: meta, chunk, …
	// Member is the name of its metadata member in the Raft group, if it has one.
	// It changes when the member starts empty.
	Member string    `cbor:"6,keyasint,omitempty"`
	Drain  bool      `cbor:"7,keyasint,omitempty"` // its stores are to be emptied
	Since  meta.Time `cbor:"8,keyasint,omitempty"` // Drain changed last
	Why    string    `cbor:"9,keyasint,omitempty"` // it did

	// Set are labels that the administrator gave it, which count before Labels, and
	// Unset the names of those of Labels that he took from it.
	Set   map[string]string `cbor:"10,keyasint,omitempty"`
	Unset []string          `cbor:"11,keyasint,omitempty"` // in order
	// Weight is its share of what is spread over the machines, in hundredths; 0 is 100.
	Weight  uint32 `cbor:"12,keyasint,omitempty"`
	Hold    bool   `cbor:"13,keyasint,omitempty"` // no task starts there any more
	HoldWhy string `cbor:"14,keyasint,omitempty"`
}

// RoleMeta is the role of machines that the metadata may be on.
const RoleMeta = "meta"

// A Store is one disk of one machine. PutStore registers it or changes what is
// known of it. With ID zero it is the store that is registered for this Node
// and Ordinal, or else gets the next ID, which nobody ever had. Out, Drain,
// Since and Why it does not change: SetOut and Drain do.
type Store struct {
	ID      chunk.StoreID `cbor:"1,keyasint,omitempty"`
	Node    string        `cbor:"2,keyasint,omitempty"`
	Ordinal uint16        `cbor:"3,keyasint,omitempty"` // which of its machine's stores
	Path    string        `cbor:"4,keyasint,omitempty"` // for people
	// Incarnation changes when the store starts empty: what it had is lost.
	Incarnation uint64 `cbor:"5,keyasint,omitempty"`
	Out         bool   `cbor:"6,keyasint,omitempty"` // away for too long: what it had is rebuilt elsewhere
	// Rebuilding says that the store started empty after it had contents, and
	// that redundancy was not full since: it counts as lost still.
	Rebuilding bool `cbor:"7,keyasint,omitempty"`
	// Capacity is what the disk below holds in GiB, rounded as coarsely as may be:
	// a store gets rows in proportion. Zero: as many as the others on average.
	Capacity uint32    `cbor:"8,keyasint,omitempty"`
	Drain    bool      `cbor:"9,keyasint,omitempty"`  // it is to be emptied, whatever its machine is
	Since    meta.Time `cbor:"10,keyasint,omitempty"` // Out or Drain changed last
	Why      string    `cbor:"11,keyasint,omitempty"` // they did
}

// Named names a machine.
type Named struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

// Numbered names a store.
type Numbered struct {
	ID chunk.StoreID `cbor:"1,keyasint,omitempty"`
}

// Drain says whether a machine, or one store, is to be emptied: nothing new is
// put there, and its shards are moved off while it still serves them. It is
// meta.NoSpace when fewer stores would be In than a stripe has shards: there
// would be no place for them.
type Drain struct {
	Node  string        `cbor:"1,keyasint,omitempty"` // or else
	Store chunk.StoreID `cbor:"2,keyasint,omitempty"`
	On    bool          `cbor:"3,keyasint,omitempty"`
	Why   string        `cbor:"4,keyasint,omitempty"` // for people
}

// SetNode changes what the administrator says of a machine. What is nil stays.
type SetNode struct {
	Node    string  `cbor:"1,keyasint,omitempty"`
	Label   string  `cbor:"2,keyasint,omitempty"` // which label is changed; empty: none
	Value   *string `cbor:"3,keyasint,omitempty"` // what it is to be; nil: it has none of that name
	Weight  *uint32 `cbor:"4,keyasint,omitempty"`
	Hold    *bool   `cbor:"5,keyasint,omitempty"`
	HoldWhy string  `cbor:"6,keyasint,omitempty"` // with Hold, for people
}

// A Setting is one of the cluster, by its name (Settings). An empty value is its
// default.
type Setting struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Value string `cbor:"2,keyasint,omitempty"`
}

// SetOut says which stores have been away for too long, or are back and up to
// date, if the map is still at Epoch, else it is meta.Conflict.
type SetOut struct {
	Epoch uint64 `cbor:"1,keyasint,omitempty"`
	Marks []Mark `cbor:"2,keyasint,omitempty"`
}

// A Mark is what one store becomes.
type Mark struct {
	Store chunk.StoreID `cbor:"1,keyasint,omitempty"`
	Out   bool          `cbor:"2,keyasint,omitempty"`
	Why   string        `cbor:"3,keyasint,omitempty"` // for people
}

// SetGroups edits rows of the table of placement groups if the map is still at
// Epoch, else it is meta.Conflict.
type SetGroups struct {
	Epoch uint64 `cbor:"1,keyasint,omitempty"`
	Rows  []Row  `cbor:"2,keyasint,omitempty"`
}

// A Row is what one placement group becomes.
type Row struct {
	Group   uint16          `cbor:"1,keyasint,omitempty"`
	Members []chunk.StoreID `cbor:"2,keyasint,omitempty"`
}

// Changed says at which epoch the map is.
type Changed struct {
	Epoch uint64 `cbor:"1,keyasint,omitempty"`
}

// Since asks for the map if it has changed since Epoch.
type Since struct {
	Epoch uint64 `cbor:"1,keyasint,omitempty"`
}

// A Map is all that this room knows. Epoch grows with each change of any part.
// If it is the one that was asked about, the rest is left out. Before Init all
// of it is zero.
type Map struct {
	Cluster ClusterID     `cbor:"1,keyasint"`
	Code    chunk.Code    `cbor:"2,keyasint,omitempty"`
	Epoch   uint64        `cbor:"3,keyasint,omitempty"`
	Nodes   []Node        `cbor:"4,keyasint,omitempty"` // by name
	Stores  []Store       `cbor:"5,keyasint,omitempty"` // by ID
	Groups  []chunk.Group `cbor:"6,keyasint,omitempty"` // chunk.Groups rows, or none before the first SetGroups
	// Config are the settings that are not at their default.
	Config map[string]string `cbor:"7,keyasint,omitempty"`
}
