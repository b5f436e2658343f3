package services

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
)

// bash is a script in a mount.
func bash(t *testing.T, s *site, script string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = s.Point
	return cmd
}

// sh runs a script to its end, and returns what it says.
func sh(t *testing.T, s *site, script string) string {
	t.Helper()
	out, err := bash(t, s, script).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s%v\n", out, err)
	}
	return string(out)
}

const (
	// victims is how many programs are killed.
	victims = 12
	// lifetime bounds how long each lives after it began to work.
	lifetime = 40 * time.Millisecond
	// succession bounds how long what a killed program had stays out of reach, on a
	// very busy machine. What its mount held would take longer than that to be another's
	// if it waited for a session to end.
	succession = 8 * time.Second
)

// victim locks, changes two values at once, takes a message and acknowledges it, and
// tells of each step.
const victim = `n=$1
exec 5<>kv/v/.txn
while :; do
	exec 9<>locks/v; flock 9
	printf 'put a %d\nput b %d\ncommit\n' $n $n >&5; read -r _ <&5; read -r _ <&5; read -r _ <&5
	exec 9>&-; n=$((n+1))
	exec 3<>queues/v/lease@0 || exit; read -r m <&3; echo took $m
	echo ack >&3 && echo acked $m; exec 3>&-
done`

// killed kills programs at any step of what they do. What they had is another's at
// once, what they were told is so, and what they did is whole.
func killed(t *testing.T, sites []*site, rnd *rand.Rand) {
	const messages = 400
	if got := sh(t, sites[0], fmt.Sprintf("mkdir kv/v queues/v && seq %d >queues/v/push", messages)); got != "" {
		t.Fatal(got)
	}
	acked, took := make(map[string]bool), make(map[string]bool)
	tell := func(line string) {
		what, m, _ := strings.Cut(line, " ")
		switch {
		case what == "took" && acked[m]:
			t.Errorf("message %s was delivered again after it was acknowledged", m)
		case what == "took":
			took[m] = true
		case what == "acked":
			acked[m] = true
		default:
			t.Errorf("a program says %q", line)
		}
	}
	for n := range victims {
		s, other := sites[n%len(sites)], sites[(n+1)%len(sites)]
		cmd := bash(t, s, strings.Replace(victim, "$1", fmt.Sprint(n*1000), 1))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + rnd.IntN(3) {
			if lines.Scan() {
				tell(lines.Text())
			}
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(lifetime)))) // it dies anywhere
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		died := time.Now()
		for lines.Scan() {
			tell(lines.Text())
		}
		_ = cmd.Wait() // it was killed
		got := sh(t, other, "flock locks/v cat kv/v/a kv/v/b")
		if a, b, _ := strings.Cut(strings.TrimSpace(got), "\n"); a != b {
			t.Errorf("of two values that are changed at once one is %s and the other %s", a, b)
		}
		if d := time.Since(died); d > succession {
			t.Errorf("a killed program's lock was another's after %v", d)
		}
		cluster.Await(t, succession, func() error {
			if text := sh(t, other, "cat queues/v/inflight"); text != "" {
				return fmt.Errorf("a killed program has %s", text)
			}
			return nil
		})
	}
	rest := sh(t, sites[1], "while m=$(cat queues/v/pop@0 2>/dev/null); do echo took $m; echo acked $m; done")
	for line := range strings.Lines(rest) {
		tell(strings.TrimSpace(line))
	}
	unknown := 0
	for m := 1; m <= messages; m++ {
		switch text := fmt.Sprint(m); {
		case !took[text]: // what was acknowledged and not told of was told to be taken before
			t.Errorf("message %d was never delivered", m)
		case !acked[text]:
			unknown++
		}
	}
	t.Logf("%d programs killed; %d messages, %d of which a program acknowledged and did not tell", victims, messages, unknown)
	if unknown > victims {
		t.Errorf("%d of %d messages are gone and nobody acknowledged them", unknown, messages)
	}
}

// stopped has a program lock a name for a time, and stops it for longer. What it
// then asks for under its token is refused: a value, a message and the lock itself.
func stopped(t *testing.T, sites []*site) {
	first, second := sites[0], sites[1]
	if got := sh(t, first, "mkdir kv/s queues/s"); got != "" {
		t.Fatal(got)
	}
	cmd := bash(t, first, `
		echo 'acquire id one ttl 1s' >locks/s
		token=$(awk '/^token/{print $2}' locks/s)
		write() {
			exec 3<>kv/s/.txn; printf "fence s:$token\nput x $1\ncommit\n" >&3 && echo value; exec 3>&-
			exec 3<>queues/s/send; echo "token=s:$token $1" >&3 && echo message; exec 3>&-
		}
		write first; echo ready; kill -STOP $$
		write again; echo "renew one ttl 60s" >locks/s; echo over`)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(out)
	var said []string
	until := func(last string) {
		t.Helper()
		for lines.Scan() {
			if said = append(said, lines.Text()); lines.Text() == last {
				return
			}
		}
		t.Fatalf("the first program ends, having said %q, %s", said, errs.String())
	}
	until("ready")
	const next = `exec 9<>locks/s; flock 9; token=$(awk '/^token/{print $2}' locks/s)
		exec 3<>kv/s/.txn; printf "fence s:$token\nput x second\ncommit\n" >&3 && echo value; exec 3>&-
		exec 3<>queues/s/send; echo "token=s:$token second" >&3 && echo message`
	if got := sh(t, second, next); got != "value\nmessage\n" {
		t.Errorf("who came next: %q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until("over")
	if err := cmd.Wait(); err != nil { // all that it said is here then
		t.Log(err)
	}
	if got := strings.Join(said, " "); got != "value message ready over" {
		t.Errorf("the first program did: %s", got)
	}
	if n := strings.Count(errs.String(), "Stale file handle"); n != 3 {
		t.Errorf("of three things, %d are refused as stale: %s", n, errs.String())
	}
	if got := sh(t, second, "cat kv/s/x queues/s/peek"); got != "second\nfirst\nsecond\n" {
		t.Errorf("in the end: %q", got)
	}
}
