package namespace

import (
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// The flags of setxattr(2).
const (
	xattrCreate  = 1
	xattrReplace = 2
)

// capability is the attribute that a change of the file's contents or owner
// takes away, as the kernel's own file systems do.
const capability = "security.capability"

func checkXattr(name string) error {
	switch {
	case name == "" || strings.ContainsRune(name, 0):
		return fmt.Errorf("attribute %q: %w", name, meta.Invalid)
	case len(name) > meta.NameMax:
		return fmt.Errorf("attribute name of %d bytes: %w", len(name), meta.NameTooLong)
	}
	return nil
}

func setXattr(tx *state.Tx, req SetXattr) (none, error) {
	in, err := changeAt(tx, req.Ino)
	if err != nil {
		return none{}, err
	}
	if err := checkXattr(req.Name); err != nil {
		return none{}, err
	}
	old := has(tx, xattrKey(req.Ino, req.Name))
	switch {
	case len(req.Val) > meta.XattrMax:
		return none{}, fmt.Errorf("attribute of %d bytes: %w", len(req.Val), meta.TooLarge)
	case req.Flags&^(xattrCreate|xattrReplace) != 0 || req.Flags == xattrCreate|xattrReplace:
		return none{}, fmt.Errorf("flags %#x: %w", req.Flags, meta.Invalid)
	case req.Flags == xattrCreate && old:
		return none{}, meta.Exist
	case req.Flags == xattrReplace && !old:
		return none{}, meta.NoAttr
	}
	if !old {
		in.Xattrs++
		in.XattrBytes += int64(len(req.Name)) + 1
		if in.XattrBytes > meta.XattrMax {
			return none{}, fmt.Errorf("inode %d has no room for the name of another attribute: %w", req.Ino, meta.NoSpace)
		}
	}
	if req.Name == meta.Fence {
		if err := in.fence(tx, req.Val); err != nil {
			return none{}, err
		}
	}
	tx.Set(xattrKey(req.Ino, req.Name), req.Val)
	in.touch(tx)
	put(tx, in)
	return none{}, nil
}

func removeXattr(tx *state.Tx, req XattrName) (none, error) {
	in, err := changeAt(tx, req.Ino)
	if err != nil {
		return none{}, err
	}
	if err := checkXattr(req.Name); err != nil {
		return none{}, err
	}
	if req.Name == meta.Fence {
		if err := in.admitted(tx); err != nil {
			return none{}, err
		}
		in.Attr.Fenced = false
	}
	if !in.forget(tx, req.Name) {
		return none{}, meta.NoAttr
	}
	in.touch(tx)
	put(tx, in)
	return none{}, nil
}

// forget removes an attribute of an inode, which the caller saves, and reports
// whether it was there.
func (in *inode) forget(tx *state.Tx, name string) bool {
	if in.Xattrs == 0 || !has(tx, xattrKey(in.Attr.Ino, name)) {
		return false
	}
	tx.Delete(xattrKey(in.Attr.Ino, name))
	in.Xattrs--
	in.XattrBytes -= int64(len(name)) + 1
	return true
}

func xattr(r state.Reader, me meta.SessionID, req XattrName) (XattrValue, error) {
	if _, err := openAt(r, me, req.Ino); err != nil {
		return XattrValue{}, err
	}
	if err := checkXattr(req.Name); err != nil {
		return XattrValue{}, err
	}
	val, ok := r.Get(xattrKey(req.Ino, req.Name))
	if !ok {
		return XattrValue{}, meta.NoAttr
	}
	return XattrValue{val}, nil
}

func xattrs(r state.Reader, me meta.SessionID, req Inode) (XattrNames, error) {
	in, err := openAt(r, me, req.Ino)
	if err != nil || in.Xattrs == 0 {
		return XattrNames{}, err
	}
	prefix := xattrKey(req.Ino, "")
	var reply XattrNames
	for k := range r.Scan(prefix, state.After(prefix)) {
		reply.Names = append(reply.Names, string(k[len(prefix):]))
	}
	return reply, nil
}
