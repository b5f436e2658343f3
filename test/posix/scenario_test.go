package posix_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/posix"
)

// scenarios are what people do, with the programs they do it with. Each gets
// an empty directory of the mount and may have the mount stopped and started.
var scenarios = []struct {
	name string
	run  func(t *testing.T, m *cluster.Mount, dir string)
}{
	{"tar", untar},
	{"go", goBuild},
	{"git", git},
	{"sqlite", sqlite},
	{"rsync", rsync},
	{"fio", fioVerify},
	{"large-directory", largeDirectory},
	{"acl", acls},
}

func TestScenarios(t *testing.T) {
	cluster.NeedFuse(t)
	m := cluster.Start(t, cluster.Dir(t)+"/data")
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			dir := m.Path("scenario-" + s.name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			s.run(t, m, dir)
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("removing everything: %v", err)
			}
		})
	}
}

// sh runs a shell command in a directory and returns what it printed.
func sh(t *testing.T, dir, script string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-e", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// untar copies a part of Go's source tree, or all of it, and compares.
func untar(t *testing.T, m *cluster.Mount, dir string) {
	cluster.Need(t, "go", "tar", "diff")
	src := filepath.Join(strings.TrimSpace(sh(t, dir, "go env GOROOT")), "src")
	parts := "encoding strconv testing"
	if *long {
		parts = "."
	}
	began := time.Now()
	sh(t, dir, "tar -C "+src+" -cf - "+parts+" | tar -xf -")
	t.Logf("untarred in %.1f s", time.Since(began).Seconds())
	compare := "for p in " + parts + "; do diff -r --no-dereference " + src + "/$p $p; done"
	sh(t, dir, compare)
	m.Cold(t)
	sh(t, dir, compare)
	if _, err := exec.LookPath("rsync"); err == nil { // times, modes and owners too
		for _, p := range strings.Fields(parts) {
			if out := sh(t, dir, "rsync -ani --delete "+src+"/"+p+"/ "+p+"/"); os.Geteuid() == 0 && out != "" {
				t.Errorf("attributes differ from what was packed:\n%.2000s", out)
			}
		}
	}
}

// goBuild builds, and tests, a program that lies on the mount, with the build
// cache there too.
func goBuild(t *testing.T, _ *cluster.Mount, dir string) {
	cluster.Need(t, "go")
	files := map[string]string{
		"go.mod":       "module hello\n\ngo 1.26\n",
		"main.go":      "package main\n\nfunc main() { println(Greeting()) }\n",
		"greet.go":     "package main\n\nfunc Greeting() string { return \"hello from the mount\" }\n",
		"main_test.go": "package main\n\nimport \"testing\"\n\nfunc TestGreeting(t *testing.T) {\n\tif Greeting() == \"\" {\n\t\tt.Fatal()\n\t}\n}\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"GOCACHE=" + dir + "/cache", "GOTMPDIR=" + dir, "GOFLAGS=-buildvcs=false"}
	if out := sh(t, dir, "go build -o hello . && ./hello", env...); out != "hello from the mount\n" {
		t.Errorf("the program printed %q", out)
	}
	sh(t, dir, "go build -o hello2 . && cmp hello hello2", env...) // from the cache
	if *long {
		sh(t, dir, "go test .", env...)
	}
}

func git(t *testing.T, _ *cluster.Mount, dir string) {
	cluster.Need(t, "git")
	origin := cluster.Dir(t)
	sh(t, origin, `git init -q -b main . && git config user.email a@b && git config user.name a
for d in 1 2 3 4 5; do mkdir d$d; for f in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do seq $((d*f)) $((d*f*50)) >d$d/f$f; done; git add -A; git commit -qm "commit $d"; done`)
	sh(t, dir, "git clone -q file://"+origin+" clone")
	work := filepath.Join(dir, "clone")
	sh(t, work, `git config user.email a@b && git config user.name a
test -z "$(git status --porcelain)"
seq 5000 >new; git mv d1/f1 moved; git add -A; git commit -qm change
git checkout -q -b other HEAD~3; git checkout -q main
git fsck --full --strict 2>&1
git gc -q; git fsck --full 2>&1
test -z "$(git status --porcelain)"`)
	sh(t, origin, "git pull -q --ff-only "+work+" main && git diff --quiet HEAD && test -f moved")
}

// sqlite writes in both journal modes, is killed in the middle, and must have
// every transaction that it acknowledged.
func sqlite(t *testing.T, _ *cluster.Mount, dir string) {
	cluster.Need(t, "sqlite3")
	for _, mode := range []string{"delete", "wal"} {
		db := filepath.Join(dir, mode+".db")
		last := -1
		for round := range 2 {
			last = sqliteKilled(t, db, mode, last+1, 40)
			out, err := exec.CommandContext(t.Context(), "sqlite3", db, "PRAGMA integrity_check; SELECT count(*) - 1 = max(n), max(n) FROM t;").CombinedOutput()
			if err != nil {
				t.Fatalf("%s, round %d: %v\n%s", mode, round, err, out)
			}
			var whole, most int
			if n, err := fmt.Sscanf(string(out), "ok\n%d|%d", &whole, &most); n != 2 || whole != 1 || most < last {
				t.Fatalf("%s, round %d: %q (%v), want ok and every row up to at least %d", mode, round, out, err, last)
			}
			last = most
		}
	}
}

// sqliteKilled inserts rows from first on, kills sqlite3 after some
// transactions, and returns the last row that it acknowledged.
func sqliteKilled(t *testing.T, db, mode string, first, transactions int) (last int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sqlite3", "-batch", db)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var fed sync.WaitGroup
	fed.Go(func() {
		// Ends with an error when the process is killed: that is the point.
		_, err := fmt.Fprintf(in, "PRAGMA journal_mode=%s; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, b BLOB);\n", mode)
		for n := first; err == nil; n++ {
			_, err = fmt.Fprintf(in, "BEGIN; INSERT INTO t VALUES(%d, randomblob(3000)); UPDATE t SET b = randomblob(2000) WHERE n = %d / 2; COMMIT; SELECT 'done', %d;\n", n, n, n)
		}
	})
	last = first - 1
	lines := bufio.NewScanner(out)
	for acked := 0; lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "done|%d", &last); err != nil {
			continue // the journal mode
		}
		if acked++; acked == transactions {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("sqlite3 ended by itself: %v\n%s", err, complaints.Bytes())
	}
	fed.Wait()
	return last
}

func rsync(t *testing.T, _ *cluster.Mount, dir string) {
	cluster.Need(t, "rsync")
	src := cluster.Dir(t)
	sh(t, src, `mkdir -p a/b c; for i in 1 2 3 4 5 6 7 8 9 10; do seq $((i*1000)) >a/f$i; : >c/empty$i; done
head -c 5000000 /dev/urandom >a/b/large; ln -s ../a/f1 c/link; ln a/f2 c/hard; chmod 600 a/f3; touch -d '2001-02-03 04:05:06.789' a/f4`)
	sh(t, dir, "rsync -aH "+src+"/ copy/")
	if out := sh(t, dir, "rsync -aHi "+src+"/ copy/"); out != "" {
		t.Errorf("a second rsync transferred:\n%s", out)
	}
	if out := sh(t, dir, "rsync -aHci "+src+"/ copy/"); out != "" {
		t.Errorf("checksums differ:\n%s", out)
	}
	sh(t, src, "echo more >>a/b/large; rm a/f5")
	sh(t, dir, "rsync -aH --inplace --delete "+src+"/ copy/ && diff -r "+src+" copy")
}

// fioVerify has fio write checksummed blocks in order, at random and through
// maps, and read them back.
func fioVerify(t *testing.T, _ *cluster.Mount, dir string) {
	cluster.Need(t, "fio")
	size := "8m"
	if *long {
		size = "256m"
	}
	job, err := filepath.Abs("../../bench/fio/verify.fio")
	if err != nil {
		t.Fatal(err)
	}
	sh(t, cluster.Dir(t), "fio --minimal "+job, "DIR="+dir, "SIZE="+size)
}

func largeDirectory(t *testing.T, m *cluster.Mount, dir string) {
	n := 3000
	if *long {
		n = 100_000
	}
	const workers = 8
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				f, err := os.Create(filepath.Join(dir, fmt.Sprintf("entry-%07d", i)))
				if err == nil {
					err = f.Close()
				}
				errs[w] = err
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		entries, err := os.ReadDir(dir) // sorts
		if err != nil || len(entries) != n {
			t.Fatalf("%d entries, %v, want %d", len(entries), err, n)
		}
		for i, e := range entries {
			if want := fmt.Sprintf("entry-%07d", i); e.Name() != want {
				t.Fatalf("entry %d is %q, want %q", i, e.Name(), want)
			}
		}
	}
	check()
	m.Cold(t)
	check()
	began := time.Now()
	if out := strings.TrimSpace(sh(t, dir, "ls -f | wc -l; ls -l | tail -1 | wc -l")); out != fmt.Sprintf("%d\n1", n+2) {
		t.Errorf("ls printed %q", out)
	}
	t.Logf("listed twice in %v", time.Since(began))
	sh(t, dir, "find . -mindepth 1 -delete") // more names than a command line holds
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
		t.Errorf("after rm: %d entries, %v", len(entries), err)
	}
}

func acls(t *testing.T, _ *cluster.Mount, dir string) {
	cluster.Need(t, "setfacl", "getfacl")
	out, err := exec.CommandContext(t.Context(), "sh", "-e", "-c", `cd "$1"
echo text >f; chmod 600 f
setfacl -m u:65532:r f
getfacl -cn f
mkdir d; setfacl -d -m u:65532:rwx d; : >d/inherits; getfacl -cn d/inherits`, "sh", dir).CombinedOutput()
	if strings.Contains(string(out), "not supported") {
		t.Skipf("no ACLs here: %s", out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Count(string(out), "user:65532:r") != 2 {
		t.Errorf("the ACLs are not what was set and inherited:\n%s", out)
	}
	if os.Geteuid() != 0 {
		return
	}
	read := func() error { _, err := os.ReadFile(filepath.Join(dir, "f")); return err }
	if err := posix.As(65532, 65532, nil, read); err != nil {
		t.Errorf("a user whom the ACL lets read: %v", err)
	}
	if err := posix.As(65531, 65531, nil, read); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a user whom the ACL does not name: %v, want EACCES", err)
	}
}

// TestStranger holds the tree to being usable by someone who reads nothing:
// what is listed is there, and walking it ends.
func TestStranger(t *testing.T) {
	cluster.NeedFuse(t)
	m := cluster.Start(t, cluster.Dir(t)+"/data")
	if err := os.WriteFile(m.Path("hello"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, "/", "ls -la "+m.Point+" && find "+m.Point+" -type f -exec head -c1 {} + && grep -r . "+m.Point+" && df "+m.Point+" && du -s "+m.Point)
	names, err := os.ReadDir(m.Point)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range names {
		got = append(got, n.Name())
	}
	if want := "cache cluster hello kv locks nodes queues rpc tasks"; strings.Join(got, " ") != want {
		t.Errorf("the root lists %q, want %s", got, want)
	}
}

// TestReserved holds the reserved names to what the design says of them.
func TestReserved(t *testing.T) {
	cluster.NeedFuse(t)
	m := cluster.Start(t, cluster.Dir(t)+"/data")
	if err := os.Mkdir(m.Path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	expect := func(what string, err error, want syscall.Errno) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	for name, there := range map[string]bool{"cache": true, "cluster": true, "kv": true, "locks": true, "nodes": true, "queues": true, "rpc": true, "tasks": true} {
		path := m.Path(name)
		want := syscall.EBUSY
		if there {
			want = syscall.EEXIST
		}
		expect("mkdir "+name, syscall.Mkdir(path, 0o755), want)
		expect("symlink "+name, syscall.Symlink("x", path), want)
		expect("mkfifo "+name, syscall.Mkfifo(path, 0o644), want)
		if there {
			expect("rmdir "+name, syscall.Rmdir(path), syscall.EBUSY)
			expect("rename of "+name, syscall.Rename(path, m.Path("other")), syscall.EBUSY)
			expect("rename over "+name, syscall.Rename(m.Path("d"), path), syscall.EBUSY)
		} else {
			_, err := os.Lstat(path)
			expect("stat "+name, err, syscall.ENOENT)
			_, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
			expect("create "+name, err, syscall.EBUSY)
			expect("rename to "+name, syscall.Rename(m.Path("d"), path), syscall.EBUSY)
		}
		if err := os.Mkdir(m.Path("d", name), 0o755); err != nil {
			t.Errorf("below the root %s is a name like any other: %v", name, err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	cluster.NeedFuse(t)
	data := cluster.Dir(t) + "/data"
	m := cluster.Start(t, data)
	if err := os.WriteFile(m.Path("f"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.Stop(t)
	ro := cluster.Start(t, data, "-o", "ro")
	if got, err := os.ReadFile(ro.Path("f")); string(got) != "kept" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if err := os.WriteFile(ro.Path("g"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing: got %v, want EROFS", err)
	}
}

// TestSubtree mounts one directory of the tree as a plain file system.
func TestSubtree(t *testing.T) {
	cluster.NeedFuse(t)
	data := cluster.Dir(t) + "/data"
	m := cluster.Start(t, data)
	if err := os.MkdirAll(m.Path("a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Path("a", "b", "f"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.Stop(t)
	alone := cluster.Start(t, data, "--subtree", "a/b")
	list, err := os.ReadDir(alone.Path())
	if err != nil || len(list) != 1 || list[0].Name() != "f" {
		t.Errorf("the subtree lists %v, %v", list, err)
	}
	for _, name := range []string{"cluster", "locks"} { // names like any other here
		if err := os.WriteFile(alone.Path(name), nil, 0o644); err != nil {
			t.Error(err)
		}
	}
	alone.Stop(t)
	for path, why := range map[string]string{"a/none": "does not exist", "a/b/f": "not a directory"} {
		r := cluster.Run(t, cluster.Bin("dosmount"), "--data", data, "--subtree", path, cluster.Dir(t)+"/m")
		if r.Code != 1 || !strings.Contains(r.Stderr, why) {
			t.Errorf("--subtree %s: %+v, want %q", path, r, why)
		}
	}
}

// TestOrdinaryUser runs the suite once more as a user without rights.
func TestOrdinaryUser(t *testing.T) {
	cluster.NeedRoot(t) // others have run it as such already
	cluster.NeedFuse(t)
	tmp := cluster.Dir(t)
	if err := os.Chown(tmp, cluster.Nobody, cluster.Nobody); err != nil {
		t.Fatal(err)
	}
	// The test binary lies in a directory that only root may search.
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sh(t, tmp, "cp "+exe+" test && chmod 755 test")
	cmd := cluster.Ordinary(t.Context(), t, tmp+"/test", "-test.run=^(TestMounted|TestReserved)$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "HOME="+tmp)
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\n--- PASS: TestMounted") {
		t.Errorf("as uid %d: %v\n%s", cluster.Nobody, err, out)
	}
}

// TestTwoClusters has two mounts of different clusters side by side.
func TestTwoClusters(t *testing.T) {
	cluster.NeedFuse(t)
	a, b := cluster.Start(t, cluster.Dir(t)+"/data"), cluster.Start(t, cluster.Dir(t)+"/data", "--ec", "2+1")
	want := bytes.Repeat([]byte("between two clusters "), 100_000)
	if err := os.WriteFile(a.Path("f"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(a.Path("f"))
	if err != nil {
		t.Fatal(err)
	}
	dst, err := os.Create(b.Path("f"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close(), src.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(b.Path("f")); !bytes.Equal(got, want) {
		t.Errorf("copied %d bytes, %v, want %d", len(got), err, len(want))
	}
	if dirs, err := filepath.Glob(filepath.Join(b.Data, "chunk", "*")); len(dirs) != 3 || err != nil {
		t.Errorf("--ec 2+1 made %q, %v, want three stores", dirs, err)
	}
}
