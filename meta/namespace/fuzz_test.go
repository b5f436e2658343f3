package namespace

import (
	"bytes"
	"fmt"
	"testing"

	"dos/chunk"
	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// FuzzRequest gives each operation arbitrary bodies: it must not panic, a
// refusal must change nothing, and the tree stays consistent.
func FuzzRequest(f *testing.F) {
	size := int64(3)
	for op, req := range map[state.Op]any{
		OpInit:        Init{Mode: 0o755},
		OpCreate:      Create{Parent: 1, Name: "n", Node: meta.Node{Mode: meta.TypeFile}},
		OpLink:        Link{Ino: 3, Parent: 1, Name: "n"},
		OpUnlink:      Unlink{Parent: 2, Name: "f", Keep: 3},
		OpRmdir:       Unlink{Parent: 2, Name: "e"},
		OpRename:      Rename{Parent: 2, Name: "e", NewParent: 2, NewName: "f", Flags: meta.RenameExchange},
		OpDrop:        Drop{Inos: []meta.Ino{6}},
		OpSetAttr:     SetAttr{Ino: 3, Set: meta.SetAttr{Size: &size, KillPriv: true}},
		OpSetXattr:    SetXattr{Ino: 3, Name: "user.b", Val: []byte("v")},
		OpRemoveXattr: XattrName{Ino: 3, Name: "user.a"},
		OpPurge:       Purge{Ino: 7, Limit: 10},
		OpMove:        Moves{Moves: []Move{{Stripe: 1, From: 1, To: 9}}},
		OpBury:        StripeIDs{IDs: []chunk.StripeID{2}},
		OpWrite: meta.Write{Ino: 3, Extents: []meta.Extent{{Off: 1, Len: 1, Inline: []byte("x")}, {Off: 9, Len: 100, Stripe: 3}},
			Stripes: []chunk.Stripe{{ID: 3, Len: 100, Code: chunk.Code{K: 1, M: 1}, Stores: []chunk.StoreID{1, 2}}}, Punch: []meta.Range{{Off: 4, Len: 4}}, Size: 9, Mtime: 1, Low: 4},
		OpSwap:   meta.Swap{Ino: 3, Data: 2, Extents: []meta.Extent{{Off: 7000, Len: 1, Inline: []byte("x")}}, Done: true},
		OpLookup: Name{Parent: 1, Name: "d"}, OpAttr: Inode{Ino: 3}, OpEntries: Entries{Dir: 1, Limit: 10, Attrs: true}, OpParent: Inode{Ino: 2},
		OpReadlink: Inode{Ino: 5}, OpLayout: Layout{Ino: 3, Size: 1 << 20}, OpXattr: XattrName{Ino: 3, Name: "user.a"}, OpXattrs: Inode{Ino: 3},
		OpUsage: none{}, OpStripes: Stripes{Limit: 1}, OpStripe: StripeIDs{IDs: []chunk.StripeID{1}}, OpDead: Dead{Before: 1 << 62, Limit: 5},
		OpUnnamed: StripeIDs{IDs: []chunk.StripeID{1}}, OpFolds: After{Limit: 1}, OpPurging: After{Limit: 1}, OpCheck: none{}, OpStored: Stored{},
	} {
		f.Add(uint16(op), state.Marshal(req))
	}
	f.Add(uint16(OpWrite), []byte{0xff})
	m := new(state.Machine)
	session.Register(m, Release)
	Register(m)
	var s *state.Overlay
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		if s == nil {
			s, _, _, _ = full(t)
		}
		o := state.NewOverlay(s)
		op = uint16(OpInit) + op%0x60
		if m.IsQuery(state.Op(op)) {
			m.Answer(o, state.Command{Op: state.Op(op), Body: body})
			return
		}
		if !m.IsCommand(state.Op(op)) {
			return
		}
		reply := m.Apply(o, state.Command{Op: state.Op(op), Time: 2e18, Session: 1, Body: body})
		if reply.Kind != 0 {
			if !bytes.Equal(rowsOf(o), rowsOf(s)) {
				t.Errorf("op %#x failed with %v and changed the state", op, reply.Err())
			}
			return
		}
		if p := problems(o); len(p) > 0 {
			t.Errorf("op %#x: %q", op, p)
		}
	})
}

func rowsOf(r state.Reader) []byte {
	var b bytes.Buffer
	for k, v := range r.Scan(nil, nil) {
		fmt.Fprintf(&b, "%x %x\n", k, v)
	}
	return b.Bytes()
}
