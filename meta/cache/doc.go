// Package cache is what is true of /dos/cache for all machines: which buckets there
// are, at which generation, and on which machines their entries are. The entries
// themselves are in the memory of those (package internal/cache, which says how a lost
// or late machine never makes an old entry visible again); nothing here is about one.
//
// Each change gives all of it another version. A machine with entries takes part with
// a session (Serve), reads every version, does what it says and tells so (Know): a
// change is in force when all members know it, or their sessions have ended. A
// bucket that was cleared has another generation, one of the same name that was
// removed in between another number.
//
// # Placement
//
// A key's place is the order of the members by weighted rendezvous hashing (Map.Order):
// the first owns it, and with `replicas N` the next N−1 have copies. So a member that
// comes takes from each other what will be its own, one that goes leaves its own to the
// others, and what did not move stays. It is computed in whole numbers: all machines
// must agree.
//
// The maps of the members are kept from the oldest that somebody has not done with, so
// that everybody can tell who may still think that he owns a key (Overview.Maps).
//
// # Rows
//
// Numbers are big-endian, values CBOR.
//
//	"Ac"                      counters
//	"Ab" name                 Bucket
//	"Ad" bucket(8) path       a directory in a bucket: empty
//	"Am" session(8)           Member
//	"Ah" epoch(8)             Map
package cache

import "dos/meta/state"

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpMake, "cache.make", makeBucket)
	state.Handle(m, OpRemove, "cache.remove", removeBucket)
	state.Handle(m, OpSet, "cache.set", setBucket)
	state.Handle(m, OpMkdir, "cache.mkdir", makeDir)
	state.Handle(m, OpRmdir, "cache.rmdir", removeDir)
	state.Handle(m, OpServe, "cache.serve", serve)
	state.Handle(m, OpKnow, "cache.know", know)
	state.Handle(m, OpWeigh, "cache.weigh", weigh)
	state.Handle(m, OpDistrust, "cache.distrust", distrust)

	state.Adds(m, OpMake, func(Make) bool { return true })
	state.Adds(m, OpMkdir, func(Dir) bool { return true })

	state.Query(m, OpFollow, "cache.follow", follow)
	state.Query(m, OpBucket, "cache.bucket", oneBucket)
	state.Query(m, OpIsDir, "cache.isdir", isDir)
	state.Query(m, OpDirs, "cache.dirs", dirs)
}

type none = struct{}
