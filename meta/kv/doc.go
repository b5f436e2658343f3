// Package kv is tables of keys and small values, in order, each with an owner and a
// mode: what people keep in etcd or Redis. Every change has a revision, one greater
// than the one before it in any table, which is the version of what it wrote; a
// change can be conditional on the version of what it replaces (0: of what does not
// exist). It knows no queues, no locks and no files; package txn puts its changes
// and theirs into one command.
//
// A key is a path: parts with slashes between. A key that ends in a slash is a
// directory that somebody made; a prefix that keys have is a directory too. A value
// and a directory cannot have the same name.
//
// # Large values
//
// An entry of the log holds 512 KiB. A value of more than InlineMax is put in parts:
// each is staged by a command of its own, under a number that the session chooses,
// and the command that puts the value names them all. Parts are not copied, nor
// changed: whoever read the row reads those parts or, if the value was replaced
// meanwhile, is told that they do not exist and reads again. What a session staged
// and did not put ends with it.
//
// # The feed
//
// The last FeedMax changes are kept, in all tables together. Whoever follows and is
// further behind is told that (meta.Conflict) and must look at everything anew.
//
// # Time
//
// A value with a time to live goes when a command Expire comes whose time is late
// enough, or an Update of it: until then it is there, for everybody. Writing it, or touching it, begins
// its time anew.
//
// # Rows
//
// Numbers are big-endian, values CBOR. "/" and "\x00" here are bytes.
//
//	"7c"                              counters
//	"7t" table                        Table
//	"7v" table "\x00" key             value
//	"7p" session(8) number(8) part(4) the bytes of a part
//	"7s" session(8) number(8)         staged: parts that no value has yet
//	"7e" time(8) table "\x00" key     empty: the value goes then, ns since 1970
//	"7h" revision(8)                  Change
package kv

import (
	"slices"

	"dos/meta/state"
)

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpMake, "kv.make", mktable)
	state.Handle(m, OpDrop, "kv.drop", drop)
	state.Handle(m, OpSetTable, "kv.set-table", setTable)
	state.Handle(m, OpPut, "kv.put", put)
	state.Handle(m, OpDelete, "kv.delete", remove)
	state.Handle(m, OpSet, "kv.set", set)
	state.Handle(m, OpRename, "kv.rename", rename)
	state.Handle(m, OpStage, "kv.stage", stage)
	state.Handle(m, OpUnstage, "kv.unstage", unstage)
	state.Handle(m, OpExpire, "kv.expire", expire)
	state.Handle(m, OpUpdate, "kv.update", update)

	state.Adds(m, OpMake, func(Make) bool { return true })
	state.Adds(m, OpPut, func(Put) bool { return true })
	state.Adds(m, OpStage, func(Stage) bool { return true })
	state.Adds(m, OpUpdate, func(req Update) bool {
		return slices.ContainsFunc(req.Steps, func(s Step) bool { return s.Do == Write || s.Do == Add || s.Do == Append })
	})

	state.Query(m, OpTables, "kv.tables", tables)
	state.Query(m, OpTable, "kv.table", table)
	state.Query(m, OpGet, "kv.get", get)
	state.Query(m, OpPart, "kv.part", part)
	state.Query(m, OpScan, "kv.scan", scan)
	state.Query(m, OpList, "kv.list", list)
	state.Query(m, OpFollow, "kv.follow", follow)
	state.Query(m, OpDue, "kv.due", due)
	state.Query(m, OpGets, "kv.gets", gets)
}

type none = struct{}
