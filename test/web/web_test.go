// Package web speaks plain HTTP with the port of a mount and of machines, with and without
// passwords, as programs do that people have.
package web

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// free is a port that nobody uses.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// curl asks and returns the body with the status behind it.
func curl(t *testing.T, port, path string, args ...string) string {
	t.Helper()
	args = append([]string{"-sS", "-L", "--max-time", "60", "-w", "%{http_code}", "http://127.0.0.1:" + port + path}, args...)
	r := cluster.Run(t, "curl", args...)
	if r.Code != 0 {
		return fmt.Sprintf("exit status %d: %s", r.Code, r.Stderr)
	}
	return r.Stdout
}

// fsspec runs a program of the client library for WebHDFS with a password.
func fsspec(t *testing.T, port, password string) {
	t.Helper()
	python := "/usr/bin/python3" // it has the system's packages
	if exec.CommandContext(t.Context(), python, "-c", "import fsspec, requests").Run() != nil {
		t.Skip("fsspec is not installed (apt-get install python3-fsspec python3-requests)")
	}
	if r := cluster.Run(t, python, "../machines/testdata/webhdfs.py", "127.0.0.1", port, password); r.Code != 0 || r.Stdout != "ok\n" {
		t.Errorf("exit status %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
	}
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %.200q, want %.200q", what, got, want)
	}
}

const (
	missing = "a password is needed: dosctl token create --password makes one\n401"
	wrong   = "the password is not good, or not any more\n401"
)

// At a mount's port programs of this machine are nobody; with a password they have its
// rights, and with admin they are who they say.
func TestMount(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.NeedRoot(t)
	cluster.Need(t, "curl")
	port := free(t)
	m := cluster.Start(t, filepath.Join(cluster.Dir(t), "data"), "--http", "127.0.0.1:"+port)
	for _, dir := range []string{"open", "shut"} {
		if err := os.Mkdir(m.Path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(m.Path("open"), 0o777); err != nil {
		t.Fatal(err)
	}
	ask := func(want, path string, args ...string) {
		t.Helper()
		same(t, fmt.Sprintf("%s %q", path, args), curl(t, port, path, args...), want)
	}
	ask("201", "/fs/open/f", "-X", "PUT", "-d", "hello")
	if fi, err := os.Stat(m.Path("open/f")); err != nil || fi.Size() != 5 || owner(fi) != 65534 {
		t.Errorf("open/f: %v, %v", fi, err)
	}
	ask("hello200", "/webhdfs/v1/open/f?op=OPEN&user.name=nobody")
	ask("/shut: permission denied\n403", "/fs/shut")
	ask("/shut/f: permission denied\n403", "/fs/shut/f", "-X", "PUT", "-d", "x")
	ask(`/open/f: user "root": without the rights admin everybody is user 65534 here: permission denied`+"\n403", "/fs/open/f?user=root")
	ask("this is for admin, not for who has rw here\n403", "/tokens", "-X", "GET")
	ask("without a password this machine is called by its address, as 127.0.0.1, or localhost\n403", "/fs/open/f", "-H", "Host: rebound.example")
	ask(wrong, "/fs/open/f", "-u", "x:wrong")
	// A service that a shell serves, once.
	if err := os.Mkdir(m.Path("rpc/upper"), 0o777); err != nil {
		t.Fatal(err)
	}
	serve := exec.CommandContext(t.Context(), "bash", "-c", `while exec 3<>rpc/upper/serve; do read -r q <&3; echo "${q^^}" >&3; exec 3>&-; done`)
	serve.Dir = m.Point
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() { serve.Process.Kill(); serve.Wait() } //nolint:errcheck // it is killed
	defer stop()
	cluster.Await(t, time.Minute, func() error {
		if got := curl(t, port, "/rpc/upper", "-d", "abc"); got != "ABC\n200" {
			return fmt.Errorf("a call: %s", got)
		}
		return nil
	})

	token := func(rights string) string {
		r := cluster.Run(t, cluster.Bin("dosctl"), "--data", m.Data, "token", "create", "web-"+rights, "--password", "--rights", rights)
		if r.Code != 0 {
			t.Fatalf("exit status %d: %s", r.Code, r.Stderr)
		}
		return "x:" + strings.TrimSpace(r.Stdout)
	}
	ro, rw, admin := token("ro"), token("rw"), token("admin")
	cluster.Await(t, time.Minute, func() error { // it is looked for once a second
		if got := curl(t, port, "/fs/open/f"); got != missing {
			return fmt.Errorf("without a password, when there is one: %s", got)
		}
		return nil
	})
	r := cluster.Run(t, "curl", "-sS", "-i", "http://127.0.0.1:"+port+"/fs/open/f")
	if !strings.Contains(r.Stdout, "Www-Authenticate: Basic realm=\"dos\"") {
		t.Errorf("without a password: %s", r.Stdout)
	}
	ask("hello200", "/fs/open/f", "-u", ro)
	ask("this is for rw, not for who has ro here\n403", "/fs/open/f", "-u", ro, "-X", "PUT", "-d", "x")
	ask("this is for rw, not for who has ro here\n403", "/rpc/upper", "-u", ro, "-d", "x")
	ask("XYZ\n200", "/rpc/upper", "-u", rw, "-d", "xyz")
	ask("204", "/fs/open/f", "-u", rw, "-X", "PUT", "-d", "again")
	ask("/shut: permission denied\n403", "/fs/shut", "-u", rw)
	ask("201", "/fs/shut/f", "-u", admin, "-X", "PUT", "-d", "root's")
	ask("/shut/f: permission denied\n403", "/fs/shut/f?user=4242", "-u", admin)
	ask("this is asked for on the machine itself\n403", "/dump", "-u", admin)
	if text, err := os.ReadFile(m.Path("shut/f")); err != nil || string(text) != "root's" {
		t.Errorf("shut/f: %q, %v", text, err)
	}
	t.Run("fsspec", func(t *testing.T) { fsspec(t, port, strings.TrimPrefix(admin, "x:")) })

	stop()
	m.KillAgain(t)
	cluster.Await(t, time.Minute, func() error { // the mount is usable before the port is
		if got := curl(t, port, "/fs/open/f", "-u", ro); got != "again200" {
			return fmt.Errorf("after a kill: %s", got)
		}
		return nil
	})
	ask(missing, "/fs/open/f")

	// The last is deleted.
	r = cluster.Run(t, cluster.Bin("dosctl"), "--data", m.Data, "token", "list")
	for line := range strings.Lines(r.Stdout) {
		if fields := strings.Fields(line); strings.Contains(line, "web-") {
			if r := cluster.Run(t, cluster.Bin("dosctl"), "--data", m.Data, "token", "delete", fields[0]); r.Code != 0 {
				t.Errorf("%s: %s", line, r.Stderr)
			}
		}
	}
	cluster.Await(t, time.Minute, func() error {
		if got := curl(t, port, "/fs/open/f"); got != "again200" {
			return fmt.Errorf("without any password: %s", got)
		}
		if got := curl(t, port, "/fs/open/f", "-u", admin); got != wrong {
			return fmt.Errorf("with one that was deleted: %s", got)
		}
		return nil
	})
}

// What cannot be listened on is told, and from elsewhere nobody comes in without a password.
func TestMachines(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.NeedRoot(t)
	cluster.Need(t, "curl")
	dir := cluster.Dir(t)
	for addr, says := range map[string]string{"nonsense": "--http nonsense: ", "127.0.0.1:99999": "--http 127.0.0.1:99999: ", "192.0.2.1:80": "--http 192.0.2.1:80: "} {
		r := cluster.Run(t, cluster.Bin("dosmount"), "--data", filepath.Join(dir, "data"), "--http", addr, filepath.Join(dir, "m"))
		if r.Code != 1 || !strings.Contains(r.Stderr, says) {
			t.Errorf("%s: exit status %d: %s", addr, r.Code, r.Stderr)
		}
	}
	if r := cluster.Run(t, cluster.Bin("dosmount"), "--data", filepath.Join(dir, "data"), "--http", "0.0.0.0:"+free(t), filepath.Join(dir, "m")); r.Code != 1 || !strings.Contains(r.Stderr, "without a password only") {
		t.Errorf("for all, without a password: exit status %d: %s", r.Code, r.Stderr)
	}
	if r := cluster.Run(t, cluster.Bin("dosmount"), "--cluster", "127.0.0.1:1", "--http", "127.0.0.1:1", filepath.Join(dir, "m")); r.Code != 2 || !strings.Contains(r.Stderr, "flags of dosd") {
		t.Errorf("with --cluster: exit status %d: %s", r.Code, r.Stderr)
	}

	ports := []string{free(t), free(t)}
	c := cluster.FoundedLocal(t, "1+1", cluster.Spec{})
	first := c.Machines[0]
	c.Join(t, cluster.Spec{Flags: []string{"--http", "127.0.0.1:" + ports[1]}})
	c.AwaitHealth(t, "ok", 2*time.Minute)
	cluster.Await(t, time.Minute, func() error {
		if got := curl(t, ports[1], "/fs/"); got != "200" {
			return fmt.Errorf("without a password, here: %s", got)
		}
		return nil
	})
	first.Stop(t)
	open := c.New(t, cluster.Spec{Name: first.Name, Data: first.Data, Flags: []string{"--listen", first.Addr, "--http", "0.0.0.0:" + ports[0]}})
	open.Addr = first.Addr
	if r := open.Refused(t); r.Code != 1 || !strings.Contains(r.Stderr, "without a password only") {
		t.Errorf("exit status %d: %s", r.Code, r.Stderr)
	}
	first.Again(t)
	c.AwaitHealth(t, "ok", 2*time.Minute)
	admin := c.Token(t, "web", "--password", "--rights", "admin")
	first.Stop(t)
	open.Again(t)
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, []byte(strings.Repeat("0123456789abcde\n", 5<<16)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		cluster.Await(t, time.Minute, func() error {
			if got := curl(t, port, "/fs/"); got != missing {
				return fmt.Errorf("without a password: %s", got)
			}
			return nil
		})
		same(t, "PUT", curl(t, port, "/fs/"+port, "-u", "x:"+admin, "-T", large), "201")
	}
	for _, port := range ports {
		for _, name := range ports {
			same(t, "GET", curl(t, port, "/fs/"+name, "-u", "x:"+admin), strings.Repeat("0123456789abcde\n", 5<<16)+"200")
		}
	}
	t.Run("fsspec", func(t *testing.T) { fsspec(t, ports[0], admin) })
}

func owner(fi os.FileInfo) uint32 { return fi.Sys().(*syscall.Stat_t).Uid }
