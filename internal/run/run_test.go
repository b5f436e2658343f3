package run

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/internal/boottime"
)

func TestEnds(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		for _, test := range []struct {
			spec Spec
			want string
			out  string
		}{
			{Spec{Script: []byte("echo out; echo err >&2; exit 3\n")}, "exit 3", "out\nerr\n"},
			{Spec{Argv: []string{"echo", "a b", "c"}}, "exit 0", "a b c\n"},
			{Spec{Argv: []string{"/bin/sh", "-c", "kill -9 $$"}}, "signal killed", ""},
			{Spec{Script: []byte("#!/bin/cat\ntext\n")}, "exit 0", "#!/bin/cat\ntext\n"},
			{Spec{Script: []byte("#! /usr/bin/awk  -f \nBEGIN { print \"one argument\" }\n")}, "exit 0", "one argument\n"},
			{Spec{Script: []byte("echo $X-$HOME-$#; pwd"), Env: []string{"X=1"}, Dir: "/usr"}, "exit 0", "1--0\n/usr\n"},
			{Spec{Script: []byte("cat; test -t 0 || echo end")}, "exit 0", "end\n"},
			{Spec{Script: []byte("kill -TERM $$; sleep 9")}, "signal terminated", ""},
			{Spec{Script: []byte("ps -o sid= -p $$ | grep -qw $$ && ps -o pgid= -p $$ | grep -qw $$ && echo leads")}, "exit 0", "leads\n"},
			{Spec{Script: []byte("sleep 0.1 & sleep 0.1 & wait; echo both")}, "exit 0", "both\n"},
		} {
			r := begin(t, h, test.spec)
			end := r.wait(t)
			if got := r.text(t); end.String() != test.want || got != test.out {
				t.Errorf("%s%q: %v, %q; want %s, %q", test.spec.Script, test.spec.Argv, end, got, test.want, test.out)
			}
			if end.Usage.Wall <= 0 || end.Usage.Memory <= 0 {
				t.Errorf("%s%q: used %+v", test.spec.Script, test.spec.Argv, end.Usage)
			}
		}
	})
}

// A task has the rights of its user and no others.
func TestUser(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755|os.ModeSticky&modeOf(t, d)); err != nil {
			t.Fatal(err)
		}
	}
	mine, closed := filepath.Join(dir, "mine"), filepath.Join(dir, "closed")
	for path, mode := range map[string]os.FileMode{mine: 0o777, closed: 0o700} {
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	user := &User{UID: 65534, GID: 65533, Groups: []uint32{65532, 7}, Umask: 0o027}
	each(t, func(t *testing.T, h *Host) {
		r := begin(t, h, Spec{User: user, Dir: mine, Script: []byte("id -u; id -g; id -G; touch f; stat -c %a f; ls ../closed; rm f")})
		if end, got := r.wait(t), r.text(t); !strings.HasPrefix(got, "65534\n65533\n65533 7 65532\n640\nls: ") || end.Code != 0 {
			t.Errorf("%v, it said %q", end, got)
		}
		_, err := h.Start(Spec{ID: "t2", User: user, Dir: closed, Argv: []string{"/bin/true"}, Until: forever()})
		if !errors.Is(err, ErrStart) || !strings.Contains(err.Error(), closed) {
			t.Errorf("in a directory of another: %v", err)
		}
		if f, err := OpenAs(user, filepath.Join(closed, "x"), os.O_CREATE|os.O_WRONLY, 0o600); !errors.Is(err, os.ErrPermission) {
			t.Errorf("opening another's: %v, %v", f, err)
		}
		f, err := OpenAs(user, filepath.Join(mine, "y"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != user.UID {
			t.Errorf("opened as the user: %+v, %v", info.Sys(), err)
		}
	})
	if os.Geteuid() != 0 {
		t.Error("the process has become another user")
	}
}

func modeOf(t *testing.T, path string) os.FileMode {
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestRefused(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		for _, test := range []struct {
			spec Spec
			want string
		}{
			{Spec{Argv: []string{"/no/such"}}, "/no/such: no such file"},
			{Spec{Argv: []string{"nosuchprogram"}}, "nowhere in PATH"},
			{Spec{Argv: []string{"/etc/passwd"}}, "/etc/passwd: permission denied"},
			{Spec{Argv: []string{"/bin/true"}, Dir: "/no/dir"}, "/no/dir: no such file"},
			{Spec{Script: []byte("#!/no/interpreter\n")}, "/no/interpreter: no such file"},
			{Spec{Script: []byte("#!python3\n")}, "not a path from /"},
			{Spec{Script: []byte("#!\n")}, "not a path from /"},
			{Spec{}, "either a program or a script"},
			{Spec{ID: "../x", Argv: []string{"/bin/true"}}, "bad id"},
			{Spec{ID: "..", Argv: []string{"/bin/true"}}, "bad id"},
			{Spec{Argv: []string{"/bin/true\x00"}}, "zero byte"},
		} {
			if test.spec.ID == "" {
				test.spec.ID = "t1"
			}
			test.spec.Until = forever()
			_, err := h.Start(test.spec)
			if !errors.Is(err, ErrStart) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s%q in %q: %v; want ErrStart with %q", test.spec.Script, test.spec.Argv, test.spec.Dir, err, test.want)
			}
		}
	})
}

// What gets away from its parent, its session and its group ends with the task.
const escape = `setsid sh -c '(trap "" TERM HUP INT; echo away $(exec sh -c "echo \$PPID"); while :; do sleep 0.05; done) & exit' &
wait
`

func TestLeftBehind(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		seen := filepath.Join(t.TempDir(), "seen")
		r := begin(t, h, Spec{Script: []byte(escape + "until test -e " + seen + "; do sleep 0.02; done; exit 4")})
		pid := r.number(t, "away ")
		if err := os.WriteFile(seen, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if end := r.wait(t); end.Code != 4 {
			t.Errorf("%v", end)
		}
		if lives(pid) {
			t.Error("what it left behind lives")
		}
	})
}

func TestKill(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		r := begin(t, h, Spec{Script: []byte("trap '' TERM INT HUP\n" + escape + "echo up; while :; do sleep 0.1; done")})
		pid := r.number(t, "away ")
		r.await(t, "up")
		r.Signal(syscall.SIGTERM)
		if r.Kill(); r.wait(t).Signal != syscall.SIGKILL || !r.End().Killed {
			t.Errorf("%v", r.End())
		}
		if lives(pid) || lives(r.PID()) {
			t.Error("something lives")
		}
	})
}

func TestSignal(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		r := begin(t, h, Spec{Script: []byte("trap 'echo caught; exit 5' USR1; echo up; while :; do sleep 0.1; done")})
		r.await(t, "up")
		r.Signal(syscall.SIGUSR1)
		if end := r.wait(t); end.Code != 5 || !strings.Contains(r.text(t), "caught\n") {
			t.Errorf("%v, %q", end, r.text(t))
		}
	})
}

func TestFreeze(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		r := begin(t, h, Spec{Script: []byte(`sh -c 'while :; do echo x; sleep 0.01; done'; exit`)})
		r.await(t, "x")
		r.Freeze(true)
		var before int
		eventually(t, "standing still", func() bool {
			before = len(r.text(t))
			time.Sleep(200 * time.Millisecond)
			return len(r.text(t)) == before
		})
		r.Freeze(false)
		eventually(t, "going on", func() bool { return len(r.text(t)) > before })
		r.Freeze(true)
		if r.Kill(); r.wait(t).Signal != syscall.SIGKILL {
			t.Errorf("killed while it was frozen: %v", r.End())
		}
	})
}

// The hour comes by itself, and can be put off.
func TestUntil(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		const short = 300 * time.Millisecond
		began := boottime.Now()
		r := begin(t, h, Spec{Script: []byte("trap '' TERM; while :; do sleep 0.1; done"), Until: began + short})
		if end := r.wait(t); !end.Overdue || end.Signal != syscall.SIGKILL {
			t.Errorf("%v", end)
		}
		// A shim with the race detector takes a second to leave.
		if took := boottime.Now() - began; took < short || took > short+10*time.Second {
			t.Errorf("killed after %v", took)
		}
		put, until := filepath.Join(t.TempDir(), "put"), boottime.Now()+3*time.Second
		r = begin(t, h, Spec{Script: []byte("until test -e " + put + "; do sleep 0.02; done; exit 6"), Until: until})
		r.Extend(boottime.Now() + time.Hour)
		eventually(t, "the first hour", func() bool { return boottime.Now() > until+short })
		if err := os.WriteFile(put, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if end := r.wait(t); end.Overdue || end.Code != 6 {
			t.Errorf("put off: %v", end)
		}
		r = begin(t, h, Spec{Argv: []string{"sleep", "60"}, Until: boottime.Now() - time.Second})
		if end := r.wait(t); !end.Overdue {
			t.Errorf("in the past: %v", end)
		}
	})
}

func TestMemory(t *testing.T) {
	const most = 64 << 20
	hog := []byte(`exec awk 'BEGIN { s = "0123456789abcdef"; while (1) s = s s }'`)
	t.Run("cgroups", func(t *testing.T) {
		h := openHost(t, false)
		r := begin(t, h, Spec{Script: hog, Limits: Limits{Memory: most}})
		if end := r.wait(t); !end.OOM || end.Signal != syscall.SIGKILL || end.Usage.Memory < most/2 || end.Usage.Memory > most {
			t.Errorf("%v, used %+v", end, end.Usage)
		}
	})
	t.Run("bare", func(t *testing.T) {
		h := openHost(t, true)
		r := begin(t, h, Spec{Script: hog, Limits: Limits{Memory: most}})
		if end := r.wait(t); end.Code == 0 && end.Signal == 0 || end.Usage.Memory > most {
			t.Errorf("%v, used %+v", end, end.Usage)
		}
		r = begin(t, h, Spec{Script: []byte("ulimit -v"), Limits: Limits{Memory: most}})
		if r.wait(t); r.text(t) != fmt.Sprintln(most>>10) {
			t.Errorf("its limit is %q", r.text(t))
		}
	})
}

// A fork bomb meets its limit, and is killed.
func TestForks(t *testing.T) {
	needRoot(t)
	each(t, func(t *testing.T, h *Host) {
		const most = 40
		// As a user whom nobody else is: without cgroups the limit is the user's.
		r := begin(t, h, Spec{
			Script: []byte("echo up; f() { f & f; }; f"), Limits: Limits{Processes: most},
			User: &User{UID: 61234, GID: 61234},
		})
		r.await(t, "up")
		eventually(t, "a fork that is refused", func() bool { return strings.Contains(strings.ToLower(r.text(t)), "fork") })
		if n := len(below(r.shim.process.Pid)); n > most {
			t.Errorf("it has %d processes, of at most %d", n, most)
		}
		r.Kill()
		r.wait(t)
	})
}

func TestCPU(t *testing.T) {
	h := openHost(t, false)
	r := begin(t, h, Spec{Script: []byte("sh -c 'while :; do :; done' & while :; do :; done"), Limits: Limits{CPU: 0.2}, Until: boottime.Now() + 2*time.Second})
	eventually(t, "usage", func() bool { return r.Usage().CPU > 50*time.Millisecond })
	end := r.wait(t)
	if share := float64(end.Usage.CPU) / float64(end.Usage.Wall); share > 0.3 || share < 0.05 {
		t.Errorf("it had %.2f processors, %+v", share, end.Usage)
	}
}

func TestUsage(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		r := begin(t, h, Spec{Script: []byte(`awk 'BEGIN { for (i = 0; i < 3000000; i++) n += i }'; x=$(head -c 30000000 /dev/zero | tr '\0' x); echo up; read x`), Stdin: pipe(t)})
		r.await(t, "up")
		eventually(t, "cpu", func() bool { return r.Usage().CPU > 50*time.Millisecond })
		r.Kill()
		end := r.wait(t)
		if end.Usage.CPU < 50*time.Millisecond || end.Usage.CPU > end.Usage.Wall*2 || end.Usage.Memory < 20<<20 {
			t.Errorf("used %+v", end.Usage)
		}
	})
}

// Who writes faster than its output is read waits.
func TestSlowReader(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		task := begin(t, h, Spec{Script: []byte("head -c 1000000 /dev/zero && exit 3"), Stdout: w})
		w.Close()
		eventually(t, "a full pipe", func() bool {
			n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
			return err == nil && n == 1<<16
		})
		if n, err := io.Copy(io.Discard, r); n != 1000000 || err != nil {
			t.Errorf("%d bytes came, %v", n, err)
		}
		if end := task.wait(t); end.Code != 3 {
			t.Errorf("%v", end)
		}
	})
}

// pipe is the reading end of a pipe that nobody writes to.
func pipe(t *testing.T) *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}

// What dies without its parent looking is reaped.
func TestZombies(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		r := begin(t, h, Spec{Script: []byte("for i in $(seq 50); do (sh -c 'sleep 0.01 & exit' &) ; done; echo up; sleep 60")})
		r.await(t, "up")
		eventually(t, "only one", func() bool {
			n := 0
			for _, p := range processes() {
				if p.parent == r.shim.process.Pid {
					n++
				}
			}
			return n == 1
		})
	})
}
