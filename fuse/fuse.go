// Package fuse speaks the kernel's file system protocol: it turns requests into
// calls of the stored tree (package vfs) and of special directories (package
// procfs), and their answers and errors into the kernel's words. It owns the
// mount, the numbers that the kernel knows nodes and open files by, and how
// long the kernel may believe what it was told. It knows nothing of how
// anything is stored. The library go-fuse is confined here.
//
// The node id of a stored file is its inode number, the root's is 1, and
// special nodes have a range of their own (table.go).
//
// # What the kernel may believe
//
// Where this mount is the only client, the kernel's caches are true: names,
// attributes and the absence of names are good for an hour (Config.Timeout),
// pages stay from one open to the next, and the kernel drops what its own
// operations change. What it cannot know gets a timeout of zero: the attributes
// of a file that is open for writing (st_blocks and st_ctime change when its
// data is stored), those of a set-id program (a write takes the bit away, and
// only asking again before the next exec shows it), and special nodes, but for what
// they say is good for longer (procfs.Info.Good). What a path leads to is looked up by
// each system call, so attributes that are good for the rest of that (procfs.OneCall)
// spare asking for them a second time, to check permissions. A directory that turns out
// to be other than the kernel was told is looked at again before anything in it is found
// (doubt), and a file that is open for writing, or at another size than what it is by its
// name, is asked each time.
//
// Where other mounts use the tree too (vfs.FS.Shared), timeouts are zero: the
// kernel asks for names and attributes each time, before each read(2) too, and drops
// its pages when it hears of another size or mtime. Since programs can set mtime
// back, it is made to drop them when it would not, and the version of the data is
// another one than when they were read. Maps are not asked about: that is the one
// exception. What is open for writing goes past the kernel's pages, or a program that
// reads what another one of the same machine is just writing would see it before the
// write has returned, and before other machines do. (A kernel before 6.6 could not
// map such files; there only what appends goes past.)
//
// Only GETATTR of a file under S (package meta/lease) is answered with a timeout,
// what is left of the trust in the session: until then read(2) and fstat(2) do not
// reach us. Before the lease goes, and before this mount changes the file, the
// kernel is told to believe nothing (vfs.FS.OnDoubt), and what it asked before that
// it does not believe when the answer comes: it counts, for each inode that it
// knows, what it was told. So the answers that make an inode known (LOOKUP, CREATE)
// and those that it believes in any case (SETATTR) have no timeout. It counts time
// from when it reads an answer: one that leaves late by more than the session's
// margin of 3 s, because the process or the machine stood still just then, would be
// believed for too long. It is not taken back: that would also make the kernel
// disregard a newer answer on its way, and go on with old pages.
//
// # Locks
//
// flock and fcntl locks are the kernel's own, within this mount, or, with
// Config.Locks, those of a service for all mounts. Locks of directories and of
// special files are never the service's. A program that is interrupted while it
// waits gets EINTR or, which the kernel sees to, waits again, and then has its old
// place.
package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/fuse/vfs"
	"dos/meta"
	"dos/procfs"
)

// Config says what is mounted where. Zero fields mean the defaults named.
type Config struct {
	MountPoint string   // an empty directory; made if it is missing, and then removed at the end
	FS         *vfs.FS  // the stored tree
	Root       meta.Ino // the directory that is shown as the root; meta.Root
	// Special are the special directories, shown in the root beside what is
	// stored there. Nil: none, as for a part of the tree.
	Special *procfs.Mux
	Options Options
	// Locks are the locks of files. Nil: the kernel's own.
	Locks Locks
	// Fence keeps some programs from changing anything; nil: none.
	Fence Fence
	// Timeout is how long the kernel may believe names and attributes: 1 h. It is
	// zero where the mount is not the only client.
	Timeout time.Duration
	// ReadAhead is how far the kernel reads ahead, in KiB: 4096. It takes effect
	// where we may set it (root, with /sys).
	ReadAhead int
	// Failed, if set, is told of each error that says more than its number does.
	// It must not block.
	Failed func(op string, err error)
	Log    *slog.Logger // slog.Default()
}

// Limits of the connection to the kernel.
const (
	// maxRequest is the largest read or write, in bytes: what the kernel allows
	// unless its administrator raised it, and 2.7 times as fast as its default.
	maxRequest = 1 << 20
	// maxBackground bounds the requests that the kernel has under way for nobody
	// in particular: read-ahead and direct I/O. Each holds a buffer of maxRequest.
	maxBackground = 64
)

func (c *Config) fill() error {
	if c.FS == nil {
		return errors.New("fuse: Config.FS is missing")
	}
	if c.Root == 0 {
		c.Root = meta.Root
	}
	switch {
	case c.FS.Shared():
		c.Timeout = 0
	case c.Timeout == 0:
		c.Timeout = time.Hour
	}
	if c.ReadAhead == 0 {
		c.ReadAhead = 4096
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Options.Source == "" {
		c.Options.Source = "dos"
	}
	if os.Geteuid() == 0 {
		c.Options.AllowOther = true
	}
	return nil
}

// A Server serves one mount.
type Server struct {
	point point
	files *files
	log   *slog.Logger
	done  chan struct{} // closed when the last request is answered
	gone  atomic.Bool   // the mount point was cleaned up
}

// Mount mounts and serves. When it returns, the mount is usable. The process
// should run with umask 0 and must not itself use what it serves. Whoever
// mounts calls Wait or Unmount.
func Mount(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := preparePoint(cfg.MountPoint, cfg.Options, cfg.Log)
	if err != nil {
		return nil, err
	}
	s := &Server{point: p, log: cfg.Log, done: make(chan struct{})}
	s.files = newFiles(context.WithoutCancel(ctx), cfg)
	server, err := connect(s.files, p.path, cfg)
	if err != nil {
		p.remove()
		return nil, err
	}
	raiseReadAhead(p.path, cfg.ReadAhead, cfg.Log)
	go func() { // Wait waits for it
		defer close(s.done)
		server.Serve()
	}()
	// The kernel learns here that we do not answer POLL, and asks no more. The Go
	// runtime polls each file that it opens, in a system call that it does not
	// know to block: if this process did use its own mount, it would stand still.
	if err := server.WaitMount(); err != nil {
		cfg.Log.Warn("fuse: mounted, but the root does not answer", "path", p.path, "err", err)
	}
	return s, nil
}

// Changed tells the kernel of a change of the tree that did not come from it: of what a
// name in a directory stands for, unless it is empty, and of an inode, unless it is 0. Where
// other mounts use the tree too it asks anyway. Whoever calls holds nothing that an operation of
// the mount may wait for.
func (s *Server) Changed(dir meta.Ino, name string, ino meta.Ino) {
	if s.files.fs.Shared() {
		return
	}
	if name != "" {
		s.files.dropName(s.files.nodeid(dir), name)
	}
	if ino != 0 {
		s.files.dropPages(s.files.nodeid(ino))
	}
}

// connect mounts and shakes hands with the kernel.
func connect(f *files, path string, cfg Config) (*raw.Server, error) {
	caps := uint64(raw.CAP_ATOMIC_O_TRUNC | raw.CAP_ASYNC_DIO | raw.CAP_HANDLE_KILLPRIV_V2 | raw.CAP_DIRECT_IO_ALLOW_MMAP)
	shared := cfg.FS.Shared()
	if !shared {
		caps |= raw.CAP_READDIRPLUS_AUTO
	}
	opts := &raw.MountOptions{
		AllowOther:    cfg.Options.AllowOther,
		Name:          "dos",
		FsName:        cfg.Options.Source,
		MaxWrite:      maxRequest,
		MaxBackground: maxBackground,
		// Answers come from memory: with splice each would pay for a pipe.
		DisableSplice:            true,
		EnableSymlinkCaching:     true,
		EnableLocks:              cfg.Locks != nil,
		ExplicitDataCacheControl: !shared,
		DisableReadDirPlus:       shared, // the kernel may not use the attributes
		ExtraCapabilities:        caps,
		DisabledCapabilities:     raw.CAP_PASSTHROUGH,
		Logger:                   slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
		// A bug of ours may have left a lock held. Going on would hang callers
		// where stopping gives them ENOTCONN and the next start a clean tree.
		PanicHandler: func(bug any) raw.Status { panic(bug) },
	}
	if os.Geteuid() == 0 {
		opts.DirectMountStrict = true
		opts.DirectMountFlags = cfg.Options.direct()
		opts.Options = []string{"default_permissions"}
	} else {
		list, err := cfg.Options.helper()
		if err != nil {
			return nil, err
		}
		opts.Options = list
	}
	var answers raw.RawFileSystem = f
	if f.fence != nil {
		answers = fenced{f}
	}
	server, err := newServer(answers, path, opts)
	if err == nil {
		f.mapsDirect = server.KernelSettings().Flags64()&raw.CAP_DIRECT_IO_ALLOW_MMAP != 0
		f.dropPages = func(nodeid uint64) { server.InodeNotify(nodeid, 0, 0) }       // it may not know the inode any more
		f.dropName = func(dir uint64, name string) { server.EntryNotify(dir, name) } // nor the name
		f.dropAttr = func(nodeid uint64) { server.InodeNotify(nodeid, -1, 0) }
		cfg.FS.OnDoubt(func(ino meta.Ino) { server.InodeNotify(f.nodeid(ino), -1, 0) })
		return server, nil
	}
	if m, ok, _ := mountedAt(path); ok && m.fstype == Type { // it failed after mounting
		if err := detach(path); err != nil {
			cfg.Log.Warn("fuse: a mount that failed is still there", "path", path, "err", err)
		}
	}
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("mount point %s: the system does not permit mounting here (%w); in a container add --cap-add SYS_ADMIN --device /dev/fuse", path, err)
	case errors.Is(err, syscall.ENODEV):
		return nil, fmt.Errorf("mount point %s: this kernel has no FUSE: modprobe fuse", path)
	}
	if !opts.DirectMountStrict {
		return nil, fmt.Errorf("mount point %s: fusermount3 refused; it said why above (%s)", path, strings.TrimSpace(err.Error()))
	}
	return nil, fmt.Errorf("mount point %s: %w", path, err)
}

// newServer is raw.NewServer, but a program that we start does not inherit the
// connection: while it lived, the death of this process would not end the
// mount, and its users would hang. go-fuse leaves the descriptor open across
// exec when it mounts directly.
func newServer(f raw.RawFileSystem, path string, opts *raw.MountOptions) (*raw.Server, error) {
	if opts.DirectMountStrict { // starts no program itself
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	server, err := raw.NewServer(f, path, opts)
	if err != nil {
		return nil, err
	}
	const fds = "/proc/self/fd"
	list, err := os.ReadDir(fds)
	if err != nil {
		return server, nil // no /proc, and then no mount table either: cannot happen here
	}
	for _, e := range list {
		if target, err := os.Readlink(fds + "/" + e.Name()); err == nil && target == "/dev/fuse" {
			var fd int
			if _, err := fmt.Sscan(e.Name(), &fd); err == nil {
				syscall.CloseOnExec(fd)
			}
		}
	}
	return server, nil
}

// raiseReadAhead sets how far the kernel reads ahead. The protocol cannot ask
// for more than 128 KiB.
func raiseReadAhead(path string, kib int, log *slog.Logger) {
	m, ok, err := mountedAt(path)
	if err != nil || !ok {
		log.Warn("fuse: the mount is not in the mount table", "path", path, "err", err)
		return
	}
	knob := "/sys/class/bdi/" + m.device + "/read_ahead_kb"
	if err := os.WriteFile(knob, fmt.Append(nil, kib), 0); err != nil {
		log.Debug("fuse: read-ahead stays at the kernel's default; large reads are slower", "err", err)
	}
}

// MountPoint is the absolute path of the mount.
func (s *Server) MountPoint() string { return s.point.path }

// Wait returns when the mount is gone, by Unmount or by umount(8), and every
// request has been answered.
func (s *Server) Wait() {
	<-s.done
	s.files.closeAll()
	if s.gone.CompareAndSwap(false, true) {
		s.point.remove()
	}
}

// ErrBusy says that the mount was in use until the end of the context given to
// Unmount. It is detached: no path leads to it any more, and its users get
// ENOTCONN when this process ends.
var ErrBusy = errors.New("still in use; detached")

// Unmount takes the mount away. While it is in use it tries again until ctx
// ends, then it detaches the mount, ends the connection where the system lets
// it (fusectl), and returns ErrBusy where not.
func (s *Server) Unmount(ctx context.Context) error {
	m, found, _ := mountedAt(s.point.path)
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		if s.gone.Load() { // detached before; its last user may leave yet
			select {
			case <-s.done:
				s.Wait()
				return nil
			case <-ctx.Done():
				return fmt.Errorf("unmounting %s: %w", s.point.path, ErrBusy)
			}
		}
		err := unmount(s.point.path)
		switch {
		case err == nil, s.ended():
			// A mount namespace that was made meanwhile has a copy of the mount
			// (mount_namespaces(7)): for it the connection goes on.
			select {
			case <-s.done:
				s.Wait()
				return nil
			case <-ctx.Done():
				return s.cut(m, found)
			}
		case !errors.Is(err, syscall.EBUSY):
			return fmt.Errorf("unmounting %s: %w", s.point.path, err)
		}
		select {
		case <-pause.C:
		case <-s.done:
		case <-ctx.Done():
			return s.leave()
		}
	}
}

func (s *Server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// leave detaches a mount that is in use.
func (s *Server) leave() error {
	m, found, _ := mountedAt(s.point.path)
	if err := detach(s.point.path); err != nil && !s.ended() {
		return fmt.Errorf("unmounting %s: %w", s.point.path, err)
	}
	return s.cut(m, found)
}

// cut ends the connection of a mount that no path here leads to any more.
func (s *Server) cut(m mounted, found bool) error {
	s.files.ending.Store(true) // whoever still has a file open writes no more
	if s.gone.CompareAndSwap(false, true) {
		s.point.remove()
	}
	if found && abort(m.device) == nil {
		s.Wait()
		return nil
	}
	return fmt.Errorf("unmounting %s: %w", s.point.path, ErrBusy)
}

// abort ends the connection of the FUSE mount with this device number.
func abort(device string) error {
	var major, minor uint
	if _, err := fmt.Sscanf(device, "%d:%d", &major, &minor); err != nil {
		return err
	}
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor), []byte("1"), 0)
}
