// Package members is the state of the cluster itself: which cluster it is and
// how it codes data, its machines, their stores, and the table of placement
// groups that says where new stripes are written. Place computes that table
// from the stores, a pure function. The package does not know who is alive
// now: that is not replicated state.
//
// Keys:
//
//	"3c"                   the cluster, a row
//	"3g" row(2)            a placement group, a chunk.Group
//	"3n" name              a Node
//	"3s" store(4)          a Store
//
// Numbers are big-endian; values are CBOR.
package members

import (
	"dos/chunk"
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
)

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpInit, "members.init", initCluster)
	state.Handle(m, OpPutNode, "members.put-node", putNode)
	state.Handle(m, OpRemoveNode, "members.remove-node", removeNode)
	state.Handle(m, OpPutStore, "members.put-store", putStore)
	state.Handle(m, OpRemoveStore, "members.remove-store", removeStore)
	state.Handle(m, OpSetGroups, "members.set-groups", setGroups)
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

// A Node is one machine. PutNode registers it or changes what is known of it.
type Node struct {
	Name   string            `cbor:"1,keyasint,omitempty"`
	Zone   string            `cbor:"2,keyasint,omitempty"` // what fails together: a rack, a room
	Addr   string            `cbor:"3,keyasint,omitempty"` // HOST:PORT; empty in an embedded cluster
	Labels map[string]string `cbor:"4,keyasint,omitempty"`
	Roles  []string          `cbor:"5,keyasint,omitempty"` // what it does: meta, chunk, …
	// Member is the name of its metadata member in the Raft group, if it has one.
	// It changes when the member starts empty.
	Member string `cbor:"6,keyasint,omitempty"`
}

// RoleMeta is the role of machines that the metadata may be on.
const RoleMeta = "meta"

// A Store is one disk of one machine. PutStore registers it or changes what is
// known of it. With ID zero it is the store that is registered for this Node
// and Ordinal, or else gets the next ID, which nobody ever had.
type Store struct {
	ID      chunk.StoreID `cbor:"1,keyasint,omitempty"`
	Node    string        `cbor:"2,keyasint,omitempty"`
	Ordinal uint16        `cbor:"3,keyasint,omitempty"` // which of its machine's stores
	Path    string        `cbor:"4,keyasint,omitempty"` // for people
	// Incarnation changes when the store starts empty: what it had is lost.
	Incarnation uint64 `cbor:"5,keyasint,omitempty"`
	Out         bool   `cbor:"6,keyasint,omitempty"` // nothing new is to be put there: Place leaves it out
	// Rebuilding says that the store started empty after it had contents, and
	// that redundancy was not full since: it counts as lost still.
	Rebuilding bool `cbor:"7,keyasint,omitempty"`
}

// Named names a machine.
type Named struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

// Numbered names a store.
type Numbered struct {
	ID chunk.StoreID `cbor:"1,keyasint,omitempty"`
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
}
