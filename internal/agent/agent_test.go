package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/task"
)

func whats(list []task.Report) (w []task.What) {
	for _, r := range list {
		w = append(w, r.What)
	}
	return w
}

func TestRun(t *testing.T) {
	s := newSite(t)
	token := s.submit("echo out; echo err >&2; exit 3")
	end := s.await(token, task.Ended)
	if want := (task.Exit{Code: 3}); *end.Exit != want || end.Usage.Wall <= 0 || end.Usage.Peak <= 0 {
		t.Errorf("ended as %+v, used %+v", end.Exit, end.Usage)
	}
	if out, err := s.output(token, "stdout"), s.output(token, "stderr"); out != "out\n" || err != "err\n" {
		t.Errorf("it said %q, %q", out, err)
	}
	if got := whats(s.service.of(token)); !slices.Equal(got, []task.What{task.Claim, task.Started, task.Ended}) {
		t.Errorf("reported %v", got)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestEnvironment(t *testing.T) {
	s := newSite(t)
	for _, dir := range []string{"w/d", "in"} {
		if err := os.MkdirAll(filepath.Join(s.mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.mount, "w/d/file"), []byte("input"), 0o644); err != nil {
		t.Fatal(err)
	}
	token := s.submit(`echo $DOS_TASK_ID $DOS_ARRAY_ID $DOS_ARRAY_INDEX $DOS_ATTEMPT $DOS_TOKEN $DOS_NODE $A ${HOME:+home} $DOS_CPUS; pwd; umask; cat`,
		func(a *task.Attempt) {
			a.ID = a.ID.Element(4)
			a.Spec.Env = []string{"A=1=2", "DOS_TOKEN=9"}
			a.Spec.Cwd, a.Spec.Stdin = "w/d", "file"
			a.Owner.Umask = 0o027
		})
	s.await(token, task.Ended)
	text, err := os.ReadFile(filepath.Join(s.mount, "tasks", "1_4", "stdout"))
	umask := "0022"
	if os.Geteuid() == 0 {
		umask = "0027"
	}
	if want := "1_4 1 4 1 1 n1 1=2 home 1\n" + s.mount + "/w/d\n" + umask + "\ninput"; err != nil || string(text) != want {
		t.Errorf("it said %q, %v; want %q", text, err, want)
	}
}

func TestNotBegun(t *testing.T) {
	s := newSite(t)
	for _, test := range []struct {
		change func(*task.Attempt)
		want   string
	}{
		{func(a *task.Attempt) { a.Spec.Cwd = "no/such" }, "no/such: no such file"},
		{func(a *task.Attempt) { a.Spec.Args = []string{"nosuchprogram"} }, "nowhere in PATH"},
		{func(a *task.Attempt) { a.Spec.Stdin = "/none" }, "open " + s.mount + "/none: no such"},
	} {
		token := s.submit("exit 0", test.change)
		end := s.await(token, task.Ended)
		if end.Exit.Cause != task.NotBegun || !strings.Contains(end.Exit.Text, test.want) {
			t.Errorf("ended as %+v, want %q", end.Exit, test.want)
		}
	}
}

func TestOrders(t *testing.T) {
	s := newSite(t)
	const stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done"
	for _, test := range []struct {
		name, script string
		do           func(token uint64)
		want         task.Exit
	}{
		{"cancel", "echo up; sleep 60", func(n uint64) { s.order(n, task.Cancel, 15) }, task.Exit{Cause: task.Killed, Signal: 15}},
		{"who does not listen", stubborn, func(n uint64) { s.order(n, task.Cancel, 15) }, task.Exit{Cause: task.Killed, Signal: 9}},
		{"at once", stubborn, func(n uint64) { s.order(n, task.Cancel, 9) }, task.Exit{Cause: task.Killed, Signal: 9}},
		{"signal", "trap 'exit 7' USR1; echo up; while :; do sleep 0.05; done", func(n uint64) { s.order(n, task.Signal, 10) }, task.Exit{Code: 7}},
		{"frozen and cancelled", "echo up; sleep 60", func(n uint64) {
			s.service.change(n, func(a *task.Attempt) { a.Frozen = true })
			s.await(n, task.Frozen)
			s.order(n, task.Cancel, 15)
		}, task.Exit{Cause: task.Killed, Signal: 15}},
		{"thawed", "echo up; sleep 0.3; exit 8", func(n uint64) {
			s.service.change(n, func(a *task.Attempt) { a.Frozen = true })
			s.await(n, task.Frozen)
			s.service.change(n, func(a *task.Attempt) { a.Frozen = false })
			s.await(n, task.Thawed)
		}, task.Exit{Code: 8}},
	} {
		token := s.submit(test.script)
		s.says(token, "up\n")
		test.do(token)
		if end := s.await(token, task.Ended); *end.Exit != test.want {
			t.Errorf("%s: ended as %+v, want %+v", test.name, *end.Exit, test.want)
		}
	}
	if got := s.await(1, task.Obeyed); got.Order != 1 {
		t.Errorf("obeyed %d", got.Order)
	}
}

func TestTimeout(t *testing.T) {
	s := newSite(t)
	token := s.submit("trap 'exit 0' TERM; while :; do sleep 0.05; done", func(a *task.Attempt) { a.Spec.Timeout = 300 * time.Millisecond })
	if end := s.await(token, task.Ended); end.Exit.Cause != task.TimedOut || end.Usage.Wall < 300*time.Millisecond {
		t.Errorf("ended as %+v after %v", *end.Exit, end.Usage.Wall)
	}
}

// What is another's by now is not started, and what runs is killed.
func TestFenced(t *testing.T) {
	s := newSite(t)
	s.service.set(func() { s.service.refuse = func(r task.Report) bool { return r.What == task.Claim } })
	token := s.submit("echo ran")
	s.eventually("giving it up", func() bool { return s.agent.Tasks() == 0 })
	if s.output(token, "stdout") != "" {
		t.Error("it was started although its claim was refused")
	}
	s.service.set(func() { s.service.refuse = func(r task.Report) bool { return r.What == task.Started } })
	token = s.submit("echo up; sleep 60")
	s.eventually("its claim", func() bool { return len(s.service.of(token)) > 0 })
	s.eventually("giving it up", func() bool { return s.agent.Tasks() == 0 })
	if got := whats(s.service.of(token)); !slices.Equal(got, []task.What{task.Claim}) {
		t.Errorf("reported %v", got)
	}
}

// While the mount is away the task's output waits for it, with the task, and nothing
// is lost; nothing begins.
func TestAway(t *testing.T) {
	s := newSite(t)
	token := s.submit("while ! test -e " + s.mount + "/go; do sleep 0.02; done; seq 100000; echo end; exit 2")
	s.await(token, task.Started)
	s.gone.Store(true)
	s.eventually("the offer to close", func() bool {
		var last task.Offer
		s.service.set(func() { last = s.service.offers[len(s.service.offers)-1] })
		return last.Closed != ""
	})
	later := s.submit("exit 0")
	tasks := filepath.Join(s.mount, "tasks")
	if err := os.Rename(tasks, tasks+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.mount, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	pause(t.Context(), 3*outputRetry)
	if got := whats(s.service.of(token)); slices.Contains(got, task.Ended) || len(s.service.of(later)) > 0 {
		t.Errorf("reported %v and %v while the tree was away", got, s.service.of(later))
	}
	if err := os.Rename(tasks+".away", tasks); err != nil {
		t.Fatal(err)
	}
	s.gone.Store(false)
	if end := s.await(token, task.Ended); end.Exit.Code != 2 || end.Exit.Text != "" {
		t.Errorf("ended as %+v", *end.Exit)
	}
	if out := s.output(token, "stdout"); !strings.HasSuffix(out, "\n99999\n100000\nend\n") || strings.Count(out, "\n") != 100001 {
		t.Errorf("%d bytes of output came, of %d lines", len(out), strings.Count(out, "\n"))
	}
	s.await(later, task.Ended)
}

// What is in the pipes of a task that ended while the mount was away is not lost.
func TestEndedAway(t *testing.T) {
	s := newSite(t)
	token := s.submit("while ! test -e " + s.mount + "/go; do sleep 0.02; done; head -c 100000 /dev/zero; exit 2")
	s.await(token, task.Started)
	s.gone.Store(true)
	tasks := filepath.Join(s.mount, "tasks")
	if err := os.Rename(tasks, tasks+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.mount, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	pause(t.Context(), tailWait+2*outputRetry)
	if got := whats(s.service.of(token)); slices.Contains(got, task.Ended) {
		t.Errorf("reported %v while the tree was away", got)
	}
	if err := os.Rename(tasks+".away", tasks); err != nil {
		t.Fatal(err)
	}
	s.gone.Store(false)
	if end := s.await(token, task.Ended); end.Exit.Code != 2 || end.Exit.Text != "" {
		t.Errorf("ended as %+v", *end.Exit)
	}
	if out := s.output(token, "stdout"); len(out) != 100000 {
		t.Errorf("%d bytes of output came", len(out))
	}
}

// A service that is away for a while hears all, in order.
func TestUnavailable(t *testing.T) {
	s := newSite(t)
	token := s.submit("echo up; while ! test -e " + s.mount + "/go; do sleep 0.02; done")
	s.says(token, "up\n")
	s.service.set(func() { s.service.away = meta.Unavailable })
	os.WriteFile(filepath.Join(s.mount, "go"), nil, 0o644)
	pause(t.Context(), 3*again)
	s.service.set(func() { s.service.away = nil })
	s.await(token, task.Ended)
	if got := whats(s.service.of(token)); !slices.Equal(got, []task.What{task.Claim, task.Started, task.Ended}) {
		t.Errorf("reported %v", got)
	}
}

// Nothing outlives the session.
func TestSession(t *testing.T) {
	s := newSite(t)
	token := s.submit("echo $$; exec sleep 60")
	s.eventually("its number", func() bool { return s.output(token, "stdout") != "" })
	pid := strings.TrimSpace(s.output(token, "stdout"))
	s.service.set(func() { s.service.away = meta.Expired })
	s.eventually("its death", func() bool {
		_, err := os.Stat("/proc/" + pid)
		return errors.Is(err, os.ErrNotExist)
	})
	if err := s.stop(); !errors.Is(err, meta.Expired) {
		t.Errorf("Run returned %v", err)
	}
	if s.agent.Tasks() != 0 {
		t.Error("the agent has tasks")
	}
}

// A session that is renewed keeps tasks alive, one that is not ends them, whatever the agent does.
func TestLeft(t *testing.T) {
	s := newSite(t)
	s.left.Store(int64(3 * time.Second))
	token := s.submit("echo up; sleep 4; echo alive; sleep 60")
	s.says(token, "up\nalive\n")
	s.left.Store(int64(-time.Second))
	began := time.Now()
	// It did not end so by itself: it is to run again.
	if r := s.await(token, task.Decline); !strings.Contains(r.Text, "cut off") {
		t.Errorf("declined: %q", r.Text)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	token = s.submit("echo ran")
	if r := s.await(token, task.Decline); !strings.Contains(r.Text, "cut off") {
		t.Errorf("declined: %q", r.Text)
	}
}

func TestDrain(t *testing.T) {
	s := newSite(t)
	token := s.submit("echo up; sleep 0.5; exit 4")
	s.says(token, "up\n")
	s.agent.Drain()
	if end := s.await(token, task.Ended); end.Exit.Code != 4 {
		t.Errorf("ended as %+v", *end.Exit)
	}
	s.eventually("the end", func() bool { return s.agent.Tasks() == 0 })
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if last := s.service.offers[len(s.service.offers)-1]; last.Closed != "withdrawn" {
		t.Errorf("the last offer is %+v", last)
	}
}

// A flood of output is cut off, and does not stop the task.
func TestFlood(t *testing.T) {
	s := newSite(t, func(c *Config) { c.OutputMax = 100_000 })
	token := s.submit("head -c 3000000 /dev/zero | tr '\\0' x; exit 5")
	end := s.await(token, task.Ended)
	out := s.output(token, "stdout")
	if kept := strings.Count(out, "x"); kept != 100_000 || !strings.HasSuffix(out, "\ndos: what came after 100000 bytes is not kept\n") || end.Exit.Code != 5 || !strings.Contains(end.Exit.Text, "not kept") {
		t.Errorf("%d bytes were kept; it ended as %+v", kept, *end.Exit)
	}
}

func TestDevices(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Offer.Have.Count = map[string]int64{"gpu": 3} })
	gpus := func(n int64) func(*task.Attempt) {
		return func(a *task.Attempt) { a.Spec.Need.Count = map[string]int64{"gpu": n} }
	}
	const show = "echo \"<$CUDA_VISIBLE_DEVICES>\"; while ! test -e $DOS_MOUNT/go; do sleep 0.02; done"
	first := s.submit(show, gpus(2))
	s.says(first, "<0,1>\n")
	second := s.submit(show, gpus(1))
	s.says(second, "<2>\n")
	none := s.submit(show)
	s.says(none, "<>\n")
	os.WriteFile(filepath.Join(s.mount, "go"), nil, 0o644)
	s.await(first, task.Ended)
	s.await(second, task.Ended)
	again := s.submit(show, gpus(3))
	s.says(again, "<0,1,2>\n")
}

// Many short tasks.
func TestMany(t *testing.T) {
	s := newSite(t)
	const n = 60
	began := time.Now()
	for range n {
		s.submit("echo $DOS_TOKEN")
	}
	for token := range uint64(n) {
		s.await(token+1, task.Ended)
		if out := s.output(token+1, "stdout"); out != (task.ID{Job: token + 1}).String()+"\n" {
			t.Errorf("task %d said %q", token+1, out)
		}
	}
	t.Logf("%.0f tasks a second", n/time.Since(began).Seconds())
}
