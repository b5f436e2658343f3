package machines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dos/test/cluster"
)

// TestScript goes through what the README has a newcomer type: three machines,
// one dies and comes back, one more joins and is taken out again.
func TestScript(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.NeedRoot(t)
	cluster.Need(t, "ip", "nsenter", "setsid", "mountpoint", "awk", "bash")
	const script = "../../deploy/three-machines.sh"
	dir := filepath.Join(cluster.Dir(t), "three")
	t.Setenv("DIR", dir)
	// Of its own, so that a test may run beside another and beside the script itself.
	t.Setenv("TAG", fmt.Sprintf("t%d", os.Getpid()%10000))
	t.Setenv("NET", fmt.Sprintf("10.%d.%d", 100+os.Getpid()>>8%100, os.Getpid()%256))
	t.Setenv("PATH", filepath.Dir(cluster.Bin("dosd"))+":"+os.Getenv("PATH"))
	do := func(args ...string) string {
		t.Helper()
		r := cluster.Run(t, script, args...)
		if r.Code != 0 {
			t.Fatalf("%s %s: exit status %d\n%s%s", script, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		}
		return r.Stdout
	}
	t.Cleanup(func() {
		if out, err := exec.Command(script, "down").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is there still", dir)
		}
	})
	if out := do("up"); !strings.Contains(out, "health    ok") || !strings.Contains(out, "3 of 3 members answer, 1 may be lost") {
		t.Errorf("up says\n%s", out)
	}
	write := func(mount, name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, mount, name), []byte(strings.Repeat(name, 10_000)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(mount, name string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, mount, name))
		if err != nil || string(b) != strings.Repeat(name, 10_000) {
			t.Errorf("mount %s: %s has %d bytes, %v", mount, name, len(b), err)
		}
	}
	write("1", "before")
	read("2", "before")
	do("kill", "c")
	write("2", "without")
	read("1", "without")
	do("start", "c")
	if out := do("join", "d"); !strings.Contains(out, "\nd ") {
		t.Errorf("join says\n%s", out)
	}
	if out := do("drain", "d"); strings.Contains(out, "\nd  ") {
		t.Errorf("drain says\n%s", out)
	}
	read("1", "before")
	read("2", "without")
	if out := do("ctl", "fsck", "--verify"); !strings.HasSuffix(out, "clean\n") {
		t.Errorf("fsck says\n%s", out)
	}
	if r := cluster.Run(t, script, "fly"); r.Code != 2 || !strings.Contains(r.Stdout, "three-machines.sh up") {
		t.Errorf("wrong use: exit status %d, %s", r.Code, r.Stdout)
	}
}
