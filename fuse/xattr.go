package fuse

import (
	"errors"
	"strings"
	"sync"
	"syscall"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
)

// capability is what the kernel asks for before a program runs and before the
// first write of each open file.
const capability = "security.capability"

// keepable says which extended attributes we keep. POSIX ACLs are not among them.
func keepable(name string) bool {
	for _, space := range []string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, space) && len(name) > len(space) {
			return true
		}
	}
	return false
}

func (f *files) GetXAttr(_ <-chan struct{}, in *raw.InHeader, name string, dest []byte) (uint32, raw.Status) {
	switch {
	case isSpecial(in.NodeId):
		val, err := f.specialXattr(in.NodeId, name)
		if err != nil {
			return 0, f.status("getxattr", err)
		}
		return fit1(val, dest)
	case !keepable(name):
		return 0, raw.ENOTSUP
	}
	ino := f.ino(in.NodeId)
	age := uint64(0)
	remember := name == capability && !f.fs.Shared()
	if remember {
		known, now := f.bare.has(ino)
		if known {
			return 0, raw.ENODATA
		}
		age = now
	}
	val, err := f.fs.Xattr(f.ctx, ino, name)
	if remember && errors.Is(err, meta.NoAttr) {
		f.bare.add(ino, age)
	}
	if err != nil {
		return 0, f.status("getxattr", err)
	}
	return fit1(val, dest)
}

// fit1 answers with val. A program that gives no room asks for the size.
func fit1[T string | []byte](val T, dest []byte) (uint32, raw.Status) {
	if len(dest) == 0 {
		return uint32(len(val)), raw.OK
	}
	if len(val) > len(dest) {
		return uint32(len(val)), raw.ERANGE
	}
	return uint32(copy(dest, val)), raw.OK
}

func (f *files) ListXAttr(_ <-chan struct{}, in *raw.InHeader, dest []byte) (uint32, raw.Status) {
	var names []string
	var err error
	if isSpecial(in.NodeId) {
		names, err = f.specialXattrNames(in.NodeId)
	} else {
		names, err = f.fs.Xattrs(f.ctx, f.ino(in.NodeId))
	}
	if err != nil {
		return 0, f.status("listxattr", err)
	}
	var list strings.Builder
	for _, name := range names {
		list.WriteString(name)
		list.WriteByte(0)
	}
	if list.Len() > meta.XattrMax {
		return 0, raw.Status(syscall.E2BIG)
	}
	return fit1(list.String(), dest)
}

func (f *files) SetXAttr(_ <-chan struct{}, in *raw.SetXAttrIn, name string, data []byte) raw.Status {
	switch {
	case isSpecial(in.NodeId):
		val := string(data)
		return f.status("setxattr", f.specialSetXattr(&in.InHeader, name, &val))
	case !keepable(name):
		return raw.ENOTSUP
	case len(name) > meta.NameMax:
		return raw.ERANGE
	case len(data) > meta.XattrMax:
		return raw.Status(syscall.E2BIG)
	}
	ino := f.ino(in.NodeId)
	err := f.fs.SetXattr(f.by(&in.InHeader), ino, name, append([]byte(nil), data...), in.Flags)
	if name == capability {
		f.bare.forget(ino) // also after an error: the outcome may be unknown
	}
	if errors.Is(err, meta.TooLarge) {
		return raw.Status(syscall.E2BIG)
	}
	return f.status("setxattr", err)
}

func (f *files) RemoveXAttr(_ <-chan struct{}, in *raw.InHeader, name string) raw.Status {
	switch {
	case isSpecial(in.NodeId):
		return f.status("removexattr", f.specialSetXattr(in, name, nil))
	case !keepable(name):
		return raw.ENOTSUP
	}
	return f.status("removexattr", f.fs.RemoveXattr(f.by(in), f.ino(in.NodeId), name))
}

// bareness remembers inodes that are known to have no security.capability:
// the kernel asks again each time it refreshed their attributes. It is for a
// mount that is the only one that could give them one.
type bareness struct {
	mu    sync.Mutex
	age   uint64                // grows when one is set; guarded by mu
	known map[meta.Ino]struct{} // guarded by mu
}

// bareMax bounds what bareness remembers: some megabytes.
const bareMax = 1 << 16

func (b *bareness) has(ino meta.Ino) (known bool, age uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known = b.known[ino]
	return known, b.age
}

// add remembers what was found out at the age given, unless one was set since.
func (b *bareness) add(ino meta.Ino, age uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.age != age {
		return
	}
	if b.known == nil || len(b.known) >= bareMax {
		b.known = make(map[meta.Ino]struct{})
	}
	b.known[ino] = struct{}{}
}

func (b *bareness) forget(ino meta.Ino) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.age++
	delete(b.known, ino)
}
