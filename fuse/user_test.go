package fuse

import (
	"bytes"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOrdinaryUser mounts as somebody who is not root, through fusermount3,
// kills the server, and mounts again over what it left.
func TestOrdinaryUser(t *testing.T) {
	needFuse(t)
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Skip("needs fusermount3 (package fuse3)")
	}
	if info, err := os.Stat("/dev/fuse"); err != nil || info.Mode().Perm()&0o006 != 0o006 {
		t.Skip("needs /dev/fuse open to ordinary users: chmod 666 /dev/fuse")
	}
	const uid, gid = 65534, 65534 // nobody: fusermount3 wants a user that has a name
	if _, err := user.LookupId("65534"); err != nil {
		t.Skip("needs the user nobody")
	}
	base, err := os.MkdirTemp("", "dos-user-")
	must(t, err)
	dir := filepath.Join(base, "mine", "m")
	t.Cleanup(func() {
		detach(dir)
		os.RemoveAll(base)
	})
	must(t, os.Chmod(base, 0o755))
	must(t, os.Mkdir(base+"/mine", 0o755))
	must(t, os.Chown(base+"/mine", uid, gid))
	must(t, os.MkdirAll(base+"/roots/m", 0o755))

	start := func(dir string) (cmd *exec.Cmd, started bool, stderr *bytes.Buffer) {
		cmd = child(t, "serve "+dir)
		cmd.Dir = "/"
		stderr = new(bytes.Buffer)
		cmd.Stderr = stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		n, _ := out.Read(make([]byte, 1))
		return cmd, n == 1, stderr
	}
	for range 2 { // the second finds a dead mount
		cmd, ok, stderr := start(dir)
		if !ok {
			cmd.Wait()
			t.Fatalf("an ordinary user cannot mount: %s", stderr)
		}
		m, found, err := mountedAt(dir)
		if err != nil || !found || m.fstype != Type || m.source != "dos" {
			t.Errorf("in the mount table: %+v, %v, %v", m, found, err)
		}
		if _, err := os.ReadDir(dir); err == nil {
			t.Error("others may look into it, though nobody said allow_other")
		}
		ls := exec.Command("ls", dir)
		ls.Dir = "/"
		ls.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		if out, err := ls.CombinedOutput(); err != nil || string(out) != "cluster\n" {
			t.Errorf("its user sees %q, %v", out, err)
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
	}
	must(t, detach(dir))

	for point, want := range map[string]string{
		base + "/roots/m": "is not yours to write in",
		base + "/roots/n": "cannot be made: permission denied",
	} {
		cmd, ok, stderr := start(point)
		if ok {
			cmd.Process.Kill()
			detach(point)
		}
		cmd.Wait()
		if ok || !strings.Contains(stderr.String(), want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("mounting at %s: %v, %q, want one line with %q", point, ok, stderr, want)
		}
	}
	if err := unix.Access(base+"/roots/m", unix.F_OK); err != nil {
		t.Errorf("a mount point that was refused was touched: %v", err)
	}
}
