package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/internal/admin"
	"dos/internal/agent"
	"dos/internal/boottime"
	"dos/internal/quietlog"
	"dos/internal/run"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/session"
	"dos/meta/task"
)

// A runner is the process that has a machine's tasks, apart from the one that is the
// machine: this one may be ended and started again, or another version of it, while
// tasks run. It has a session of its own with the metadata service. In the folder
// run of the data directory it has one by its key, which is made of its version and
// configuration:
//
//	run/log          what runners said
//	run/KEY/lock     flock(2) while it runs: "process 1234"; it is changed every second: a beat
//	run/KEY/session  the number of its session
//	run/KEY/hour     until when that is certainly not over (fence), while it lasts
//	run/KEY/lacks    what it has no cgroups for (package run), and why; empty if it has all
//	run/KEY/*.task   of package run: what runs
//
// It is told by signals: HUP to claim no more and end with its last task, USR1
// to end if it has no task, TERM to kill its tasks and end. With nothing running on the
// data directory it ends by itself when it has no task, or its session may be over: so it
// does where the machine was turned out.

// runnerName is by what name this program is started to be a runner, see Started.
const runnerName = "dos-runner"

// Started reports whether this process is the runner of a machine, and if so, has
// been it to its end. Programs that run machines call it first of all.
func Started(args []string) bool {
	if filepath.Base(args[0]) != runnerName {
		return false
	}
	if err := runRunner(args[len(args)-1]); err != nil {
		slog.Error("runner: ends", "err", err)
		os.Exit(1)
	}
	return true
}

// runnerConfig is what a runner is told; it stands in its arguments.
type runnerConfig struct {
	Data     string // the data directory
	Embedded bool   // it is an embedded cluster's, reached by its socket
	Mount    string // where the tree is mounted
	Offer    task.Offer
	Version  string
}

func (c runnerConfig) text() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("node: %v", err)) // it has nothing that cannot be
	}
	return string(text)
}

// runsDir is the folder of the runners of a data directory.
func runsDir(data string) string { return filepath.Join(data, "run") }

func (c runnerConfig) dir() string { return filepath.Join(runsDir(c.Data), keyOf(c.text())) }

func lockFile(dir string) string { return filepath.Join(dir, "lock") }

// takeRunDir takes a runner's folder; nil if another process has it.
func takeRunDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(lockFile(dir), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = noteHolder(lock, "")
	}
	if err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	return lock, nil
}

// runRunner is a runner's life.
func runRunner(text string) error {
	slog.SetDefault(slog.New(quietlog.New(slog.NewTextHandler(os.Stderr, nil))))
	var c runnerConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	lock, err := takeRunDir(c.dir())
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGINT)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	old, err := clearRuns(ctx, c)
	if err != nil {
		return err
	}
	host, err := run.Open(ctx, run.Config{Dir: c.dir(), All: run.Limits{Memory: c.Offer.Have.Mem}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(lacksFile(c.dir()), []byte(host.Lacks()), 0o600); err != nil {
		return err
	}
	r := &runner{cfg: c, host: host, old: append(old, sessionIn(c.dir()))}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { defer stop(); return r.obey(ctx, signals) })
	g.Go(func() error { defer stop(); return r.run(ctx) })
	if err = g.Wait(); errors.Is(err, errLeaves) {
		err = nil
	}
	return errors.Join(err, host.Close())
}

// clearRuns kills what runners that were killed left, and removes their folders. It
// returns what sessions they had.
func clearRuns(ctx context.Context, c runnerConfig) (old []meta.SessionID, err error) {
	dirs, err := runDirs(c)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		lock, err := takeRunDir(dir)
		if err != nil {
			return nil, err
		}
		if lock == nil {
			continue // it runs
		}
		host, err := run.Open(ctx, run.Config{Dir: dir})
		if err == nil {
			err = host.Close()
		}
		lock.Close()
		if err != nil {
			return nil, err
		}
		old = append(old, sessionIn(dir))
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	return old, nil
}

func sessionFile(dir string) string { return filepath.Join(dir, "session") }

// sessionIn is the session that the runner of a folder had last; 0 if it is not known.
func sessionIn(dir string) (id meta.SessionID) {
	text, err := os.ReadFile(sessionFile(dir))
	if err == nil {
		_, err = fmt.Sscan(string(text), &id)
	}
	if err != nil {
		return 0 // it ends by itself
	}
	return id
}

func lacksFile(dir string) string { return filepath.Join(dir, "lacks") }

// lacking is what the runners of a data directory have no cgroups for, and why.
func lacking(data string) string {
	dirs, err := runDirs(runnerConfig{Data: data})
	if err != nil {
		return "" // there was no runner yet
	}
	for _, dir := range dirs {
		if text, err := os.ReadFile(lacksFile(dir)); err == nil && len(text) > 0 && heldRunDir(dir) {
			return string(text)
		}
	}
	return ""
}

// runDirs lists the folders of other runners than c's.
func runDirs(c runnerConfig) (dirs []string, err error) {
	list, err := os.ReadDir(runsDir(c.Data))
	for _, e := range list {
		if dir := filepath.Join(runsDir(c.Data), e.Name()); e.IsDir() && dir != c.dir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs, err
}

// errLeaves ends a runner whose work is done.
var errLeaves = errors.New("nothing is left to do")

type runner struct {
	cfg  runnerConfig
	host *run.Host
	now  current
	old  []meta.SessionID // of runners before it, of which nothing runs any more
}

// orphanWait is how long a runner of which nothing runs waits for its machine to be started again.
const orphanWait = 5 * time.Second

// obey does what signals say, and ends the runner when nobody needs it.
func (r *runner) obey(ctx context.Context, signals <-chan os.Signal) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen := boottime.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				slog.Info("runner: ends with its last task", "tasks", r.now.tasks())
				if !r.now.drain() {
					return errLeaves
				}
			case sig != syscall.SIGUSR1 || r.now.tasks() == 0:
				return errLeaves
			}
		case now := <-tick.C:
			if err := os.Chtimes(lockFile(r.cfg.dir()), time.Time{}, now); err != nil {
				slog.Warn("runner: its machine may think that it stands still", "err", err)
			}
			if admin.Reachable(filepath.Join(r.cfg.Data, "sock")) == nil {
				seen = boottime.Now()
			} else if boottime.Now()-seen > orphanWait && r.now.idle() {
				return errLeaves
			}
		}
	}
}

// run has one session after the other until ctx ends.
func (r *runner) run(ctx context.Context) error {
	sender, follow, err := r.dial()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return follow(ctx) })
	g.Go(func() error {
		for {
			err := r.session(ctx, sender)
			switch {
			case ctx.Err() != nil:
				return nil
			case err == nil:
				return errLeaves
			}
			slog.Warn("runner: the session is over; nothing runs any more", "err", err)
			if sleep(ctx, retryEvery) != nil {
				return nil
			}
		}
	})
	return g.Wait()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// session runs tasks for as long as one session lasts. It returns nil if it was told
// to drain, and has.
func (r *runner) session(ctx context.Context, sender client.Sender) error {
	var visit *client.Visit
	err := insist(ctx, "opening a session for tasks", func(ctx context.Context) (err error) {
		visit, err = client.NewVisit(ctx, sender, session.Runner, r.cfg.Offer.Node)
		return err
	})
	if err != nil || visit == nil {
		return err
	}
	if err := os.WriteFile(sessionFile(r.cfg.dir()), fmt.Appendln(nil, visit.Session()), 0o600); err != nil {
		slog.Warn("runner: if it is killed its tasks will wait", "err", err)
	}
	r.endOld(ctx, sender)
	defer leave(ctx, visit)
	until, err := beginHour(r.cfg.dir(), visit.Left)
	if err != nil {
		return fmt.Errorf("the hour until which tasks may run: %w", err)
	}
	a := agent.New(agent.Config{
		Offer: r.cfg.Offer, Mount: r.cfg.Mount, Host: r.host, Tasks: client.Tasks{Caller: visit},
		Session: visit.Session(), Left: visit.Left, Key: fmt.Sprintf("%s.%d", keyOf(r.cfg.dir()), visit.Session()),
	})
	if !r.now.begin(a, visit.Left) {
		return until.end()
	}
	defer r.now.begin(nil, nil)
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	kept, told := make(chan error, 1), make(chan struct{})
	work, give := context.WithCancelCause(ctx)
	go func() { // ends with stop, below
		kept <- visit.Run(keep, func() { give(meta.Expired) })
	}()
	go func() { // likewise
		until.run(keep)
		close(told)
	}()
	err = a.Run(work)
	if cause := context.Cause(work); err == nil && errors.Is(cause, meta.Expired) {
		err = cause
	}
	give(nil)
	stop()
	<-kept
	<-told
	if e := until.end(); e != nil {
		slog.Warn("runner: the hour of a session that has ended stays", "err", e)
	}
	return err
}

// leave ends a session in which nothing runs.
func leave(ctx context.Context, visit *client.Visit) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), partWait)
	defer cancel()
	if err := visit.End(ctx); err != nil {
		slog.Warn("runner: the session is left to end by itself", "err", err)
	}
}

// endOld ends the sessions of runners that were killed, so that what they ran need
// not wait until these end by themselves.
func (r *runner) endOld(ctx context.Context, sender client.Sender) {
	ctx, cancel := context.WithTimeout(ctx, partWait)
	defer cancel()
	for _, id := range r.old {
		if id == 0 {
			continue
		}
		if err := (client.Session{Caller: client.Direct(sender, 0)}).End(ctx, id); err != nil && !errors.Is(err, meta.Expired) && !errors.Is(err, meta.NotExist) {
			slog.Warn("runner: an earlier one's session is left to end by itself", "session", id, "err", err)
		}
	}
	r.old = nil
}

// partWait bounds how long a runner tries to end its session: it ends by itself.
const partWait = 3 * time.Second

// dial is the way to the metadata service, and what keeps it right.
func (r *runner) dial() (client.Sender, func(context.Context) error, error) {
	if r.cfg.Embedded {
		return door{Client: admin.Dial(filepath.Join(r.cfg.Data, "sock"))}, func(context.Context) error { return nil }, nil
	}
	d := dataDir{path: r.cfg.Data, node: r.cfg.Offer.Node}
	keys, err := d.keyring()
	if err != nil {
		return nil, nil, err
	}
	service, err := r.reach(d, keys)
	if err != nil {
		return nil, nil, err
	}
	return service.Client, func(ctx context.Context) error {
		defer service.close()
		return r.refresh(ctx, d, keys, service)
	}, nil
}

func (r *runner) reach(d dataDir, keys *trust.Keyring) (*metaService, error) {
	peers, err := d.peers()
	if err != nil {
		return nil, err
	}
	own, err := d.addr()
	if err != nil {
		return nil, err
	}
	return dialMeta(keys, nil, append(peers, own))
}

// refreshEvery is how often a runner looks for other addresses of the service and for
// its machine's new certificate, which has much longer to go.
const refreshEvery = 10 * time.Second

func (r *runner) refresh(ctx context.Context, d dataDir, keys *trust.Keyring, service *metaService) error {
	var last []byte
	for {
		if sleep(ctx, refreshEvery) != nil {
			return nil
		}
		if credentials, err := trust.Load(d.identity()); err == nil && string(credentials) != string(last) {
			if err := keys.Replace(credentials); err != nil {
				slog.Warn("runner: the machine's identity", "err", err)
			}
			last = credentials
		}
		ask, cancel := context.WithTimeout(ctx, refreshEvery)
		known, err := client.Members{Caller: service.anyone()}.Map(ask, 0)
		cancel()
		if addrs := addrsOf(known); err == nil && len(addrs) > 0 {
			service.SetMembers(addrs)
		}
	}
}
