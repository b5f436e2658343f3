package fuse

import (
	"math"
	"time"

	raw "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"dos/meta"
	"dos/procfs"
)

const (
	blockSize  = 4096 // what statfs counts in
	sectorSize = 512  // what st_blocks counts in
	// ioSize is st_blksize: what cp, cat and stdio take as the size of their
	// requests. Larger ones cost fewer crossings into this process.
	ioSize = 128 << 10
)

// fillAttr says a in the kernel's words.
func fillAttr(out *raw.Attr, a meta.Attr) {
	*out = raw.Attr{
		Ino:     uint64(a.Ino),
		Size:    uint64(a.Size),
		Blocks:  uint64(a.Bytes+sectorSize-1) / sectorSize,
		Mode:    a.Mode,
		Nlink:   a.Nlink,
		Owner:   raw.Owner{Uid: a.UID, Gid: a.GID},
		Rdev:    a.Rdev,
		Blksize: blksize(a),
	}
	out.Atime, out.Atimensec = split(a.Atime)
	out.Mtime, out.Mtimensec = split(a.Mtime)
	out.Ctime, out.Ctimensec = split(a.Ctime)
}

func blksize(a meta.Attr) uint32 {
	if a.IsFile() {
		return ioSize
	}
	return blockSize
}

// split cuts a time into seconds, rounded down, and the nanoseconds that are left.
func split(t meta.Time) (sec uint64, nsec uint32) {
	s, n := int64(t)/int64(time.Second), int64(t)%int64(time.Second)
	if n < 0 {
		s, n = s-1, n+int64(time.Second)
	}
	return uint64(s), uint32(n)
}

// joinTime is the inverse of split. Times that a meta.Time cannot hold (before
// 1678, after 2262) become the nearest that it can.
func joinTime(sec uint64, nsec uint32) meta.Time {
	s := int64(sec)
	switch {
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case s < math.MinInt64/int64(time.Second)+1:
		return math.MinInt64
	}
	return meta.Time(s*int64(time.Second) + int64(nsec))
}

// fillStatx says a in the words of statx(2): with its time of birth.
func fillStatx(out *raw.Statx, a meta.Attr) {
	var in raw.Attr
	fillAttr(&in, a)
	*out = raw.Statx{
		Mask:      unix.STATX_BASIC_STATS | unix.STATX_BTIME,
		Blksize:   in.Blksize,
		Nlink:     in.Nlink,
		Uid:       in.Uid,
		Gid:       in.Gid,
		Mode:      uint16(in.Mode),
		Ino:       in.Ino,
		Size:      in.Size,
		Blocks:    in.Blocks,
		RdevMajor: unix.Major(uint64(in.Rdev)),
		RdevMinor: unix.Minor(uint64(in.Rdev)),
	}
	out.Atime.Sec, out.Atime.Nsec = split(a.Atime)
	out.Mtime.Sec, out.Mtime.Nsec = split(a.Mtime)
	out.Ctime.Sec, out.Ctime.Nsec = split(a.Ctime)
	out.Btime.Sec, out.Btime.Nsec = split(a.Btime)
}

// infoAttr returns what stat tells of a special node.
func infoAttr(id uint64, info procfs.Info, started meta.Time) meta.Attr {
	mtime := info.Mtime
	if mtime == 0 {
		mtime = started
	}
	nlink := uint32(1)
	if info.Mode&meta.TypeMask == meta.TypeDir {
		nlink = 2
	}
	return meta.Attr{
		Ino: meta.Ino(id), Mode: info.Mode, Nlink: nlink, UID: info.UID, GID: info.GID, Size: info.Size,
		Bytes: info.Size, Atime: mtime, Mtime: mtime, Ctime: mtime, Btime: mtime,
	}
}

// setAttr reads what a SETATTR request asks for.
func setAttr(in *raw.SetAttrIn, now meta.Time) meta.SetAttr {
	var set meta.SetAttr
	if v, ok := in.GetMode(); ok {
		set.Mode = &v
	}
	if v, ok := in.GetUID(); ok {
		set.UID = &v
	}
	if v, ok := in.GetGID(); ok {
		set.GID = &v
	}
	if v, ok := in.GetSize(); ok {
		size := int64(v)
		set.Size = &size
	}
	set.Atime = asked(in.Valid, raw.FATTR_ATIME, raw.FATTR_ATIME_NOW, in.Atime, in.Atimensec, now)
	set.Mtime = asked(in.Valid, raw.FATTR_MTIME, raw.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec, now)
	set.KillPriv = in.Valid&raw.FATTR_KILL_SUIDGID != 0
	return set
}

func asked(valid, bit, nowBit uint32, sec uint64, nsec uint32, now meta.Time) *meta.Time {
	switch {
	case valid&bit == 0:
		return nil
	case valid&nowBit != 0:
		return &now
	}
	t := joinTime(sec, nsec)
	return &t
}
