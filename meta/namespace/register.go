package namespace

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

// Register adds the operations of this room to m. Release is to be told to
// session.Register.
func Register(m *state.Machine) {
	state.Handle(m, OpInit, "namespace.init", initialize)
	state.Handle(m, OpCreate, "namespace.create", create)
	state.Handle(m, OpLink, "namespace.link", link)
	state.Handle(m, OpUnlink, "namespace.unlink", unlink)
	state.Handle(m, OpRmdir, "namespace.rmdir", rmdir)
	state.Handle(m, OpRename, "namespace.rename", rename)
	state.Handle(m, OpDrop, "namespace.drop", drop)
	state.Handle(m, OpSetAttr, "namespace.setattr", setAttr)
	state.Handle(m, OpWrite, "namespace.write", write)
	state.Handle(m, OpSwap, "namespace.swap", swap)
	state.Handle(m, OpSetXattr, "namespace.setxattr", setXattr)
	state.Handle(m, OpRemoveXattr, "namespace.removexattr", removeXattr)
	state.Handle(m, OpPurge, "namespace.purge", purge)
	state.Handle(m, OpMove, "namespace.move", move)
	state.Handle(m, OpBury, "namespace.bury", bury)

	state.Adds(m, OpCreate, func(Create) bool { return true })
	state.Adds(m, OpLink, func(Link) bool { return true })
	state.Adds(m, OpWrite, func(w meta.Write) bool { return len(w.Extents) > 0 })
	state.Adds(m, OpSetXattr, func(SetXattr) bool { return true })

	state.QueryBy(m, OpLookup, "namespace.lookup", lookup)
	state.QueryBy(m, OpAttr, "namespace.attr", attr)
	state.QueryBy(m, OpEntries, "namespace.entries", entries)
	state.Query(m, OpParent, "namespace.parent", parent)
	state.Query(m, OpReadlink, "namespace.readlink", readlink)
	state.QueryBy(m, OpLayout, "namespace.layout", layout)
	state.QueryBy(m, OpXattr, "namespace.xattr", xattr)
	state.QueryBy(m, OpXattrs, "namespace.xattrs", xattrs)
	state.Query(m, OpUsage, "namespace.usage", usage)
	state.Query(m, OpStripes, "namespace.stripes", stripes)
	state.Query(m, OpStripe, "namespace.stripe", stripe)
	state.Query(m, OpDead, "namespace.dead", dead)
	state.Query(m, OpUnnamed, "namespace.unnamed", unnamed)
	state.Query(m, OpFolds, "namespace.folds", folds)
	state.Query(m, OpPurging, "namespace.purging", purging)
	state.Query(m, OpStored, "namespace.stored", stored)
	state.Query(m, OpCheck, "namespace.check", check)
	state.QueryBy(m, OpAsked, "namespace.asked", asked)
}

// none is the reply that says nothing, and the request that asks for nothing in particular.
type none = struct{}

// clamp returns how many things a list may have.
func clamp(limit int) (int, error) {
	if limit < 1 {
		return 0, fmt.Errorf("limit %d: %w", limit, meta.Invalid)
	}
	return min(limit, ListMax), nil
}
