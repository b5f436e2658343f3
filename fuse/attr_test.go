package fuse

import (
	"math"
	"testing"
	"time"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
)

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		t    meta.Time
		sec  int64
		nsec uint32
	}{
		{0, 0, 0}, {1, 0, 1}, {-1, -1, 999_999_999}, {1_500_000_000, 1, 500_000_000}, {-1_500_000_000, -2, 500_000_000},
		{meta.At(time.Date(2026, 3, 1, 0, 0, 0, 7, time.UTC)), 1772323200, 7},
	} {
		sec, nsec := split(c.t)
		if int64(sec) != c.sec || nsec != c.nsec {
			t.Errorf("split(%d) = %d, %d, want %d, %d", c.t, int64(sec), nsec, c.sec, c.nsec)
		}
		if back := joinTime(sec, nsec); back != c.t {
			t.Errorf("joinTime(split(%d)) = %d", c.t, back)
		}
	}
	far := int64(-1 << 62)
	if joinTime(1<<62, 0) != math.MaxInt64 || joinTime(uint64(far), 0) != math.MinInt64 {
		t.Error("times out of range are not the nearest in it")
	}
}

func TestFillAttr(t *testing.T) {
	var out raw.Attr
	fillAttr(&out, meta.Attr{Ino: 7, Mode: meta.TypeFile | 0o4755, Nlink: 2, UID: 3, GID: 4, Size: 1000, Bytes: 513, Atime: 1, Mtime: 2, Ctime: -1})
	want := raw.Attr{Ino: 7, Mode: meta.TypeFile | 0o4755, Nlink: 2, Owner: raw.Owner{Uid: 3, Gid: 4}, Size: 1000, Blocks: 2, Blksize: ioSize,
		Atimensec: 1, Mtimensec: 2, Ctime: math.MaxUint64, Ctimensec: 999_999_999}
	if out != want {
		t.Errorf("got %+v, want %+v", out, want)
	}
	var sx raw.Statx
	fillStatx(&sx, meta.Attr{Ino: 7, Mode: meta.TypeBlock | 0o600, Rdev: 0x0801, Btime: 1_000_000_001})
	if sx.RdevMajor != 8 || sx.RdevMinor != 1 || sx.Btime.Sec != 1 || sx.Btime.Nsec != 1 || sx.Mode != uint16(meta.TypeBlock|0o600) {
		t.Errorf("statx: %+v", sx)
	}
}

func TestSetAttr(t *testing.T) {
	in := &raw.SetAttrIn{}
	if got := setAttr(in, 5); got != (meta.SetAttr{}) {
		t.Errorf("nothing asked: %+v", got)
	}
	in.Valid = raw.FATTR_MODE | raw.FATTR_SIZE | raw.FATTR_ATIME | raw.FATTR_ATIME_NOW | raw.FATTR_MTIME | raw.FATTR_KILL_SUIDGID
	in.Mode, in.SetAttrInCommon.Size, in.Mtime, in.Mtimensec = meta.TypeFile|0o644, 10, 3, 4
	got := setAttr(in, 5)
	if *got.Mode != 0o644 || *got.Size != 10 || *got.Atime != 5 || *got.Mtime != 3_000_000_004 || got.UID != nil || got.GID != nil || !got.KillPriv {
		t.Errorf("got %+v", got)
	}
}
