package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPOSIX exercises the system calls that programs use, on one mount, each
// in a directory of its own.
func TestPOSIX(t *testing.T) { posixSuite(t, mountHere(t, nil).dir) }

// TestSharedPOSIX is the same on one of two mounts. Making a big directory takes
// half a minute there: each name is synced.
func TestSharedPOSIX(t *testing.T) {
	_, dirs := sharedMounts(t, 2)
	posixSuite(t, dirs[1], "big directory")
}

// posixSuite runs the suite below root, without those that are named.
func posixSuite(t *testing.T, root string, without ...string) {
	for name, test := range map[string]func(*testing.T, string){
		"files": posixFiles, "append": posixAppend, "exclusive": posixExclusive, "umask": posixUmask,
		"unlink open": posixUnlinkOpen, "rename": posixRename, "links": posixLinks, "symlinks": posixSymlinks,
		"nodes": posixNodes, "truncate": posixTruncate, "times": posixTimes, "owner": posixOwner,
		"set-id": posixSetID, "xattrs": posixXattrs, "sparse": posixSparse, "big directory": posixBigDirectory,
		"seekdir": posixSeekdir, "mmap": posixMmap, "direct": posixDirect, "locks": posixLocks, "blocks": posixBlocks,
		"directories": posixDirectories, "statx": posixStatx, "copy": posixCopy, "gone": posixGone,
	} {
		if slices.Contains(without, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(root, "of "+name)
			must(t, os.Mkdir(dir, 0o755))
			test(t, dir)
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("removing what the test left: %v", err)
			}
		})
	}
}

func want(t *testing.T, what string, err error, errno syscall.Errno) {
	t.Helper()
	if errno == 0 && err != nil || errno != 0 && !errors.Is(err, errno) {
		t.Errorf("%s: %v, want %v", what, err, errno)
	}
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return &st
}

func content(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %.60q, %v, want %.60q", path, got, err, want)
	}
}

func posixFiles(t *testing.T, dir string) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 9<<20 + 7} {
		path := fmt.Sprintf("%s/f%d", dir, size)
		data := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
		must(t, os.WriteFile(path, data, 0o640))
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("a file of %d bytes reads as %d bytes, %v", size, len(got), err)
		}
		if st := stat(t, path); st.Size != int64(size) || st.Mode != syscall.S_IFREG|0o640 || st.Nlink != 1 {
			t.Errorf("stat of %d bytes: %+v", size, st)
		}
	}
	f, err := os.OpenFile(dir+"/f4097", os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("XYZ"), 4094)
	must(t, err)
	must(t, f.Sync())
	buf := make([]byte, 5)
	if n, err := f.ReadAt(buf, 4092); n != 5 || err != nil {
		t.Errorf("reading to the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(buf, 4097); n != 0 || err != io.EOF {
		t.Errorf("reading at the end: %d, %v", n, err)
	}
	must(t, f.Close())
	_, err = os.ReadFile(dir + "/none")
	want(t, "reading what is not there", err, syscall.ENOENT)
	want(t, "a name that is too long", os.WriteFile(dir+"/"+strings.Repeat("n", 256), nil, 0o600), syscall.ENAMETOOLONG)
	want(t, "a long name", os.WriteFile(dir+"/"+strings.Repeat("n", 255), nil, 0o600), 0)
	want(t, "a file as a directory", os.WriteFile(dir+"/f0/x", nil, 0o600), syscall.ENOTDIR)
	want(t, "a directory as a file", os.WriteFile(dir, nil, 0o600), syscall.EISDIR)
	// A name that was absent appears at once, although its absence was remembered.
	must(t, os.WriteFile(dir+"/none", []byte("now"), 0o600))
	content(t, dir+"/none", "now")
}

func posixAppend(t *testing.T, dir string) {
	path := dir + "/log"
	a, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(t, err)
	b, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	var all strings.Builder
	for i := range 50 {
		f := a
		if i%2 == 1 {
			f = b
		}
		line := fmt.Sprintf("line %d\n", i)
		_, err := f.WriteString(line)
		must(t, err)
		all.WriteString(line)
	}
	must(t, a.Close())
	must(t, b.Close())
	content(t, path, all.String())
}

func posixExclusive(t *testing.T, dir string) {
	open := func(flags int) error {
		f, err := os.OpenFile(dir+"/f", flags, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}
	want(t, "O_EXCL", open(os.O_CREATE|os.O_EXCL|os.O_WRONLY), 0)
	want(t, "O_EXCL again", open(os.O_CREATE|os.O_EXCL|os.O_WRONLY), syscall.EEXIST)
	want(t, "O_CREAT again", open(os.O_CREATE|os.O_WRONLY), 0)
	want(t, "mkdir over it", os.Mkdir(dir+"/f", 0o700), syscall.EEXIST)
	want(t, "O_TMPFILE", func() error {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}(), syscall.EOPNOTSUPP)
}

func posixUmask(t *testing.T, dir string) {
	// The umask is of the process: another one, so that the server's stays.
	out, err := exec.Command("sh", "-c", `umask 027; cd "$1"; : > f; mkdir d; mkfifo p`, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, mode := range map[string]uint32{"f": syscall.S_IFREG | 0o640, "d": syscall.S_IFDIR | 0o750, "p": syscall.S_IFIFO | 0o640} {
		if got := stat(t, dir+"/"+name).Mode; got != mode {
			t.Errorf("%s has mode %o, want %o", name, got, mode)
		}
	}
}

func posixUnlinkOpen(t *testing.T, dir string) {
	f, err := os.Create(dir + "/f")
	must(t, err)
	_, err = f.WriteString("before ")
	must(t, err)
	must(t, os.Remove(dir+"/f"))
	_, err = f.WriteString("after")
	must(t, err)
	must(t, f.Sync())
	buf := make([]byte, 12)
	if n, err := f.ReadAt(buf, 0); n != 12 || string(buf) != "before after" {
		t.Errorf("an unlinked file reads %q, %v", buf[:n], err)
	}
	var st syscall.Stat_t
	must(t, syscall.Fstat(int(f.Fd()), &st))
	if st.Nlink != 0 || st.Size != 12 {
		t.Errorf("fstat of an unlinked file: %+v", st)
	}
	must(t, f.Truncate(3))
	must(t, f.Close())
	_, err = os.Stat(dir + "/f")
	want(t, "stat of an unlinked file", err, syscall.ENOENT)
}

func posixRename(t *testing.T, dir string) {
	put := func(name, text string) { t.Helper(); must(t, os.WriteFile(dir+"/"+name, []byte(text), 0o600)) }
	rename := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, dir+"/"+from, unix.AT_FDCWD, dir+"/"+to, flags)
	}
	put("a", "A")
	put("b", "B")
	must(t, os.MkdirAll(dir+"/d/e", 0o700))
	want(t, "over a file", rename("a", "b", 0), 0)
	content(t, dir+"/b", "A")
	_, err := os.Stat(dir + "/a")
	want(t, "the old name", err, syscall.ENOENT)
	put("a", "new")
	want(t, "NOREPLACE", rename("a", "b", unix.RENAME_NOREPLACE), syscall.EEXIST)
	want(t, "NOREPLACE to a free name", rename("a", "c", unix.RENAME_NOREPLACE), 0)
	want(t, "EXCHANGE", rename("b", "c", unix.RENAME_EXCHANGE), 0)
	content(t, dir+"/b", "new")
	content(t, dir+"/c", "A")
	want(t, "EXCHANGE with a directory", rename("b", "d", unix.RENAME_EXCHANGE), 0)
	content(t, dir+"/d", "new")
	want(t, "EXCHANGE back", rename("b", "d", unix.RENAME_EXCHANGE), 0)
	want(t, "EXCHANGE with nothing", rename("b", "none", unix.RENAME_EXCHANGE), syscall.ENOENT)
	want(t, "WHITEOUT", rename("b", "none", unix.RENAME_WHITEOUT), syscall.EINVAL)
	want(t, "a directory into itself", rename("d", "d/e/x", 0), syscall.EINVAL)
	want(t, "a file over a directory", rename("b", "d", 0), syscall.EISDIR)
	want(t, "a directory over a file", rename("d", "b", 0), syscall.ENOTDIR)
	must(t, os.Mkdir(dir+"/full", 0o700))
	put("full/x", "")
	want(t, "over a full directory", rename("d", "full", 0), syscall.ENOTEMPTY)
	want(t, "into another directory", rename("d/e", "full/e", 0), 0)
	if st := stat(t, dir+"/full"); st.Nlink != 3 {
		t.Errorf("a directory with one in it has %d links", st.Nlink)
	}
	if st := stat(t, dir+"/d"); st.Nlink != 2 {
		t.Errorf("an empty directory has %d links", st.Nlink)
	}
}

func posixLinks(t *testing.T, dir string) {
	must(t, os.WriteFile(dir+"/a", []byte("x"), 0o600))
	before := stat(t, dir+"/a")
	time.Sleep(2 * time.Millisecond) // so that the change time can differ
	must(t, os.Link(dir+"/a", dir+"/b"))
	a, b := stat(t, dir+"/a"), stat(t, dir+"/b")
	if a.Ino != b.Ino || a.Nlink != 2 || b.Nlink != 2 || a.Ctim.Nano() <= before.Ctim.Nano() {
		t.Errorf("after link: %+v and %+v", a, b)
	}
	must(t, os.Remove(dir+"/a"))
	if b := stat(t, dir+"/b"); b.Nlink != 1 {
		t.Errorf("after unlink of one name there are %d links", b.Nlink)
	}
	want(t, "a link to a directory", os.Link(dir, dir+"/d"), syscall.EPERM)
	want(t, "over a name", os.Link(dir+"/b", dir+"/b"), syscall.EEXIST)
}

func posixSymlinks(t *testing.T, dir string) {
	long := strings.Repeat("x/", 2000)
	for name, target := range map[string]string{"a": "f", "dangling": "/nowhere at all", "long": long} {
		must(t, os.Symlink(target, dir+"/"+name))
		if got, err := os.Readlink(dir + "/" + name); err != nil || got != target {
			t.Errorf("readlink %s: %.40q, %v", name, got, err)
		}
		if st := stat(t, dir+"/"+name); st.Size != int64(len(target)) || st.Mode != syscall.S_IFLNK|0o777 {
			t.Errorf("lstat %s: %+v", name, st)
		}
	}
	must(t, os.WriteFile(dir+"/a", []byte("through"), 0o600))
	content(t, dir+"/f", "through")
	_, err := os.Readlink(dir + "/f")
	want(t, "readlink of a file", err, syscall.EINVAL)
}

func posixNodes(t *testing.T, dir string) {
	must(t, unix.Mkfifo(dir+"/p", 0o600))
	must(t, unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(dir+"/blk", unix.S_IFBLK|0o600, int(unix.Mkdev(254, 300))))
	must(t, unix.Mknod(dir+"/f", unix.S_IFREG|0o604, 0))
	if st := stat(t, dir+"/null"); st.Mode != syscall.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("a device: %+v", st)
	}
	if st := stat(t, dir+"/blk"); st.Rdev != unix.Mkdev(254, 300) {
		t.Errorf("a device with a large minor number: %x", st.Rdev)
	}
	if st := stat(t, dir+"/f"); st.Mode != syscall.S_IFREG|0o604 {
		t.Errorf("a file made with mknod: %+v", st)
	}
	must(t, os.WriteFile(dir+"/null", []byte("into the void"), 0)) // the mount allows devices
	go func() { os.WriteFile(dir+"/p", []byte("piped"), 0) }()
	content(t, dir+"/p", "piped")
}

func posixTruncate(t *testing.T, dir string) {
	path := dir + "/f"
	must(t, os.WriteFile(path, []byte("0123456789"), 0o600))
	must(t, os.Truncate(path, 4))
	content(t, path, "0123")
	must(t, os.Truncate(path, 8))
	content(t, path, "0123\x00\x00\x00\x00")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	must(t, f.Truncate(2))
	_, err = f.WriteAt([]byte("z"), 5)
	must(t, err)
	must(t, f.Close())
	content(t, path, "01\x00\x00\x00z")
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	if st := stat(t, path); st.Size != 0 {
		t.Errorf("after O_TRUNC the size is %d", st.Size)
	}
	must(t, f.Close())
	must(t, os.Truncate(path, 1<<40))
	if st := stat(t, path); st.Size != 1<<40 || st.Blocks != 0 {
		t.Errorf("a hole of a terabyte: %+v", st)
	}
}

func posixTimes(t *testing.T, dir string) {
	path := dir + "/f"
	must(t, os.WriteFile(path, nil, 0o600))
	at, mt := time.Unix(1_000_000_000, 123456789), time.Unix(-5, 7)
	must(t, os.Chtimes(path, at, mt))
	st := stat(t, path)
	if st.Atim.Nano() != at.UnixNano() || st.Mtim.Nano() != mt.UnixNano() {
		t.Errorf("times set to %v and %v are %v and %v", at, mt, st.Atim, st.Mtim)
	}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
	st = stat(t, path)
	if st.Atim.Nano() != at.UnixNano() || time.Since(time.Unix(st.Mtim.Unix())) > time.Minute {
		t.Errorf("now and omit: %v and %v", st.Atim, st.Mtim)
	}
	// What the kernel caches follows from what it does itself.
	before := stat(t, dir)
	time.Sleep(2 * time.Millisecond)
	must(t, os.WriteFile(dir+"/g", nil, 0o600))
	if after := stat(t, dir); after.Mtim.Nano() <= before.Mtim.Nano() || after.Ctim.Nano() <= before.Ctim.Nano() {
		t.Error("making a file did not change the directory's times")
	}
	was := stat(t, path)
	time.Sleep(2 * time.Millisecond)
	must(t, os.Chmod(path, 0o644))
	if now := stat(t, path); now.Ctim.Nano() <= was.Ctim.Nano() || now.Mtim != was.Mtim || now.Mode&0o777 != 0o644 {
		t.Errorf("chmod made %+v of %+v", now, was)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	was = stat(t, path)
	time.Sleep(2 * time.Millisecond)
	_, err = f.WriteString("x")
	must(t, err)
	if now := stat(t, path); now.Mtim.Nano() <= was.Mtim.Nano() || now.Size != 1 {
		t.Errorf("a write made %+v of %+v", now, was)
	}
	must(t, f.Close())
}

func posixOwner(t *testing.T, dir string) {
	path := dir + "/f"
	must(t, os.WriteFile(path, nil, 0o640))
	must(t, os.Chown(path, 12345, 54321))
	if st := stat(t, path); st.Uid != 12345 || st.Gid != 54321 {
		t.Errorf("after chown: %d:%d", st.Uid, st.Gid)
	}
	// Another user: the kernel checks permissions, and what he makes is his.
	must(t, os.Chmod(dir, 0o777))
	must(t, os.WriteFile(dir+"/root", []byte("secret"), 0o600))
	as := func(script string) (string, error) {
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "D=" + dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4712}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for d := dir; d != "/"; d = filepath.Dir(d) { // t.TempDir is closed to others
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&0o001 == 0 {
			must(t, os.Chmod(d, info.Mode().Perm()|0o011))
		}
	}
	if out, err := as(`echo mine > "$D/mine" && mkdir "$D/dir"`); err != nil {
		t.Fatalf("another user cannot write: %v: %s", err, out)
	}
	if st := stat(t, dir+"/mine"); st.Uid != 4711 || st.Gid != 4712 {
		t.Errorf("what another user made belongs to %d:%d", st.Uid, st.Gid)
	}
	if out, err := as(`cat "$D/root"`); err == nil || !strings.Contains(out, "ermission denied") {
		t.Errorf("another user reads what is root's: %q", out)
	}
	must(t, syscall.Chmod(dir, 0o1777))
	if out, err := as(`rm -f "$D/root"`); err == nil {
		t.Errorf("the sticky bit does not hold: %q", out)
	}
	must(t, os.Chown(dir, 0, 99))
	must(t, syscall.Chmod(dir, 0o2777))
	if out, err := as(`mkdir "$D/sub"`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if st := stat(t, dir+"/sub"); st.Gid != 99 || st.Mode&syscall.S_ISGID == 0 {
		t.Errorf("below a set-gid directory: group %d mode %o", st.Gid, st.Mode)
	}
}

func posixSetID(t *testing.T, dir string) {
	path := dir + "/prog"
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"), 0o777))
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&0o001 == 0 {
			must(t, os.Chmod(d, info.Mode().Perm()|0o011))
		}
	}
	for what, script := range map[string]string{"write": `echo evil >> "$F"`, "truncate": `: > "$F"`, "write in the middle": `printf x | dd of="$F" conv=notrunc status=none`} {
		must(t, os.Chmod(path, os.ModeSetuid|os.ModeSetgid|0o777))
		if st := stat(t, path); st.Mode&0o7777 != 0o6777 {
			t.Fatalf("chmod gave %o", st.Mode)
		}
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "F=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4712}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", what, err, out)
		}
		if st := stat(t, path); st.Mode&0o6000 != 0 {
			t.Errorf("after a %s by somebody else the mode is %o: his program would run as its owner", what, st.Mode)
		}
	}
	must(t, os.Chmod(path, os.ModeSetuid|0o755))
	must(t, os.Chown(path, 1, 1))
	if st := stat(t, path); st.Mode&0o6000 != 0 {
		t.Errorf("after chown the mode is %o", st.Mode)
	}
}

func posixXattrs(t *testing.T, dir string) {
	path := dir + "/f"
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, unix.Setxattr(path, "user.a", []byte("value"), unix.XATTR_CREATE))
	want(t, "XATTR_CREATE", unix.Setxattr(path, "user.a", []byte("other"), unix.XATTR_CREATE), syscall.EEXIST)
	want(t, "XATTR_REPLACE", unix.Setxattr(path, "user.b", nil, unix.XATTR_REPLACE), syscall.ENODATA)
	for _, name := range []string{"user.empty", "trusted.t", "security.s"} {
		want(t, name, unix.Setxattr(path, name, nil, 0), 0)
	}
	buf := make([]byte, 100)
	if n, err := unix.Getxattr(path, "user.a", buf); err != nil || string(buf[:n]) != "value" {
		t.Errorf("user.a is %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Getxattr(path, "user.a", nil); n != 5 || err != nil {
		t.Errorf("the size of user.a is %d, %v", n, err)
	}
	if n, err := unix.Getxattr(path, "user.empty", buf); n != 0 || err != nil {
		t.Errorf("the size of an empty one is %d, %v", n, err)
	}
	_, err := unix.Getxattr(path, "user.a", buf[:4])
	want(t, "too little room", err, syscall.ERANGE)
	_, err = unix.Getxattr(path, "user.none", buf)
	want(t, "one that is not there", err, syscall.ENODATA)
	all := "security.s\x00trusted.t\x00user.a\x00user.empty\x00"
	if n, err := unix.Listxattr(path, nil); n != len(all) || err != nil {
		t.Errorf("the size of the list is %d, %v, want %d", n, err, len(all))
	}
	if n, err := unix.Listxattr(path, buf); err != nil || string(buf[:n]) != all {
		t.Errorf("the list is %q, %v", buf[:max(n, 0)], err)
	}
	_, err = unix.Listxattr(path, buf[:10])
	want(t, "too little room for the list", err, syscall.ERANGE)
	big := bytes.Repeat([]byte("v"), 64<<10)
	want(t, "64 KiB", unix.Setxattr(path, "user.big", big, 0), 0)
	got := make([]byte, 64<<10)
	if n, err := unix.Getxattr(path, "user.big", got); n != len(big) || err != nil || !bytes.Equal(got, big) {
		t.Errorf("64 KiB come back as %d, %v", n, err)
	}
	want(t, "over 64 KiB", unix.Setxattr(path, "user.big", append(big, 'v'), 0), syscall.E2BIG)
	want(t, "a name over 255 bytes", unix.Setxattr(path, "user."+strings.Repeat("n", 251), nil, 0), syscall.ERANGE)
	want(t, "remove", unix.Removexattr(path, "user.a"), 0)
	want(t, "remove again", unix.Removexattr(path, "user.a"), syscall.ENODATA)
	want(t, "an ACL", unix.Setxattr(path, "system.posix_acl_access", []byte("\x02\x00\x00\x00"), 0), syscall.ENOTSUP)
	want(t, "another name space", unix.Setxattr(path, "system.x", nil, 0), syscall.ENOTSUP)
	// The absence of a capability is remembered, and its appearance seen.
	_, err = unix.Getxattr(path, capability, buf)
	want(t, "no capability", err, syscall.ENODATA)
	caps := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(path, capability, caps, 0))
	if n, err := unix.Getxattr(path, capability, buf); err != nil || !bytes.Equal(buf[:n], caps) {
		t.Errorf("a capability is %x, %v", buf[:max(n, 0)], err)
	}
	must(t, unix.Removexattr(path, capability))
	must(t, unix.Setxattr(dir, "user.on.a.directory", []byte("yes"), 0))
}

func posixSparse(t *testing.T, dir string) {
	f, err := os.Create(dir + "/f")
	must(t, err)
	defer f.Close()
	const mib = 1 << 20
	_, err = f.WriteAt(bytes.Repeat([]byte("d"), mib), 10*mib)
	must(t, err)
	must(t, f.Truncate(100*mib))
	must(t, f.Sync())
	for _, c := range []struct {
		off    int64
		whence int
		want   int64
		errno  syscall.Errno
	}{
		{0, unix.SEEK_DATA, 10 * mib, 0}, {0, unix.SEEK_HOLE, 0, 0}, {10*mib + 5, unix.SEEK_DATA, 10*mib + 5, 0},
		{10 * mib, unix.SEEK_HOLE, 11 * mib, 0}, {11 * mib, unix.SEEK_DATA, 0, syscall.ENXIO}, {100 * mib, unix.SEEK_HOLE, 0, syscall.ENXIO},
	} {
		got, err := unix.Seek(int(f.Fd()), c.off, c.whence)
		if want(t, fmt.Sprintf("lseek(%d, %d)", c.off, c.whence), err, c.errno); err == nil && got != c.want {
			t.Errorf("lseek(%d, %d) = %d, want %d", c.off, c.whence, got, c.want)
		}
	}
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 10*mib, mib/2))
	buf := make([]byte, 2)
	if _, err := f.ReadAt(buf, 10*mib+mib/2-1); err != nil || string(buf) != "\x00d" {
		t.Errorf("at the end of a punched hole: %q, %v", buf, err)
	}
	must(t, unix.Fallocate(int(f.Fd()), 0, 100*mib, mib))
	var st syscall.Stat_t
	must(t, syscall.Fstat(int(f.Fd()), &st))
	if st.Size != 101*mib {
		t.Errorf("after fallocate the size is %d", st.Size)
	}
}

// posixBigDirectory lists 10,000 entries while every other one is removed.
func posixBigDirectory(t *testing.T, dir string) {
	const n = 10_000
	for i := range n {
		must(t, unix.Mknod(fmt.Sprintf("%s/f%05d", dir, i), unix.S_IFREG|0o600, 0))
	}
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	seen := make(map[string]int)
	removed := make(map[string]bool)
	for step := 0; ; step++ {
		names, err := d.Readdirnames(100)
		if err == io.EOF {
			break
		}
		must(t, err)
		for _, name := range names {
			seen[name]++
		}
		if name := fmt.Sprintf("f%05d", (step*7919)%n/2*2); !removed[name] {
			removed[name] = true
			must(t, os.Remove(dir+"/"+name))
		}
	}
	for i := range n {
		name := fmt.Sprintf("f%05d", i)
		if seen[name] > 1 || seen[name] == 0 && !removed[name] {
			t.Errorf("%s was listed %d times, removed %v", name, seen[name], removed[name])
		}
	}
	if out, err := exec.Command("rm", "-r", dir).CombinedOutput(); err != nil { // reads and removes by turns
		t.Errorf("rm -r: %v: %s", err, out)
	}
}

func posixSeekdir(t *testing.T, dir string) {
	for i := range 300 {
		must(t, os.WriteFile(fmt.Sprintf("%s/a name that takes some room %03d", dir, i), nil, 0o600))
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	list := func() string {
		var all []byte
		buf := make([]byte, 1000)
		for {
			n, err := unix.Getdents(fd, buf)
			must(t, err)
			if n == 0 {
				return string(all)
			}
			_, _, names := unix.ParseDirent(buf[:n], -1, nil)
			all = append(all, strings.Join(names, "\n")...)
			all = append(all, '\n')
		}
	}
	first := list()
	if got := strings.Count(first, "\n"); got != 300 {
		t.Errorf("%d names, want 300", got)
	}
	_, err = unix.Seek(fd, 0, io.SeekStart)
	must(t, err)
	if again := list(); again != first {
		t.Error("rewinddir lists something else")
	}
	// A file that came is seen after a rewind.
	must(t, os.WriteFile(dir+"/zzz", nil, 0o600))
	_, err = unix.Seek(fd, 0, io.SeekStart)
	must(t, err)
	if again := list(); again != first+"zzz\n" {
		t.Error("after a rewind a new file is not listed")
	}
}

// posixMmap has another process write through a shared map.
func posixMmap(t *testing.T, dir string) {
	must(t, os.WriteFile(dir+"/f", bytes.Repeat([]byte("."), 10_000), 0o600))
	if err := child(t, "mmap "+dir+"/f").Run(); err != nil {
		t.Fatalf("the child: %v", err)
	}
	got, err := os.ReadFile(dir + "/f")
	must(t, err)
	if string(got[:2]) != "A." || string(got[5000:5002]) != "B." || string(got[9999]) != "C" || len(got) != 10_000 {
		t.Errorf("what was written through a map is not there: %q %q %q", got[:2], got[5000:5002], got[9998:])
	}
}

// childMmap writes to a file through a map, in part after closing it.
func childMmap(path string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	fail(err)
	mem, err := unix.Mmap(fd, 0, 10_000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	fail(err)
	mem[0] = 'A'
	fail(unix.Msync(mem, unix.MS_SYNC))
	mem[5000] = 'B'
	fail(unix.Close(fd))
	mem[9999] = 'C'
	fail(unix.Munmap(mem))
	os.Exit(0)
}

func posixDirect(t *testing.T, dir string) {
	const size = 64 << 10
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	must(t, err)
	defer unix.Munmap(mem)
	fd, err := unix.Open(dir+"/f", unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o600)
	must(t, err)
	defer unix.Close(fd)
	copy(mem, bytes.Repeat([]byte("direct"), size/6))
	n, err := unix.Pwrite(fd, mem, 0)
	if n != size || err != nil {
		t.Fatalf("a direct write: %d, %v", n, err)
	}
	content(t, dir+"/f", string(mem))
	clear(mem)
	if n, err := unix.Pread(fd, mem, 4096); n != size-4096 || err != nil || !bytes.HasPrefix(mem, []byte("ctdirect")) {
		t.Errorf("a direct read: %d, %v, %q", n, err, mem[:12])
	}
}

// posixLocks checks that locks within the mount are the kernel's own.
func posixLocks(t *testing.T, dir string) {
	a, err := os.Create(dir + "/f")
	must(t, err)
	defer a.Close()
	b, err := os.OpenFile(dir+"/f", os.O_RDWR, 0)
	must(t, err)
	defer b.Close()
	must(t, unix.Flock(int(a.Fd()), unix.LOCK_EX))
	want(t, "a second flock", unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK)
	must(t, unix.Flock(int(a.Fd()), unix.LOCK_UN))
	want(t, "flock after unlock", unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB), 0)
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: 0, Len: 10}
	must(t, unix.FcntlFlock(a.Fd(), unix.F_OFD_SETLK, &lock))
	want(t, "a second fcntl lock", unix.FcntlFlock(b.Fd(), unix.F_OFD_SETLK, &lock), syscall.EAGAIN)
	lock.Start = 10
	want(t, "a lock beside it", unix.FcntlFlock(b.Fd(), unix.F_OFD_SETLK, &lock), 0)
}

// posixBlocks checks attributes that change without the kernel's knowing: when
// written data is stored.
func posixBlocks(t *testing.T, dir string) {
	f, err := os.Create(dir + "/f")
	must(t, err)
	_, err = f.Write(make([]byte, 1<<20))
	must(t, err)
	stat(t, dir+"/f") // gives the kernel attributes to remember
	must(t, f.Sync())
	if st := stat(t, dir+"/f"); st.Blocks != 1<<20/512 {
		t.Errorf("after fsync %d blocks, want %d", st.Blocks, 1<<20/512)
	}
	_, err = f.Write(make([]byte, 1<<20))
	must(t, err)
	stat(t, dir+"/f")
	must(t, f.Close())
	if st := stat(t, dir+"/f"); st.Blocks != 2<<20/512 {
		t.Errorf("after close %d blocks, want %d", st.Blocks, 2<<20/512)
	}
}

func posixDirectories(t *testing.T, dir string) {
	must(t, os.MkdirAll(dir+"/a/b/c", 0o700))
	want(t, "rmdir of a full one", syscall.Rmdir(dir+"/a"), syscall.ENOTEMPTY)
	want(t, "unlink of one", syscall.Unlink(dir+"/a/b/c"), syscall.EISDIR)
	must(t, os.WriteFile(dir+"/a/f", nil, 0o600))
	want(t, "rmdir of a file", syscall.Rmdir(dir+"/a/f"), syscall.ENOTDIR)
	if st := stat(t, dir+"/a"); st.Nlink != 3 {
		t.Errorf("a directory with one in it has %d links", st.Nlink)
	}
	must(t, os.Remove(dir+"/a/b/c"))
	if st := stat(t, dir+"/a/b"); st.Nlink != 2 {
		t.Errorf("an empty directory has %d links", st.Nlink)
	}
	// The numbers of readdir, of "." and ".." too, are those of stat.
	fd, err := unix.Open(dir+"/a", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	inos := dirents(t, fd)
	for name, path := range map[string]string{".": dir + "/a", "..": dir, "b": dir + "/a/b", "f": dir + "/a/f"} {
		if st := stat(t, path); inos[name] != st.Ino {
			t.Errorf("%s is number %d in readdir and %d in stat", name, inos[name], st.Ino)
		}
	}
	must(t, unix.Fsync(fd))
	// A directory that is somebody's working directory can be removed.
	gone, err := os.Open(dir + "/a/b")
	must(t, err)
	must(t, os.Remove(dir+"/a/b"))
	if names, err := gone.Readdirnames(-1); err != nil && !errors.Is(err, syscall.ENOENT) || len(names) > 0 {
		t.Errorf("a directory that was removed lists %q, %v", names, err)
	}
	must(t, gone.Close())
}

// dirents returns the inode numbers that readdir gives.
func dirents(t *testing.T, fd int) map[string]uint64 {
	t.Helper()
	inos := make(map[string]uint64)
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		must(t, err)
		if n == 0 {
			return inos
		}
		for b := buf[:n]; len(b) > 0; {
			reclen := int(b[16]) | int(b[17])<<8
			name, _, _ := bytes.Cut(b[19:reclen], []byte{0})
			var ino uint64
			for i := range 8 {
				ino |= uint64(b[i]) << (8 * i)
			}
			inos[string(name)] = ino
			b = b[reclen:]
		}
	}
}

func posixStatx(t *testing.T, dir string) {
	before := time.Now().Add(-time.Second)
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o600))
	var sx unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, dir+"/f", 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &sx))
	if born := time.Unix(sx.Btime.Sec, int64(sx.Btime.Nsec)); sx.Mask&unix.STATX_BTIME == 0 || born.Before(before) || born.After(time.Now().Add(time.Second)) {
		t.Errorf("born %v, mask %#x", born, sx.Mask)
	}
	if sx.Size != 1 || sx.Mode != syscall.S_IFREG|0o600 {
		t.Errorf("statx: %+v", sx)
	}
}

func posixCopy(t *testing.T, dir string) {
	data := bytes.Repeat([]byte("copy"), 1<<18)
	must(t, os.WriteFile(dir+"/a", data, 0o600))
	if out, err := exec.Command("cp", dir+"/a", dir+"/b").CombinedOutput(); err != nil { // by copy_file_range, if it can
		t.Fatalf("cp: %v: %s", err, out)
	}
	content(t, dir+"/b", string(data))
}

// posixGone asks for a file that has no name left, by a descriptor that does
// not keep it open.
func posixGone(t *testing.T, dir string) {
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o600))
	fd, err := unix.Open(dir+"/f", unix.O_PATH, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, os.Remove(dir+"/f"))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil && err != unix.ENOENT && err != unix.ESTALE || err == nil && st.Nlink != 0 {
		t.Errorf("fstat: %v, %d links", err, st.Nlink)
	}
}
