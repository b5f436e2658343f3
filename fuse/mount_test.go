package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/fuse/vfs"
	"dos/meta"
	"dos/procfs"
	"dos/procfs/cluster"
)

// The test binary also plays programs that use or serve a mount: this process
// must not map files of a mount that it serves itself, and cannot kill itself.
const childEnv = "DOS_FUSE_TEST_CHILD"

func TestMain(m *testing.M) {
	syscall.Umask(0) // as the program does
	switch role, arg, _ := strings.Cut(os.Getenv(childEnv), " "); role {
	case "":
		os.Exit(m.Run())
	case "serve":
		childServe(arg)
	case "mmap":
		childMmap(arg)
	case "lock":
		childLock(arg)
	case "storm":
		childStorm(arg)
	default:
		fmt.Fprintf(os.Stderr, "no role %q\n", role)
		os.Exit(2)
	}
}

// child starts this binary in a role.
func child(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

func needFuse(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount without fusermount3")
	}
}

// A mount is a mount over services in memory.
type mount struct {
	dir     string
	meta    *memMeta
	journal *cluster.Journal
	last    *cluster.LastError
	server  *Server
}

type journalOnly struct{ *cluster.Journal }

func (journalOnly) Status(context.Context) (cluster.Status, error) {
	return cluster.Status{Version: "test", Code: "4+2", Meta: cluster.Metadata{Leader: "n", Members: 1, Alive: 1}}, nil
}

// noSettings is a cluster.Settings without any.
type noSettings struct{}

func (noSettings) Settings(context.Context) ([]cluster.Setting, error) { return nil, nil }

func (noSettings) Configure(context.Context, string, string) error { return meta.NotExist }

// serve mounts at dir and returns a function that unmounts, stops the stored
// tree and says what went wrong.
func serve(dir string, edit func(*Config)) (m *mount, stop func() error, err error) {
	m = &mount{dir: dir, meta: newMemMeta(), journal: new(cluster.Journal), last: new(cluster.LastError)}
	log := slog.New(slog.DiscardHandler)
	tree := vfs.New(vfs.Config{Meta: m.meta, Data: newMemData(), Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- tree.Run(ctx) }()

	mux := new(procfs.Mux)
	mux.Mount("cluster", cluster.New(cluster.Parts{
		Cluster: journalOnly{m.journal}, Settings: noSettings{}, Metrics: func(context.Context) (string, error) { return "", nil },
		Self: cluster.Self{Node: "n", Session: func() meta.SessionID { return 7 }, Error: m.last, Locks: func() string { return "" }, Tasks: func(context.Context, uint32) (string, error) { return "", nil }},
	}))
	cfg := Config{MountPoint: dir, FS: tree, Special: mux, Failed: m.last.Record, Log: log}
	if edit != nil {
		edit(&cfg)
	}
	m.server, err = Mount(ctx, cfg)
	if err != nil {
		cancel()
		<-ran
		return nil, nil, err
	}
	return m, func() error {
		bound, done := context.WithTimeout(context.Background(), 2*time.Second)
		defer done()
		err := m.server.Unmount(bound)
		cancel()
		return errors.Join(err, <-ran)
	}, nil
}

// mountHere mounts for the time of the test.
func mountHere(t testing.TB, edit func(*Config)) *mount {
	t.Helper()
	needFuse(t)
	dir := t.TempDir()
	m, stop, err := serve(dir, edit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("unmounting: %v", err)
			detach(dir)
		}
	})
	return m
}

func TestMountTable(t *testing.T) {
	m := mountHere(t, func(c *Config) { c.Options = options(t, "noatime,fsname=my dos") })
	got, ok, err := mountedAt(m.dir)
	if err != nil || !ok || got.fstype != Type || got.source != "my dos" {
		t.Errorf("in the mount table: %+v, %v, %v", got, ok, err)
	}
	var st unix.Statfs_t
	must(t, unix.Statfs(m.dir, &st))
	if st.Flags&(unix.ST_NODEV|unix.ST_NOSUID|unix.ST_RDONLY) != 0 || st.Flags&unix.ST_NOATIME == 0 {
		t.Errorf("flags of the mount are %#x", st.Flags)
	}
	if st.Blocks*uint64(st.Bsize) != memCapacity || st.Bavail*uint64(st.Bsize) != memCapacity/2 || st.Namelen != 255 || st.Files == 0 {
		t.Errorf("statfs: %+v", st)
	}
	if text, err := os.ReadFile("/proc/mounts"); err != nil || !strings.Contains(string(text), "default_permissions,allow_other") {
		t.Errorf("the kernel does not check permissions for all users: %v", err)
	}
	if text, err := os.ReadFile("/sys/class/bdi/" + got.device + "/read_ahead_kb"); err == nil && string(text) != "4096\n" {
		t.Errorf("the kernel reads %q KiB ahead", text)
	}
	// The connection must not outlive this process in a program that it starts.
	out, err := exec.Command("sh", "-c", "ls -l /proc/self/fd").CombinedOutput()
	if err != nil || strings.Contains(string(out), "/dev/fuse") {
		t.Errorf("a program that we start inherits the connection: %s %v", out, err)
	}
}

func options(t testing.TB, list string) Options {
	t.Helper()
	o, err := ParseOptions(list)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestReadOnly(t *testing.T) {
	m := mountHere(t, func(c *Config) { c.Options = options(t, "ro") })
	if err := os.WriteFile(m.dir+"/f", nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing to a read-only mount: %v", err)
	}
}

func TestMountTwice(t *testing.T) {
	m := mountHere(t, nil)
	_, _, err := serve(m.dir, nil)
	if err == nil || !strings.Contains(err.Error(), "already mounted (dos, type fuse.dos)") {
		t.Errorf("mounting over a mount: %v", err)
	}
}

// TestMadePoint also checks that umount(8) ends the server as Unmount does.
func TestMadePoint(t *testing.T) {
	needFuse(t)
	dir := t.TempDir() + "/made/here"
	m, stop, err := serve(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o644))
	must(t, unmount(dir))
	m.server.Wait()
	must(t, stop())
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the mount point that was made is still there: %v", err)
	}
}

// TestBusy unmounts what is in use: it is detached after the bound.
func TestBusy(t *testing.T) {
	needFuse(t)
	dir := t.TempDir()
	m, stop, err := serve(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(dir + "/f")
	must(t, err)
	bound, done := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer done()
	if err := m.server.Unmount(bound); err != nil && !errors.Is(err, ErrBusy) {
		t.Errorf("unmounting: %v", err)
	}
	if _, ok, _ := mountedAt(dir); ok {
		t.Error("still in the mount table")
	}
	if _, err := file.WriteString("late"); err == nil {
		t.Error("a write after the end succeeded: it would be lost")
	}
	file.Close()
	must(t, stop())
}

// TestCopied unmounts what another mount namespace has a copy of.
func TestCopied(t *testing.T) {
	needFuse(t)
	if os.Geteuid() != 0 {
		t.Skip("not root: no mount namespace can be made")
	}
	dir := t.TempDir()
	m, stop, err := serve(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("unshare", "--mount", "--propagation", "private", "cat")
	in, err := other.StdinPipe()
	must(t, err)
	out, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	defer other.Wait()
	defer in.Close()
	in.Write([]byte("x"))
	if _, err := out.Read(make([]byte, 1)); err != nil { // now there is the namespace
		t.Fatal(err)
	}
	bound, done := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer done()
	ended := make(chan error, 1)
	go func() { ended <- m.server.Unmount(bound) }()
	select {
	case err := <-ended:
		if err != nil && !errors.Is(err, ErrBusy) {
			t.Errorf("unmounting: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a mount of somebody else")
	}
	if _, ok, _ := mountedAt(dir); ok {
		t.Error("still in the mount table")
	}
	must(t, in.Close())
	must(t, stop())
}

// TestStale kills the process that serves a mount. The next one clears it.
func TestStale(t *testing.T) {
	needFuse(t)
	dir := t.TempDir()
	defer detach(dir)
	cmd := child(t, "serve "+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if _, err := out.Read(make([]byte, 1)); err != nil { // it writes when it has mounted
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/cluster"); err != nil {
		t.Errorf("the child does not serve: %v", err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	if _, err := os.ReadDir(dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("after the kill readdir says %v, want ENOTCONN", err)
	}
	m, stop, err := serve(dir, nil)
	if err != nil {
		t.Fatalf("mounting over a dead mount: %v", err)
	}
	if err := os.WriteFile(m.dir+"/f", []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	must(t, stop())
	if _, ok, _ := mountedAt(dir); ok {
		t.Error("there is still a mount below")
	}
}

func childServe(dir string) {
	_, _, err := serve(dir, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.WriteString("m")
	select {}
}

// TestDeadForeign leaves the dead mounts of others alone.
func TestDeadForeign(t *testing.T) {
	needFuse(t)
	dir := t.TempDir()
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	must(t, err)
	must(t, syscall.Mount("other", dir, "fuse.other", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)))
	defer detach(dir)
	must(t, syscall.Close(fd))
	_, _, err = serve(dir, nil)
	if err == nil || !strings.Contains(err.Error(), "type fuse.other") || !strings.Contains(err.Error(), "umount -l") {
		t.Errorf("mounting over the dead mount of another: %v", err)
	}
	if m, ok, _ := mountedAt(dir); !ok || m.fstype != "fuse.other" {
		t.Error("it was taken away")
	}
}

// TestSubtree mounts one directory as a plain file system.
func TestSubtree(t *testing.T) {
	needFuse(t)
	dir := t.TempDir()
	shared := newMemMeta()
	sub, err := shared.Create(t.Context(), meta.Root, "sub", meta.Node{Mode: meta.TypeDir | 0o755})
	must(t, err)
	tree := vfs.New(vfs.Config{Meta: shared, Data: newMemData(), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- tree.Run(ctx) }()
	server, err := Mount(ctx, Config{MountPoint: dir, FS: tree, Root: sub.Ino})
	must(t, err)
	defer func() {
		if err := server.Unmount(ctx); err != nil {
			t.Error(err)
			detach(dir)
		}
		cancel()
		must(t, <-ran)
	}()
	must(t, os.MkdirAll(dir+"/cluster/deep", 0o755)) // reserved in the root of all only
	must(t, os.WriteFile(dir+"/cluster/deep/f", []byte("x"), 0o644))
	must(t, os.Rename(dir+"/cluster/deep/f", dir+"/f"))
	if _, err := shared.Lookup(t.Context(), sub.Ino, "f"); err != nil {
		t.Errorf("not in the directory that is mounted: %v", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Sys().(*syscall.Stat_t).Ino != uint64(sub.Ino) {
		t.Errorf("the root is %+v, %v", info, err)
	}
}
