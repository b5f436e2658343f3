package fuse

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
	"dos/procfs"
)

// The extended attributes of special nodes have this prefix.
const specialPrefix = "user.dos."

// version is the attribute that, when it is set, belongs to an open file. It is not
// listed: mv and cp -a would take it along, and make what they write depend on it.
const version = "version"

func (f *files) specialXattrs(id uint64) (map[string]string, error) {
	n, err := f.node(id)
	if err != nil {
		return nil, err
	}
	a, ok := n.Node.(procfs.Attributed)
	if !ok {
		return nil, nil
	}
	attrs, err := a.Xattrs(f.ctx)
	if errors.Is(err, meta.NotExist) { // it is made, and not stored yet
		return nil, nil
	}
	return attrs, err
}

func (f *files) specialXattr(id uint64, name string) (string, error) {
	short, ok := strings.CutPrefix(name, specialPrefix)
	if !ok {
		return "", meta.NoAttr
	}
	attrs, err := f.specialXattrs(id)
	if err != nil {
		return "", err
	}
	val, ok := attrs[short]
	if !ok {
		return "", meta.NoAttr
	}
	return val, nil
}

func (f *files) specialXattrNames(id uint64) ([]string, error) {
	attrs, err := f.specialXattrs(id)
	var names []string
	for _, short := range slices.Sorted(maps.Keys(attrs)) {
		if short == version {
			continue
		}
		names = append(names, specialPrefix+short)
	}
	return names, err
}

// specialSetXattr sets an attribute, or removes it if val is nil.
func (f *files) specialSetXattr(in *raw.InHeader, name string, val *string) error {
	short, ok := strings.CutPrefix(name, specialPrefix)
	if !ok {
		return meta.Unsupported
	}
	n, err := f.node(in.NodeId)
	if err != nil {
		return err
	}
	if short == version && val != nil {
		if found, err := f.condition(n, in, *val); found || err != nil {
			return err
		}
	}
	a, ok := n.Node.(procfs.Attributed)
	if !ok {
		return meta.Unsupported
	}
	return f.settled(n, func() error { return a.SetXattr(f.by(in), short, val, caller(in)) })
}

// condition makes what the caller is writing depend on a version, if the node has
// handles for which that means something. The request does not say which handle:
// it is the caller's, or its parent's, as a shell's that runs setfattr, or else the
// only one.
func (f *files) condition(n *specialNode, in *raw.InHeader, val string) (found bool, err error) {
	var all []procfs.Conditional
	var openers []uint32
	for _, o := range f.special.handles(n) {
		if c, ok := o.Handle.(procfs.Conditional); ok && o.writable {
			all, openers = append(all, c), append(openers, o.use.opener)
		}
	}
	if len(all) == 0 {
		return false, nil
	}
	version, err := strconv.ParseUint(strings.TrimSpace(val), 10, 64)
	if err != nil {
		return true, fmt.Errorf("version %q is not a number: %w", val, meta.Invalid)
	}
	setter := threadOf(in.Pid)
	at := -1
	for _, who := range []uint32{setter.process, setter.parent} {
		if who != 0 && at < 0 {
			at = slices.Index(openers, who)
		}
	}
	switch {
	case at < 0 && len(all) == 1:
		at = 0
	case at < 0:
		return true, fmt.Errorf("%d processes are writing it: %w", len(all), meta.Busy)
	}
	all[at].Only(version)
	return true, nil
}
