package fuse

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/meta"
)

func TestSpecial(t *testing.T) {
	m := mountHere(t, nil)
	must(t, os.WriteFile(m.dir+"/mine", []byte("x"), 0o644))
	for i := range 3 {
		m.journal.Add("event %d", i)
	}

	t.Run("the root lists both", func(t *testing.T) {
		entries, err := os.ReadDir(m.dir)
		must(t, err)
		var names []string
		for _, e := range entries {
			names = append(names, fmt.Sprintf("%s %v", e.Name(), e.IsDir()))
		}
		if want := []string{"cluster true", "mine false"}; !slices.Equal(names, want) {
			t.Errorf("the root lists %q, want %q", names, want)
		}
		if st := stat(t, m.dir); st.Nlink != 3 || st.Ino != uint64(meta.Root) {
			t.Errorf("the root: %+v", st)
		}
	})

	t.Run("sizes and numbers are exact", func(t *testing.T) {
		for _, dir := range []string{m.dir, m.dir + "/cluster", m.dir + "/cluster/self"} {
			fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			must(t, err)
			inos := dirents(t, fd)
			unix.Close(fd)
			delete(inos, "..")
			for name, ino := range inos {
				st := stat(t, dir+"/"+name)
				if st.Ino != ino {
					t.Errorf("%s/%s is number %#x in readdir and %#x in stat", dir, name, ino, st.Ino)
				}
				if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
					continue
				}
				text, err := os.ReadFile(dir + "/" + name)
				if err != nil || int64(len(text)) != st.Size {
					t.Errorf("%s/%s has %d bytes, stat says %d, %v", dir, name, len(text), st.Size, err)
				}
			}
		}
	})

	t.Run("tools read them", func(t *testing.T) {
		for _, script := range []string{
			`test "$(cat cluster/health)" = ok`,
			`test "$(cat cluster/self/session)" = 7`,
			`test "$(awk '$1 == "health" { print $2 }' cluster/status)" = ok`,
			`wc -c < cluster/help | grep -q -v '^0$'`,
			`cp cluster/help /tmp/dos-help.$$ && cmp cluster/help /tmp/dos-help.$$; s=$?; rm /tmp/dos-help.$$; exit $s`,
			`test "$(tar cf - cluster/help | tar xOf -)" = "$(cat cluster/help)"`,
			`grep -rq 'event 2' .`,
			`test "$(find . -type f -exec head -c1 {} + | wc -c)" -gt 5`,
			`test "$(tail -n 1 cluster/log | cut -d' ' -f1,3-)" = "3 event 2"`,
			`ls -l cluster | grep -q 'r--r--r-- 1 root root .* help'`,
			`! ls cluster | grep -q events`,
		} {
			cmd := exec.Command("sh", "-c", script)
			cmd.Dir = m.dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", script, err, out)
			}
		}
	})

	t.Run("the structure is fixed", func(t *testing.T) {
		d := m.dir
		for what, c := range map[string]struct {
			err  error
			want syscall.Errno
		}{
			"mkdir of one that is there":   {os.Mkdir(d+"/cluster", 0o755), syscall.EEXIST},
			"mkdir of one to come":         {os.Mkdir(d+"/queues", 0o755), syscall.EBUSY},
			"a file with a reserved name":  {os.WriteFile(d+"/tasks", nil, 0o644), syscall.EBUSY},
			"a link with a reserved name":  {os.Link(d+"/mine", d+"/kv"), syscall.EBUSY},
			"a symlink of a reserved name": {os.Symlink("mine", d+"/locks"), syscall.EBUSY},
			"a fifo of a reserved name":    {unix.Mkfifo(d+"/rpc", 0o600), syscall.EBUSY},
			"rmdir":                        {syscall.Rmdir(d + "/cluster"), syscall.EBUSY},
			"rename away":                  {os.Rename(d+"/cluster", d+"/x"), syscall.EBUSY},
			"rename to a reserved name":    {os.Rename(d+"/mine", d+"/nodes"), syscall.EBUSY},
			"rename over":                  {unix.Renameat2(unix.AT_FDCWD, d+"/mine", unix.AT_FDCWD, d+"/cluster", unix.RENAME_EXCHANGE), syscall.EBUSY},
			"remove a fixed file":          {os.Remove(d + "/cluster/help"), syscall.EPERM},
			"rename a fixed file":          {os.Rename(d+"/cluster/help", d+"/cluster/x"), syscall.EPERM},
			"rename out of it":             {os.Rename(d+"/cluster/help", d+"/x"), syscall.EPERM},
			"rename into it":               {os.Rename(d+"/mine", d+"/cluster/x"), syscall.EPERM},
			"link out of it":               {os.Link(d+"/cluster/help", d+"/x"), syscall.EPERM},
			"a file in it":                 {os.WriteFile(d+"/cluster/x", nil, 0o644), syscall.EPERM},
			"a directory in it":            {os.Mkdir(d+"/cluster/x", 0o755), syscall.EPERM},
			"a symlink in it":              {os.Symlink("x", d+"/cluster/x"), syscall.EPERM},
			"chmod":                        {os.Chmod(d+"/cluster/help", 0o666), syscall.EPERM},
			"truncate to something":        {os.Truncate(d+"/cluster/help", 5), syscall.EINVAL},
			"write":                        {os.WriteFile(d+"/cluster/help", []byte("x"), 0), syscall.EACCES},
			"xattr":                        {unix.Setxattr(d+"/cluster/help", "user.x", nil, 0), syscall.ENOTSUP},
		} {
			want(t, what, c.err, c.want)
		}
		_, err := os.Stat(d + "/queues")
		want(t, "stat of one to come", err, syscall.ENOENT)
		content(t, d+"/mine", "x")
		if text, err := os.ReadFile(d + "/cluster/self/error"); err != nil || !strings.Contains(string(text), ": ") {
			t.Errorf("the last error reads %q, %v", text, err)
		}
	})

	t.Run("what is stored in the root may come and go", func(t *testing.T) {
		for range 3 {
			must(t, os.Mkdir(m.dir+"/clusters", 0o755))
			must(t, os.Remove(m.dir+"/clusters"))
		}
	})
}

// TestStream reads a stream of events as a shell does, and kills its readers.
func TestStream(t *testing.T) {
	m := mountHere(t, nil)
	events := m.dir + "/cluster/events"
	reader := func(name string, args ...string) (*exec.Cmd, *bufio.Reader) {
		cmd := exec.Command(name, args...)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		return cmd, bufio.NewReader(out)
	}
	// Whether a reader has opened the stream only an event that arrives shows.
	await := func(r *bufio.Reader, n int) {
		t.Helper()
		got := make(chan string, 1)
		go func() {
			line, err := r.ReadString('\n')
			got <- fmt.Sprint(line, err)
		}()
		for {
			m.journal.Add("wake %d", n)
			select {
			case line := <-got:
				if !strings.Contains(line, " wake ") || !strings.HasSuffix(line, "\n<nil>") {
					t.Fatalf("a reader got %q", line)
				}
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	ends := func(what string, cmd *exec.Cmd) {
		t.Helper()
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
			t.Fatalf("%s: the reader does not end: %s", what, state)
		}
	}
	for n, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, os.Kill} {
		cat, out := reader("cat", events)
		await(out, n)
		must(t, cat.Process.Signal(sig))
		ends(fmt.Sprint(sig), cat)
	}
	// Two readers of one open file: killing one must not hang it behind the other.
	first, out := reader("sh", "-c", `exec 3< "$1"; cat <&3 & cat <&3 & echo $!; wait`, "sh", events)
	line, err := out.ReadString('\n')
	must(t, err)
	var pid int
	if _, err := fmt.Sscan(line, &pid); err != nil {
		t.Fatal(err)
	}
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	await(out, 9) // the other still gets its events
	must(t, syscall.Kill(-first.Process.Pid, syscall.SIGKILL))
	ends("two readers", first)

	// timeout(1) and read(1) of a shell.
	err = exec.Command("timeout", "0.1", "cat", events).Run()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 124 {
		t.Errorf("timeout cat: %v", err)
	}
	// Bytes one at a time, as the shell's read does.
	f, err := os.Open(events)
	must(t, err)
	defer f.Close()
	m.journal.Add("slowly")
	var text bytes.Buffer
	for !bytes.HasSuffix(text.Bytes(), []byte("slowly\n")) {
		if _, err := io.CopyN(&text, f, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err == nil {
		t.Error("a stream can be rewound")
	}
}

// TestBlockedReaderAtUnmount ends a mount under a reader that waits.
func TestBlockedReaderAtUnmount(t *testing.T) {
	needFuse(t)
	dir := t.TempDir()
	_, stop, err := serve(dir, nil)
	must(t, err)
	cat := exec.Command("cat", dir+"/cluster/events")
	must(t, cat.Start())
	time.Sleep(50 * time.Millisecond) // it may wait by then or not: either way the mount must go
	must(t, syscall.Kill(cat.Process.Pid, syscall.SIGKILL))
	cat.Wait()
	must(t, stop())
}

// TestErrors follows errors of the services to the program and to the sentence.
func TestErrors(t *testing.T) {
	m := mountHere(t, nil)
	must(t, os.WriteFile(m.dir+"/f", nil, 0o644))
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{fmt.Errorf("the cluster holds %d of %d bytes: %w", 9, 9, meta.NoSpace), syscall.ENOSPC},
		{fmt.Errorf("tree a: %w", meta.Quota), syscall.EDQUOT},
		{fmt.Errorf("row is gone: %w", meta.Lost), syscall.EIO},
		{meta.Fixed, syscall.EPERM},
		{meta.TooManyLinks, syscall.EMLINK},
	} {
		m.meta.setFault(c.err)
		err := os.Mkdir(m.dir+"/d", 0o755)
		m.meta.setFault(nil)
		want(t, c.err.Error(), err, c.want)
		_, bare := c.err.(meta.Kind)
		if text := m.last.Text(); !bare && !strings.HasSuffix(text, ": "+c.err.Error()+"\n") {
			t.Errorf("the last error after %v is %q", c.err, text)
		}
	}
}
