package fault

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dos/test/cluster"
)

// TestBadInput asks dosmount for what cannot be. Each time: the exit status,
// one line that says what is wrong, nothing mounted, nothing touched.
func TestBadInput(t *testing.T) {
	cluster.NeedFuse(t)
	root := os.Geteuid() == 0
	dir := cluster.Dir(t)
	in := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Two clusters to be wrong about: one that runs, one that does not.
	m := cluster.Start(t, in("busy"))
	made := cluster.Start(t, in("made"))
	made.Stop(t)
	must(os.Mkdir(in("empty"), 0o755))
	must(os.MkdirAll(in("full", "inside"), 0o755))
	must(os.WriteFile(in("file"), []byte("a file"), 0o644))
	must(os.MkdirAll(in("newer"), 0o755))
	must(os.WriteFile(in("newer", "format"), []byte("dos-data 999\nfuture yes\n"), 0o600))
	must(os.Mkdir(in("strange"), 0o755))
	must(os.WriteFile(in("strange", "thesis.tex"), []byte("years of work"), 0o644))
	must(os.Mkdir(in("locked"), 0o700))
	must(os.Mkdir(in("mine"), 0o755))
	if root {
		must(os.Chown(in("mine"), cluster.Nobody, cluster.Nobody))
	}
	mount := func(args ...string) []string { return append([]string{"--data", in("new")}, args...) }
	for _, c := range []struct {
		name string
		args []string
		code int
		says string // part of the line
		user bool   // as an ordinary user
	}{
		{"no mount point", mount(), 2, "mount point", false},
		{"two mount points", mount(in("empty"), in("empty")), 2, "mount point", false},
		{"unknown flag", mount("--nonsense", in("empty")), 2, "nonsense", false},
		{"flag without value", []string{in("empty"), "--data"}, 2, "data", false},
		{"unknown mount option", mount("-o", "nonsense", in("empty")), 2, "nonsense", false},
		{"code of words", mount("--ec", "many", in("empty")), 2, "--ec", false},
		{"code without parity", mount("--ec", "4+0", in("empty")), 2, "--ec", false},
		{"code without data", mount("--ec", "0+2", in("empty")), 2, "--ec", false},
		{"code with a tail", mount("--ec", "4+2x", in("empty")), 2, "--ec", false},
		{"code too large", mount("--ec", "200+100", in("empty")), 2, "--ec", false},
		{"mount point is a file", mount(in("file")), 1, in("file"), false},
		{"mount point below a file", mount(in("file", "x")), 1, in("file"), false},
		{"mount point is not empty", mount(in("full")), 1, "empty", false},
		{"mount point is in use", mount(m.Point), 1, "mounted", false},
		{"data is in use", []string{"--data", in("busy"), in("empty")}, 1, "in use", false},
		{"data of another code", []string{"--data", in("made"), "--ec", "2+1", in("empty")}, 1, "4+2", false},
		{"data of a newer format", []string{"--data", in("newer"), in("empty")}, 1, "newer", false},
		{"data is a file", []string{"--data", in("file"), in("empty")}, 1, in("file"), false},
		{"data is something else", []string{"--data", in("strange"), in("empty")}, 1, in("strange"), false},
		{"mount point is another's", []string{"--data", in("mine", "data"), in("empty")}, 1, in("empty"), true},
		{"data is another's", []string{"--data", in("made"), in("mine")}, 1, in("made"), true},
		{"data is out of reach", []string{"--data", in("locked", "data"), in("mine")}, 1, in("locked"), true},
		{"data cannot be made", []string{"--data", in("empty", "data"), in("mine")}, 1, in("empty"), true},
	} {
		if c.user && !root {
			continue // only root can act as another
		}
		before := snapshot(t, dir)
		start := cluster.Run
		if c.user {
			start = cluster.RunOrdinary
		}
		// In the background it is refused in the same way.
		for name, args := range map[string][]string{c.name: c.args, c.name + ", -d": append([]string{"-d"}, c.args...)} {
			r := start(t, cluster.Bin("dosmount"), args...)
			refusal(t, name, r, c.code, c.says)
			if after := snapshot(t, dir); !maps.Equal(before, after) {
				t.Errorf("%s: touched what was there:\n%s", name, difference(before, after))
			}
		}
		for _, point := range []string{in("empty"), in("full"), in("mine")} {
			if on, err := cluster.Mounted(point); on || err != nil {
				t.Errorf("%s: %s is mounted (%v)", c.name, point, err)
			}
		}
	}
	// Nobody disturbed the one that runs.
	must(os.WriteFile(m.Path("f"), []byte("works"), 0o644))
}

// TestNoFuse runs where /dev/fuse is missing, something else, or closed. It is
// found out before anything is made, and the message says what to do.
func TestNoFuse(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.NeedRoot(t)
	cluster.Need(t, "unshare", "mount", "mknod", "setpriv")
	const asNobody = `exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"`
	for _, c := range []struct {
		name, script string // of a shell in a mount namespace of its own; the command is "$@"
		says         []string
	}{
		{"missing", `mount -t tmpfs tmpfs /dev; exec "$@"`, []string{"there is no /dev/fuse", "modprobe fuse"}},
		{"a file", `mount -t tmpfs tmpfs /dev; : >/dev/fuse; exec "$@"`, []string{"/dev/fuse is something else", "mknod"}},
		{"another device", `mount --bind /dev/null /dev/fuse; exec "$@"`, []string{"/dev/fuse is something else", "1:3", "mknod"}},
		{"closed", `mount -t tmpfs tmpfs /dev; mknod -m 600 /dev/fuse c 10 229; ` + asNobody, []string{"/dev/fuse is closed", "chmod 666"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := cluster.Dir(t)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			r := cluster.Run(t, "unshare", "-m", "/bin/sh", "-e", "-c", c.script, "sh",
				cluster.Bin("dosmount"), "--data", filepath.Join(dir, "data"), filepath.Join(dir, "m"))
			for _, part := range c.says {
				refusal(t, c.name, r, 1, part)
			}
			if list, err := os.ReadDir(dir); len(list) > 0 || err != nil {
				t.Errorf("made %v (%v)", list, err)
			}
		})
	}
}

// TestHelp holds the commands to what a newcomer tries first.
func TestHelp(t *testing.T) {
	const screen = 24 // lines
	for _, name := range []string{"dosmount", "dosctl"} {
		r := cluster.Run(t, cluster.Bin(name), "--help")
		if r.Code != 0 || r.Stderr != "" || !strings.Contains(r.Stdout, "example") || strings.Count(r.Stdout, "\n") > screen {
			t.Errorf("%s --help: exit status %d, %d lines, want 0, an example and at most %d\n%s%s", name, r.Code, strings.Count(r.Stdout, "\n"), screen, r.Stdout, r.Stderr)
		}
		r = cluster.Run(t, cluster.Bin(name), "--version")
		if r.Code != 0 || strings.Count(r.Stdout, "\n") != 1 || !strings.HasPrefix(r.Stdout, name+" ") {
			t.Errorf("%s --version: exit status %d, %q", name, r.Code, r.Stdout)
		}
	}
	for _, args := range [][]string{{}, {"nonsense"}, {"--nonsense"}, {"status", "extra"}} {
		refusal(t, fmt.Sprintf("dosctl %q", args), cluster.Run(t, cluster.Bin("dosctl"), args...), 2, "")
	}
	refusal(t, "dosctl on nothing", cluster.Run(t, cluster.Bin("dosctl"), "--data", "/nowhere", "status"), 1, "/nowhere")
}

// refusal checks the form of a refusal.
func refusal(t *testing.T, name string, r cluster.Result, code int, says string) {
	t.Helper()
	if r.Code != code || strings.Count(strings.TrimSpace(r.Stderr), "\n") != 0 || !strings.Contains(r.Stderr, says) || r.Stderr == "" || r.Stdout != "" {
		t.Errorf("%s: exit status %d, want %d; it must say one line with %q\nstandard error: %s\nstandard output: %s", name, r.Code, code, says, r.Stderr, r.Stdout)
	}
}

// hashBelow is the size in bytes from which a snapshot does without the contents.
const hashBelow = 1 << 20

// snapshot describes everything below dir, but what a running dos changes all
// the time and what is behind mounts.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == filepath.Join(dir, "busy") {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		desc := fmt.Sprint(info.Mode(), info.ModTime(), info.Size())
		if d.Type().IsRegular() && info.Size() < hashBelow {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			desc += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		all[path] = desc
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func difference(before, after map[string]string) string {
	var b strings.Builder
	for path, desc := range before {
		if after[path] != desc {
			fmt.Fprintf(&b, "%s: %s became %q\n", path, desc, after[path])
		}
	}
	for path, desc := range after {
		if _, ok := before[path]; !ok {
			fmt.Fprintf(&b, "%s: new: %s\n", path, desc)
		}
	}
	return b.String()
}
