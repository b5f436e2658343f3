package fuse

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/meta"
)

// noLocks are the locks of stored files where a test has none: it is there so that
// flock(2) comes to us.
type noLocks struct{}

func (noLocks) Try(context.Context, meta.Lock) error                        { return nil }
func (noLocks) Wait(context.Context, meta.Lock) error                       { return nil }
func (noLocks) Drop(context.Context, meta.Ino, meta.LockKind, uint64) error { return nil }
func (noLocks) Test(context.Context, meta.Lock) (way meta.Lock, err error)  { return }

// inRoom mounts a memRoom as the directory kv.
func inRoom(t *testing.T) (*memRoom, *mount, string) {
	t.Helper()
	r := newMemRoom()
	m := mountHere(t, func(c *Config) {
		c.Special.Mount("kv", r)
		c.Locks = noLocks{}
	})
	return r, m, m.dir + "/kv"
}

// shell is a bash that will run a script in dir. It goes there by itself: between
// fork and exec this process stands still, and could not serve it.
func shell(dir, script string) *exec.Cmd {
	return exec.Command("bash", "-c", `umask 022; cd "$1"; eval "$2"`, "bash", dir, script)
}

// bash runs a script in dir and returns what it prints, errors too.
func bash(dir, script string) string {
	out, err := shell(dir, script).CombinedOutput()
	text := string(out)
	if err != nil {
		text += err.Error() + "\n"
	}
	return text
}

// until waits for what nothing else tells of.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(late) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

func TestControlInAShell(t *testing.T) {
	r, m, dir := inRoom(t)
	for _, c := range []struct {
		script, out string
		said        string
	}{
		{`echo one > ctl; echo two >> ctl; echo three >| ctl`, "", "one,two,three"},
		{`echo -e 'one\ntwo' > ctl`, "", "one,two"},
		{"cat > ctl <<X\none\n# no\n\ntwo\nX", "", "one,two"},
		{`{ /bin/echo one; /bin/echo two; } > ctl`, "", "one,two"},
		{`printf one > ctl`, "", "one"},
		{`exec 3> ctl; /bin/echo -n on >&3; /bin/echo e >&3; exec 3>&-`, "", "one"},
		{`printf 'one\ntwo' | dd bs=1 of=ctl status=none`, "", "one,two"},
		{`echo bad > ctl`, "echo: write error: Invalid argument\nexit status 1\n", ""},
		{`printf 'one\nbad\ntwo\n' > ctl`, "printf: write error: Invalid argument\nexit status 1\n", "one,two"}, // bash writes line by line
		{"/bin/printf 'one\\nbad\\ntwo\\n' > ctl", "/bin/printf: write error: Invalid argument\nexit status 1\n", "one"},
		{`head -c 70000 /dev/zero | tr '\0' x > ctl`, "tr: write error: Message too long\nexit status 1\n", ""},
		{`cat ctl; stat -c %s ctl; cp ctl /dev/stdout`, "max 3\n6\nmax 3\n", ""},
		{`exec 3<>ctl; echo one >&3; cat <&3`, "max 3\n", "one"},
		{`truncate -s 0 ctl; : > ctl`, "", ""},
		{`truncate -s 5 ctl`, "truncate: failed to truncate 'ctl' at 5 bytes: Invalid argument\nexit status 1\n", ""},
		{`rm -f ctl`, "rm: cannot remove 'ctl': Operation not permitted\nexit status 1\n", ""},
		{`mv ctl x`, "mv: cannot move 'ctl' to 'x': Operation not permitted\nexit status 1\n", ""},
		{`mv ctl ../x`, "mv: cannot move 'ctl' to '../x': Operation not permitted\nexit status 1\n", ""},
		{`chmod 600 ctl 2>&1`, "chmod: changing permissions of 'ctl': Operation not permitted\nexit status 1\n", ""},
	} {
		if out := bash(dir, c.script); !sameShell(out, c.out) {
			t.Errorf("%s\nprinted %q, want %q", c.script, out, c.out)
		}
		want := strings.Split(c.said, ",")
		if c.said == "" {
			want = nil
		}
		var said []string
		until(t, c.script, func() bool { said = append(said, r.commands()...); return len(said) >= len(want) })
		if !slices.Equal(said, want) {
			t.Errorf("%s\ndid %q, want %q", c.script, said, want)
		}
	}
	bash(dir, `echo bad > ctl`)
	if text := m.last.Text(); !strings.HasSuffix(text, "write: there is no verb \"bad\": invalid request\n") {
		t.Errorf("the sentence is %q", text)
	}
}

// sameShell compares what shells print, wherever they say it happened.
func sameShell(got, want string) bool {
	var lines []string
	for line := range strings.SplitSeq(got, "\n") {
		if rest, ok := strings.CutPrefix(line, "bash: line "); ok {
			_, line, _ = strings.Cut(rest, ": ")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n") == want
}

// TestBlockedWriters has two processes wait in write(2) for one name: each must be
// killable by itself.
func TestBlockedWriters(t *testing.T) {
	r, _, dir := inRoom(t)
	var writers []*exec.Cmd
	for range 2 {
		cmd := shell(dir, "exec /bin/echo block > ctl")
		must(t, cmd.Start())
		writers = append(writers, cmd)
		<-r.blocked
	}
	for _, cmd := range slices.Backward(writers) {
		must(t, cmd.Process.Kill())
		cmd.Wait()
	}
}

func TestTakeInAShell(t *testing.T) {
	r, _, dir := inRoom(t)
	for _, c := range []struct {
		queue       []string
		script, out string
		left        []string
	}{
		{[]string{"a\n", "b\n"}, `read -r x < pop; echo got $x; cat pop`, "got a\nb\n", nil},
		{[]string{"a b\nc\n"}, `read -r x < pop; echo $x`, "a b\n", []string{"a b\nc\n"}}, // not to the end
		{[]string{"a b\nc\n"}, `{ read -r x; read -r y; } < pop; echo $x-$y`, "a b-c\n", nil},
		{[]string{"a\n"}, `head -c 1 pop`, "a", []string{"a\n"}},
		{[]string{""}, `cat pop | wc -c`, "0\n", nil},
		{[]string{"a\n"}, `: < pop`, "", []string{"a\n"}},
		{[]string{"a\n"}, `exec 3< pop; cat <&3; exec 3<&-`, "a\n", nil},
		{[]string{"a\n"}, `exec 3< pop; cat <&3; kill -9 $$`, "a\nsignal: killed\n", []string{"a\n"}},
		{[]string{"a\n"}, `exec 3< pop; bash -c 'cat <&3; kill -9 $$'; exec 3<&-`, "", []string{"a\n"}},
		{nil, `timeout 0.1 cat pop; echo $?`, "124\n", nil},
		{nil, `cat pop@0`, "cat: pop@0: Resource temporarily unavailable\nexit status 1\n", nil},
		{nil, `cat pop@50ms`, "cat: pop@50ms: Connection timed out\nexit status 1\n", nil},
		{nil, `cat pop@never`, "cat: pop@never: Invalid argument\nexit status 1\n", nil},
		{nil, `dd if=pop iflag=nonblock status=none`, "dd: failed to open 'pop': Resource temporarily unavailable\nexit status 1\n", nil},
		{[]string{"a\n"}, `grep -r . . | sort; find . -type f -exec head -c1 {} + >/dev/null`, "./ctl:max 3\n./help:a room\n./help:help  this text\n", []string{"a\n"}},
		{[]string{"a\n"}, `cp pop /tmp/dos-pop.$$; cat /tmp/dos-pop.$$; rm /tmp/dos-pop.$$`, "a\n", nil},
		{[]string{"a\n"}, `python3 -c 'print(open("pop").read(), end="")'`, "a\n", nil},
	} {
		r.mu.Lock()
		r.queue = slices.Clone(c.queue)
		r.mu.Unlock()
		if out := bash(dir, c.script); c.out != "" && !sameShell(out, c.out) {
			t.Errorf("%s\nprinted %q, want %q", c.script, out, c.out)
		}
		until(t, fmt.Sprintf("%s to leave %q", c.script, c.left), func() bool { return slices.Equal(r.queued(), c.left) })
	}
}

// TestKilledTaker kills those who wait: nothing may be taken in their name, and none
// may stay in D state.
func TestKilledTaker(t *testing.T) {
	r, _, dir := inRoom(t)
	for _, sig := range []os.Signal{os.Kill, os.Interrupt, syscall.SIGTERM} {
		cat := exec.Command("cat", dir+"/pop")
		must(t, cat.Start())
		until(t, "the reader to wait", func() bool { return r.waiting() == 1 })
		must(t, cat.Process.Signal(sig))
		cat.Wait()
		until(t, "the reader to be gone", func() bool { return r.waiting() == 0 })
		r.push("m\n")
		if out := bash(dir, "cat pop"); out != "m\n" {
			t.Errorf("after %v the message reads %q", sig, out)
		}
	}
	// Two readers of one descriptor that cannot seek, one killed.
	r.push("a\nb\n")
	out := bash(dir, `exec 3< pop; read -r x <&3; (kill -9 $BASHPID) 2>/dev/null; cat <&3`)
	if !strings.HasSuffix(out, "b\n") {
		t.Errorf("the second reader reads %q", out)
	}
	until(t, "it to be acknowledged", func() bool { return len(r.queued()) == 0 })
	// A taker is killed while its reply is under way, many times: each message is
	// taken once or there still.
	for range 50 {
		cat := exec.Command("cat", dir+"/pop")
		must(t, cat.Start())
		until(t, "the reader to wait", func() bool { return r.waiting() == 1 })
		go r.push("m\n")
		cat.Process.Kill()
		cat.Wait()
		if out := bash(dir, "cat pop"); out != "m\n" { // killed before it had the end
			t.Fatalf("the message reads %q", out)
		}
	}
}

func TestTransactionInAShell(t *testing.T) {
	_, _, dir := inRoom(t)
	for script, out := range map[string]string{
		`exec 3<>ask; echo 41 >&3; read -r x <&3; echo $x`:                  "42\n",
		`exec 3<>ask; echo 1 >&3; echo 2 >&3; cat <&3; echo 5 >&3; cat <&3`: "2\n3\n6\n",
		`exec 3<>ask; cat <&3`: "",
		`cat ask`:              "",
		`: > ask`:              "",
		`echo 7 > ask`:         "",
		`echo x > ask`:         "echo: write error: Invalid argument\nexit status 1\n",
	} {
		if got := bash(dir, script); !sameShell(got, out) {
			t.Errorf("%s\nprinted %q, want %q", script, got, out)
		}
	}
}

func TestObjectsInAShell(t *testing.T) {
	_, m, dir := inRoom(t)
	must(t, os.WriteFile(m.dir+"/stored", []byte("s\n"), 0o644))
	for _, c := range []struct{ script, out string }{
		{`echo v > a; cat a; stat -c '%s %A %U' a`, "v\n2 -rw-r--r-- root\n"},
		{`echo w >> a; cat a; echo x > a; cat a`, "v\nw\nx\n"},
		{`/bin/echo -n > b; { /bin/echo 1; /bin/echo 2; } > b; cat b`, "1\n2\n"},
		{"cat > b <<X\n1\n2\nX\ncat b; wc -c < b; x=$(<b); echo $x", "1\n2\n4\n1 2\n"},
		{`set -C; echo y > a`, "a: cannot overwrite existing file\nexit status 1\n"},
		{`set -C; echo y > c; cat c`, "y\n"},
		{`cp a d; cmp a d; tar cf - d | tar xOf -; python3 -c 'import shutil; shutil.copyfile("a", "e")'; cat e`, "x\nx\n"},
		{`sed -i s/x/z/ e; cat e; install -m 600 a f; stat -c %a f; cat f`, "z\n600\nx\n"},
		{`mv f g; cat g; mv g ..; cat ../g; mv ../g g; cat g`, "x\nx\nx\n"},
		{`cp ../stored s; mv s ../t; cat ../t; ls ../t s`, "s\nls: cannot access 's': No such file or directory\n../t\nexit status 2\n"},
		{`exec 3> a; /bin/echo longer >&3; stat -c %s a; exec 3>&-; stat -c %s a; echo x > a`, "2\n7\n"},
		{`ln a x 2>&1; ln -s a x 2>&1`, "ln: failed to create hard link 'x' => 'a': Operation not permitted\nln: failed to create symbolic link 'x': Operation not permitted\nexit status 1\n"},
		{`rm a b c d e g; ls`, "ask\nctl\nhelp\n"},
		{`mkdir o; stat -c %A o; chmod 700 o; stat -c %A o; chown 7:8 o; stat -c %u:%g o; rmdir o; ls -d o`, "drwxr-xr-x\ndrwx------\n7:8\nls: cannot access 'o': No such file or directory\nexit status 2\n"},
		{`echo v > a; chmod 640 a; stat -c %a a; touch a; getfattr --only-values -n user.dos.ttl a`, "640\nrenewed"},
		{`setfattr -n user.dos.ttl -v 5s a; getfattr -d a; setfattr -x user.dos.ttl a`, "# file: a\nuser.dos.ttl=\"5s\"\n\n"},
		{`setfattr -n user.other -v 1 a`, "setfattr: a: Operation not supported\nexit status 1\n"},
		{`getfattr -n user.dos.none a`, "a: user.dos.none: No such attribute\nexit status 1\n"},
		{`echo 123456789012 > a`, "echo: write error: Disk quota exceeded\nexit status 1\n"},
	} {
		out := bash(dir, c.script)
		if !sameShell(out, c.out) {
			t.Errorf("%s\nprinted %q, want %q", c.script, out, c.out)
		}
	}
}

// TestObjectsEmptied has truncation stored when nothing else is: that comes after
// close(2) has returned.
func TestObjectsEmptied(t *testing.T) {
	_, _, dir := inRoom(t)
	for _, script := range []string{`echo v > a; : > a`, `echo v > a; truncate -s 0 a`, `touch a`, `python3 -c 'open("a","w")'`} {
		if out := bash(dir, script); out != "" {
			t.Errorf("%s: %s", script, out)
		}
		until(t, script, func() bool {
			info, err := os.Stat(dir + "/a")
			return err == nil && info.Size() == 0
		})
		must(t, os.Remove(dir+"/a"))
	}
}

func TestVersionOfAnOpenObject(t *testing.T) {
	_, _, dir := inRoom(t)
	const cas = `V=$(getfattr --only-values -n user.dos.version a)
exec 3> a
setfattr -n user.dos.version -v $V a
%s
echo new >&3
exec 3>&-
cat a`
	for other, out := range map[string]string{
		"":             "new\n",
		"echo x > a":   "echo: write error: Stale file handle\nx\n",
		"rm a; : >| a": "echo: write error: Stale file handle\n",
	} {
		bash(dir, "echo old > a")
		if got := bash(dir, fmt.Sprintf(cas, other)); !sameShell(got, out) {
			t.Errorf("with %q meanwhile: %q, want %q", other, got, out)
		}
	}
	// 0 is the version of what does not exist: by the descriptor, for it has no path yet.
	const made = `import os, sys
f = open("n", "w"); os.setxattr(f.fileno(), "user.dos.version", b"0"); f.write("v")
if len(sys.argv) > 1: os.system(sys.argv[1])
f.close()`
	for other, out := range map[string]string{"": "v", "echo x > n": "x\n"} {
		got := bash(dir, fmt.Sprintf("rm -f n; python3 -c '%s' %q 2>/dev/null; cat n", made, other))
		if got != out {
			t.Errorf("made if it does not exist, with %q meanwhile: %q, want %q", other, got, out)
		}
	}
}

// TestKilledWriter kills writers of objects, alone and one of two.
func TestKilledWriter(t *testing.T) {
	_, _, dir := inRoom(t)
	for _, script := range []string{
		`exec 3> a; /bin/echo new >&3; kill -9 $$`,
		`{ bash -c 'echo new; kill -9 $$'; } > a`,
		`timeout -s KILL 0.1 bash -c 'echo new; sleep 9' > a`,
	} {
		bash(dir, "echo old > a")
		bash(dir, script)
		// What was not stored then is not stored later: the next is in its place.
		if out := bash(dir, "cat a; echo next >> a; cat a"); out != "old\nold\nnext\n" {
			t.Errorf("%s: %q", script, out)
		}
	}
}

func TestModesAreObeyed(t *testing.T) {
	_, m, dir := inRoom(t)
	must(t, os.Chmod(m.dir, 0o755))
	for p := dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		if !strings.HasPrefix(p, m.dir) {
			must(t, os.Chmod(p, 0o755))
		}
	}
	bash(dir, "echo v > a; chmod 600 a")
	other := func(script string) string {
		cmd := shell(dir, script)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	for script, out := range map[string]string{
		`cat a`:       "cat: a: Permission denied\n",
		`echo x > a`:  "a: Permission denied\n",
		`chmod 666 a`: "chmod: changing permissions of 'a': Operation not permitted\n",
		`echo x > b; stat -c %u b; chmod 600 b; cat b`: "1234\nx\n",
	} {
		if got := other(script); !sameShell(got, out) {
			t.Errorf("%s: %q, want %q", script, got, out)
		}
	}
}

func TestFlockOnSpecialFiles(t *testing.T) {
	_, _, dir := inRoom(t)
	for script, out := range map[string]string{
		`flock lock true; flock lock echo yes`:                     "yes\n",
		`exec 9<lock; flock 9; flock -n lock true; echo $?`:        "1\n",
		`exec 9<lock; flock 9; flock -w 0.1 lock true; echo $?`:    "1\n",
		`exec 9<lock; flock 9; flock -u 9; flock -n lock echo yes`: "yes\n",
		`flock ctl true`: "flock: ctl: No locks available\n",
	} {
		if got := bash(dir, script); !strings.HasPrefix(got, out) {
			t.Errorf("%s: %q, want %q", script, got, out)
		}
	}
	holder := shell(dir, "exec 9<lock; flock 9; echo held; read x")
	in, err := holder.StdinPipe()
	must(t, err)
	defer in.Close()
	out, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	must(t, holder.Process.Kill())
	holder.Wait()
	if got := bash(dir, "flock -w 10 lock echo mine"); got != "mine\n" {
		t.Errorf("after its holder was killed the lock says %q", got)
	}
	f := openFile(t, dir+"/lock", os.O_RDWR)
	if _, err := record(f, unix.F_SETLK, syscall.F_WRLCK, 0, 0); err != syscall.ENOLCK {
		t.Errorf("an fcntl lock on a special file: %v", err)
	}
}
