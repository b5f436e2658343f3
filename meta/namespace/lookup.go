package namespace

import (
	"fmt"

	"dos/meta"
	"dos/meta/lease"
	"dos/meta/state"
)

func lookup(r state.Reader, me meta.SessionID, req Name) (meta.Attr, error) {
	dir, err := dirAt(r, req.Parent)
	if err != nil {
		return meta.Attr{}, err
	}
	if err := meta.CheckName(req.Name); err != nil {
		return meta.Attr{}, err
	}
	at, err := find(r, dir, req.Name)
	if err != nil {
		return meta.Attr{}, err
	}
	if !at.in.Attr.IsFile() {
		return at.in.Attr, nil
	}
	return at.in.Attr, lease.MayRead(r, me, at.in.Attr.Ino)
}

func attr(r state.Reader, me meta.SessionID, req Inode) (meta.Attr, error) {
	in, err := openAt(r, me, req.Ino)
	if err != nil {
		return meta.Attr{}, err
	}
	return in.Attr, nil
}

func parent(r state.Reader, req Inode) (Inode, error) {
	in, err := dirAt(r, req.Ino)
	if err != nil {
		return Inode{}, err
	}
	return Inode{in.Parent}, nil
}

func readlink(r state.Reader, req Inode) (Target, error) {
	in, err := inodeAt(r, req.Ino)
	if err != nil {
		return Target{}, err
	}
	if in.Attr.Type() != meta.TypeSymlink {
		return Target{}, fmt.Errorf("inode %d is no symlink: %w", req.Ino, meta.Invalid)
	}
	return Target{in.Target}, nil
}

// entrySize is about what an entry takes in an answer beside its name, with
// its attributes.
const entrySize = 128

func entries(r state.Reader, me meta.SessionID, req Entries) (EntriesReply, error) {
	if _, err := dirAt(r, req.Dir); err != nil {
		return EntriesReply{}, err
	}
	limit, err := clamp(req.Limit)
	if err != nil {
		return EntriesReply{}, err
	}
	from := dentryKey(req.Dir, req.After)
	if req.After != "" {
		from = append(from, 0) // the next key there can be
	}
	prefix := dentryKey(req.Dir, "")
	var reply EntriesReply
	size := 0
	for k, val := range r.Scan(from, state.After(prefix)) {
		if len(reply.Entries) == limit || size >= replyMax {
			reply.More = true
			break
		}
		var d dentry
		state.MustUnmarshal(val, &d)
		e := meta.Entry{Name: string(k[len(prefix):]), Ino: d.Ino, Type: d.Type}
		if req.Attrs {
			in, err := inodeAt(r, d.Ino)
			if err != nil {
				panic(fmt.Sprintf("namespace: %q in %d leads nowhere: %v", e.Name, req.Dir, err))
			}
			if !in.Attr.IsFile() || lease.MayRead(r, me, d.Ino) == nil {
				e.Attr = &in.Attr
			}
		}
		size += entrySize + len(e.Name)
		reply.Entries = append(reply.Entries, e)
	}
	return reply, nil
}

func usage(r state.Reader, _ none) (meta.Usage, error) {
	t, _ := load[totals](r, totalsKey)
	return meta.Usage{Inodes: t.Inodes, Bytes: t.Bytes}, nil
}
