package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dos/meta"
)

// What happens as the disk fills, whoever fills it, by what is free of it:
//
//	< addFree, the reserve counted as if it were taken: commands that add are refused
//	< lowFree: the reserve is given up, so that commands that free room go on
//	< minFree: nothing is proposed, Badger is left alone, and no member starts
//
// The reserve is a file, DIR/reserve, with room but no contents. It is made
// again once there is room for it and for what follows. So when others take the
// last block of the disk there are still reserveMin bytes to remove files with.
const (
	// minFree is what Badger and the log may need by themselves. Badger writes
	// through maps of sparse files, and a process that cannot get a page for one
	// is killed: a memtable may be begun (20 MiB, see keepRoom) and another be
	// written out (16 MiB), and the log makes its files at their full size (32 MiB).
	minFree = 80 << 20
	lowFree = 112 << 20
	addFree = 144 << 20
	// amplyFree is how much more than addFree ends a shortage.
	amplyFree = 16 << 20
	// The reserve is 1/reserveShare of the file system, between these: larger
	// state makes larger compactions.
	reserveMin, reserveMax = 144 << 20, 256 << 20
	reserveShare           = 16

	reserveName = "reserve"
)

// A level says how full the disk is.
type level int32

const (
	ample level = iota
	short       // only what does not add
	full        // nothing
)

func (l level) String() string { return [...]string{"ample", "short", "full"}[l] }

// space watches the disk and keeps the reserve.
type space struct {
	dir     string
	log     *slog.Logger
	min     int64 // minFree
	low     int64 // lowFree
	add     int64 // addFree
	size    int64 // of the reserve; 0: by the size of the file system, negative: none
	measure func(dir string) (room, error)

	now      atomic.Int32 // the level
	reported level        // tend's, as the next
	blind    bool         // the last look failed

	mu   sync.Mutex
	held bool  // the reserve has its room; guarded by mu
	want int64 // its size in bytes; guarded by mu
}

// room is what a file system has, in bytes.
type room struct {
	capacity int64
	free     int64 // for everybody
	writable int64 // for this process, which may be allowed to take more
}

// openSpace looks at the disk under dir, and gives the reserve up if a start
// would lack room.
func openSpace(cfg *Config) (*space, error) {
	l := &cfg.limits
	s := &space{dir: cfg.Dir, log: cfg.Log, min: l.minFree, low: l.lowFree, add: l.addFree, size: l.reserve, measure: l.measure}
	disk, err := s.measure(s.dir)
	if err != nil {
		return nil, fmt.Errorf("replica: how much space is left in %s: %w", s.dir, err)
	}
	if s.want = s.size; s.size == 0 {
		s.want = min(max(disk.capacity/reserveShare, reserveMin), reserveMax)
	}
	s.want = max(s.want, 0)
	path := filepath.Join(s.dir, reserveName)
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	case s.want > 0 && st.Size == s.want && st.Blocks*512 >= s.want:
		s.held = true
	default: // of another size, or not whole
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	if disk, err = s.look(); err != nil {
		return nil, err
	}
	if s.level() == full {
		return nil, fmt.Errorf("replica: the disk under %s has %d MiB free, and %d MiB are needed to start: free some space there: %w",
			s.dir, disk.writable>>20, s.min>>20, meta.NoSpace)
	}
	return s, nil
}

// level is what the last look found.
func (s *space) level() level { return level(s.now.Load()) }

// look finds out how full the disk is and gives the reserve up if need be. It is
// called before each entry, so that no command is written on the strength of
// what was true a second ago: it costs two microseconds.
func (s *space) look() (room, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	disk, err := s.measure(s.dir)
	if err != nil {
		return disk, fmt.Errorf("replica: how much space is left in %s: %w", s.dir, err)
	}
	if disk.writable < s.low && s.held {
		if err := os.Remove(filepath.Join(s.dir, reserveName)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return disk, fmt.Errorf("replica: giving up the reserve: %w", err)
		}
		s.held = false
		s.log.Warn("replica: the disk is nearly full, gave up the reserve", "dir", s.dir, "free_mib", disk.writable>>20, "reserve_mib", s.want>>20)
		if disk, err = s.measure(s.dir); err != nil {
			return disk, fmt.Errorf("replica: how much space is left in %s: %w", s.dir, err)
		}
	}
	before := s.level()
	now := ample
	switch left := s.left(disk); {
	case disk.writable < s.min:
		now = full
	case left < s.add, before != ample && left < s.add+amplyFree:
		now = short
	}
	s.now.Store(int32(now))
	return disk, nil
}

// report tells the log when what a look found is another thing than the last
// time. Only tend calls it.
func (s *space) report(disk room, err error) {
	if blind := err != nil; blind != s.blind {
		s.blind = blind
		s.log.Warn("replica: looking at the disk", "dir", s.dir, "err", err)
	}
	now := s.level()
	if now == s.reported {
		return
	}
	s.reported = now
	s.log.Warn("replica: the space of the disk has changed", "dir", s.dir, "now", now.String(), "free_mib", disk.free>>20)
}

// left is what is free besides the reserve. mu is held.
func (s *space) left(disk room) int64 {
	if s.held {
		return disk.free
	}
	return disk.free - s.want
}

// keep makes the reserve if there is room for it.
func (s *space) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held || s.want == 0 || s.level() != ample {
		return
	}
	err := allocate(filepath.Join(s.dir, reserveName), s.want)
	switch {
	case err == nil:
		s.held = true
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT): // somebody was faster
	default:
		s.want = 0
		s.log.Warn("replica: no room can be kept in reserve: on a full disk nothing can be removed", "dir", s.dir, "err", err)
	}
}

// allocate makes a file that has its room and no contents.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for {
		if err = unix.Fallocate(int(f.Fd()), 0, 0, size); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// measure asks the file system.
func measure(dir string) (room, error) {
	var st unix.Statfs_t
	for {
		if err := unix.Statfs(dir, &st); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return room{}, err
		}
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	r := room{capacity: int64(st.Blocks) * unit, free: int64(st.Bavail) * unit}
	r.writable = r.free
	if privileged() {
		r.writable = max(r.writable, int64(st.Bfree)*unit-keptFromRoot)
	}
	return r, nil
}

// keptFromRoot is what ext4 keeps for itself even from root, and counts as free.
const keptFromRoot = 16 << 20

// privileged reports whether this process may take the blocks that file systems
// keep for root. Root of a user namespace is not root to them.
var privileged = sync.OnceValue(func() bool {
	if os.Geteuid() != 0 {
		return false
	}
	ids, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(ids))
	return err == nil && len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
})

// Short reports whether the disk has too little room for commands that add.
func (r *Replica) Short() bool { return r.space.level() != ample }

// spare answers those proposals that the disk has no room for, and returns the
// others.
func (r *Replica) spare(batch []*proposal) []*proposal {
	if _, err := r.space.look(); err != nil {
		// What was found last stands; tend says that nobody knows better.
		r.cfg.Log.Debug("replica: looking at the disk", "err", err)
	}
	now := r.space.level()
	if now == ample {
		return batch
	}
	fits := batch[:0]
	for _, p := range batch {
		if now == short && !r.cfg.Machine.Adds(p.cmd) {
			fits = append(fits, p)
			continue
		}
		r.answer([]*proposal{p}, answer{err: fmt.Errorf("replica: the disk under %s is nearly full: %w", r.cfg.Dir, meta.NoSpace)})
	}
	return fits
}
