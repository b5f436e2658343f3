package machines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
)

// TestHTTP speaks HTTP with each machine's port, with identities, and sees through a mount
// what is done, and the other way round; one machine is killed.
func TestHTTP(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "curl")
	c := cluster.Three(t, cluster.FoundedLocal, "1+1")
	m := c.Mount(t)
	dir := cluster.Dir(t)
	for _, right := range []string{"ro", "rw"} {
		r := cluster.Run(t, cluster.Bin("dosctl"), "login", c.Token(t, "--client", "--rights", right), "--name", right, "--identity", filepath.Join(dir, right))
		if r.Code != 0 {
			t.Fatalf("dosctl login: exit status %d\n%s", r.Code, r.Stderr)
		}
	}
	// ask returns what curl got and the status. The machine is a host by its name.
	ask := func(machine int, right, path string, args ...string) string {
		t.Helper()
		to, id := c.Machines[machine], filepath.Join(dir, right)
		host, port, _ := strings.Cut(to.Addr, ":")
		args = append([]string{"-sS", "-L", "--max-time", "60", "--cert", id, "--cacert", id,
			"--resolve", fmt.Sprintf("%s:%s:%s", to.Name, port, host), "-w", "%{http_code}", fmt.Sprintf("https://%s:%s%s", to.Name, port, path)}, args...)
		r := cluster.Run(t, "curl", args...)
		if r.Code != 0 {
			t.Errorf("curl %s: exit status %d\n%s", path, r.Code, r.Stderr)
		}
		return r.Stdout
	}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %.200q, want %.200q", got, want)
		}
	}
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(m.Path(name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, []byte(strings.Repeat("0123456789abcde\n", 5<<16)), 0o600); err != nil {
		t.Fatal(err)
	}

	want(ask(0, "rw", "/fs/d/", "-X", "PUT"), "201")
	want(ask(1, "rw", "/fs/d/f", "-T", large), "201")
	if read("d/f") != strings.Repeat("0123456789abcde\n", 5<<16) {
		t.Error("d/f is another through the mount")
	}
	want(ask(2, "rw", "/webhdfs/v1/d/f?op=CREATE&overwrite=true", "-X", "PUT", "--data-binary", "two "), "201")
	want(read("d/f"), "two ")
	want(ask(0, "rw", "/webhdfs/v1/d/f?op=APPEND", "--data-binary", "three"), "200")
	want(read("d/f"), "two three")
	want(ask(1, "ro", "/fs/d/f"), "two three200")
	if err := os.WriteFile(m.Path("d/f"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for machine := range c.Machines {
		want(ask(machine, "ro", "/fs/d/f"), "mine200")
		want(ask(machine, "ro", "/fs/d"), "f\n200")
		want(ask(machine, "ro", "/fs/d/f", "-T", large), "this is for rw, not for client ro (ro)\n403")
		want(ask(machine, "ro", "/fs/d/f", "-X", "DELETE"), "this is for rw, not for client ro (ro)\n403")
		want(ask(machine, "ro", "/webhdfs/v1/d?op=MKDIRS", "-X", "PUT"), "this is for rw, not for client ro (ro)\n403")
	}
	want(read("d/f"), "mine")

	t.Run("fsspec", func(t *testing.T) {
		python := "/usr/bin/python3" // it has the system's packages
		if exec.CommandContext(t.Context(), python, "-c", "import fsspec, requests").Run() != nil {
			t.Skip("fsspec is not installed (apt-get install python3-fsspec python3-requests)")
		}
		host, port, _ := strings.Cut(c.Machines[1].Addr, ":")
		if r := cluster.Run(t, python, "testdata/webhdfs.py", host, port, filepath.Join(dir, "rw")); r.Code != 0 || r.Stdout != "ok\n" {
			t.Errorf("exit status %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
		}
	})

	t.Run("grpc", func(t *testing.T) {
		python := "/usr/bin/python3"
		if exec.CommandContext(t.Context(), python, "-c", "import grpc").Run() != nil {
			t.Skip("gRPC for Python is not installed (apt-get install python3-grpcio)")
		}
		serve := exec.CommandContext(t.Context(), "bash", "-c", "mkdir -m 700 rpc/upper rpc/idle; while exec 3<>rpc/upper/serve; do tr a-z A-Z <&3 >&3; exec 3>&-; done")
		serve.Dir = m.Point
		serve.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		serve.Cancel = func() error { return syscall.Kill(-serve.Process.Pid, syscall.SIGKILL) }
		if err := serve.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = serve.Cancel(); _ = serve.Wait() }()
		cluster.Await(t, time.Minute, func() error {
			if list, err := os.ReadDir(m.Path("rpc/upper/instances")); err != nil || len(list) == 0 {
				return fmt.Errorf("nobody serves: %v", err)
			}
			return nil
		})
		to := c.Machines[2]
		if r := cluster.Run(t, python, "testdata/rawcalls.py", to.Addr, to.Name, filepath.Join(dir, "rw"), filepath.Join(dir, "ro")); r.Code != 0 || r.Stdout != "ok\n" {
			t.Errorf("exit status %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
		}
	})

	c.Machines[0].Kill(t)
	cluster.Await(t, time.Minute, func() error {
		if got := ask(1, "rw", "/fs/d/g", "-T", large); got != "201" && got != "204" {
			return fmt.Errorf("with one machine less it says %.200q", got)
		}
		return nil
	})
	if got := ask(2, "ro", "/fs/d/g"); got != strings.Repeat("0123456789abcde\n", 5<<16)+"200" {
		t.Errorf("%d bytes", len(got))
	}
	want(ask(2, "rw", "/fs/d?recursive=true", "-X", "DELETE"), "204")
	if _, err := os.Stat(m.Path("d")); !os.IsNotExist(err) {
		t.Errorf("d: %v", err)
	}
}
