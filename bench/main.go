// Bench compares dos with the file system below it and with a pass-through
// FUSE mount of that, side by side in one run.
//
// The pass-through mount (PT) is go-fuse's loopback: each byte crosses a
// server in user space, as with dos, and that server does nothing but repeat
// the system call. So dos/PT is what dos costs, whatever the machine. PT and
// dos take turns, three rounds, and the medians count. Only the one that is
// measured is mounted. Cold means: unmounted, the kernel's caches dropped,
// mounted again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const usage = `usage: go run ./bench --data DIR [--services | --tasks] [--quick] [--json FILE]

Runs the fio jobs of bench/fio and a metadata benchmark in new directories below
DIR: on the file system of DIR, on a pass-through FUSE mount of it (PT), and on
dos with its data there. Prints medians and ratios. Takes a quarter of an hour,
with --quick some minutes, and about 4 GiB below DIR. Needs fio; root for cold caches.
With --services it measures locks, queues, watches, the cache, calls and the port for Redis instead, of three
machines on loopback, beside gRPC and, if they are installed, etcd, Redis, NATS JetStream and memcached; with
--tasks the jobs of one machine, beside those of Slurm if that is installed.

flags:
`

type config struct {
	data     string
	quick    bool
	json     string
	dosmount string
	cluster  bool
	services bool
	tasks    bool
	only     string
}

// errUsage marks what the user has to put right in the command line.
var errUsage = errors.New("wrong use")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "bench: %v (try --help)\n", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 && args[0] == ptFlag {
		if len(args) != 3 {
			return fmt.Errorf("%w: %s SOURCE MOUNTPOINT", errUsage, ptFlag)
		}
		return servePT(ctx, args[1], args[2], out)
	}
	var c config
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&c.data, "data", "", "`DIR` to work below; its file system is the plain one compared with")
	flags.BoolVar(&c.quick, "quick", false, "one round of the most telling cells, with little data")
	flags.StringVar(&c.json, "json", "", "write every measurement to `FILE` too")
	flags.StringVar(&c.dosmount, "dosmount", "", "`FILE` to run as dosmount; default: one built from this checkout")
	flags.BoolVar(&c.cluster, "cluster", false, "measure a cluster of 3 + 6 machines on loopback too, beside dos")
	flags.BoolVar(&c.services, "services", false, "measure locks, values and queues beside etcd, Redis, NATS and memcached instead")
	flags.BoolVar(&c.tasks, "tasks", false, "measure tasks beside Slurm instead")
	flags.StringVar(&c.only, "only", "", "run the cells whose name contains `TEXT`")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	switch {
	case c.data == "":
		return fmt.Errorf("%w: --data is needed", errUsage)
	case c.services && c.tasks:
		return fmt.Errorf("%w: either --services or --tasks", errUsage)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: unexpected %q", errUsage, flags.Arg(0))
	}
	if _, err := exec.LookPath("fio"); err != nil && !c.services && !c.tasks {
		return errors.New("fio is not installed: apt-get install fio (or your distribution's package), then again")
	}
	return compare(ctx, c, out)
}

// compare runs everything in a directory that is gone afterwards.
func compare(ctx context.Context, c config, out io.Writer) (err error) {
	data, err := filepath.Abs(c.data)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(data, "dos-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if rm := removeUnmounted(work); rm != nil {
			err = errors.Join(err, rm)
		}
	}()
	if c.dosmount == "" || c.cluster || c.services {
		build := exec.CommandContext(ctx, "go", "build", "-o", work+"/", "dos/cmd/...")
		if msg, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building the commands: %w\n%s", err, msg)
		}
	}
	if c.dosmount == "" {
		c.dosmount = filepath.Join(work, "dosmount")
	}
	if c.tasks {
		return tasks(ctx, c, work, out)
	}
	if c.services {
		return services(ctx, c, work, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dos, err := newDos(ctx, c.dosmount, work)
	if err != nil {
		return err
	}
	pt, err := newPT(self, work, dos.readAhead)
	if err != nil {
		return err
	}
	plain, err := newPlain(work)
	if err != nil {
		return err
	}
	r := &report{Started: time.Now(), Quick: c.quick, ReadAheadKB: dos.readAhead}
	if err := r.describe(ctx, data); err != nil {
		return err
	}
	b := &bench{config: c, targets: []target{plain, pt, dos}, report: r, out: out, work: work}
	if c.cluster {
		machines, err := newCluster(ctx, work, work, apart())
		if err != nil {
			return err
		}
		b.targets = append(b.targets, machines)
	}
	if err := b.run(ctx); err != nil {
		return err
	}
	r.MaxRSSAnon = dos.maxRSS
	r.Seconds = time.Since(r.Started).Seconds()
	if err := r.print(out); err != nil {
		return err
	}
	if c.json == "" {
		return nil
	}
	return r.write(c.json)
}
