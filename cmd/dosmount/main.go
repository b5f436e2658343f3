// Dosmount mounts dos: one tree of files and special files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"dos/chunk"
	"dos/fuse"
	"dos/internal/node"
	"dos/internal/quietlog"
)

// memoryLimit makes the collector work harder before the process grows beyond
// what an administrator expects of it, in bytes. GOMEMLIMIT overrides it.
const memoryLimit = 560 << 20

const usage = `usage: dosmount [flags] MOUNTPOINT

Mounts dos at MOUNTPOINT and stays in the foreground until SIGINT, SIGTERM or
umount. Without --cluster it runs an embedded one: a metadata member and six
chunk stores in --data, erasure coded 4+2, so that any two of the folders
DIR/chunk/0 … 5 can be lost.

%s
example:
  dosmount --data /srv/dos /dos
  cp -a ~/photos /dos/ && cat /dos/cluster/status
  dosmount --cluster 10.0.0.1:7600,10.0.0.2:7600 /dos
`

// config is everything dosmount can be told. There is no configuration file.
type config struct {
	mountPoint string
	data       string
	code       string // K+M; empty: what the data directory has, else 4+2
	cluster    []string
	identity   string
	subtree    string
	options    []string
	background bool
	debug      string
	redis      string
	http       string
}

// errUsage marks what the user has to put right in the command line.
type errUsage struct{ error }

func main() {
	if node.Started(os.Args) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	var wrong errUsage
	switch {
	case errors.As(err, &wrong):
		fmt.Fprintf(os.Stderr, "dosmount: %v (try dosmount --help)\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "dosmount:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stdout)
	if err != nil || c == nil {
		return err
	}
	code, err := chunk.ParseCode(c.code)
	if err != nil {
		return errUsage{fmt.Errorf("--ec %w", err)}
	}
	options, err := fuse.ParseOptions(c.options...)
	if err != nil {
		return errUsage{err}
	}
	if c.background && !isBackground() {
		return background(ctx, args, stdout, stderr)
	}
	slog.SetDefault(slog.New(quietlog.New(slog.NewTextHandler(stderr, nil))))
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	// The kernel has applied each caller's umask already; ours must not add to it.
	syscall.Umask(0)
	return node.Mount(ctx, node.MountConfig{
		Data:       c.data,
		Code:       code,
		Cluster:    c.cluster,
		Identity:   c.identity,
		MountPoint: c.mountPoint,
		Subtree:    c.subtree,
		Options:    options,
		Debug:      c.debug,
		Redis:      c.redis,
		HTTP:       c.http,
		Tasks:      true,
		Ready: func() {
			if isBackground() {
				if err := settle(c.data); err != nil {
					slog.Warn("dosmount: going to the background", "err", err)
				}
			}
			fmt.Fprintf(stdout, "dos: mounted at %s\n", c.mountPoint)
		},
	})
}

// parse returns nil and no error when help or the version was asked for.
func parse(args []string, stdout io.Writer) (*config, error) {
	var c config
	var version bool
	flags := pflag.NewFlagSet("dosmount", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	flags.StringVar(&c.data, "data", "", "keep the cluster in `DIR`; made if missing (default "+defaultData()+")")
	flags.StringVar(&c.code, "ec", "", "erasure code `K+M` of a new DIR, with K+M stores (default 4+2)")
	flags.StringSliceVar(&c.cluster, "cluster", nil, "mount the cluster of the machines at `HOST:PORT[,HOST:PORT]` instead")
	flags.StringVar(&c.identity, "identity", "", "with --cluster: the `FILE` that dosctl login made (default "+node.DefaultIdentity()+")")
	flags.StringSliceVarP(&c.options, "options", "o", nil, "mount options, `OPT[,OPT]`: ro, allow_other, sync, noatime, …")
	flags.StringVar(&c.subtree, "subtree", "", "mount the directory `PATH` of the tree alone, without special directories")
	flags.BoolVarP(&c.background, "background", "d", false, "go to the background once mounted; log to DIR/dosmount.log")
	flags.StringVar(&c.redis, "redis", "", "speak the protocol of Redis on `HOST:PORT`, embedded; off by default (without a password only on 127.0.0.1)")
	flags.StringVar(&c.http, "http", "", "serve files and calls by plain HTTP on `HOST:PORT`; likewise")
	flags.StringVar(&c.debug, "debug", "", "serve profiles (net/http/pprof) and /metrics on `ADDR`; off by default")
	flags.BoolVar(&version, "version", false, "print the version")

	helper := filepath.Base(args[0]) == "mount.dos"
	var sloppy, fake, noMtab, verbose bool
	if helper { // mount(8) calls: mount.dos SPEC DIR [-sfnv] [-o OPT]
		flags.BoolVarP(&sloppy, "sloppy", "s", false, "")
		flags.BoolVarP(&fake, "fake", "f", false, "")
		flags.BoolVarP(&noMtab, "no-mtab", "n", false, "")
		flags.BoolVarP(&verbose, "verbose", "v", false, "")
	}
	err := flags.Parse(args[1:])
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(stdout, usage, flags.FlagUsages())
		return nil, nil
	case err != nil:
		return nil, errUsage{err}
	case version:
		fmt.Fprintln(stdout, "dosmount", node.Version())
		return nil, nil
	}

	rest := flags.Args()
	if helper {
		if len(rest) != 2 {
			return nil, errUsage{errors.New("mount.dos needs a data directory, or a cluster's HOST:PORT, and a mount point")}
		}
		switch {
		case strings.HasPrefix(rest[0], "/"):
			c.data = rest[0]
		case strings.Contains(rest[0], ":"):
			c.cluster = strings.Split(rest[0], ",")
		}
		rest = rest[1:]
		c.background = true
		if fake {
			return nil, nil
		}
	}
	if len(rest) != 1 {
		return nil, errUsage{fmt.Errorf("needs one mount point, not %d", len(rest))}
	}
	switch {
	case len(c.cluster) > 0 && (c.data != "" || c.code != ""):
		return nil, errUsage{errors.New("--data and --ec are an embedded cluster's: they do not go with --cluster")}
	case len(c.cluster) > 0 && (c.redis != "" || c.http != ""):
		return nil, errUsage{errors.New("--redis and --http are an embedded cluster's: in others they are flags of dosd")}
	case len(c.cluster) == 0 && c.identity != "":
		return nil, errUsage{errors.New("--identity goes with --cluster")}
	}
	for _, addr := range c.cluster {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, errUsage{fmt.Errorf("--cluster %s: HOST:PORT is needed", addr)}
		}
	}
	if c.identity == "" {
		c.identity = node.DefaultIdentity()
	}
	if c.data == "" {
		c.data = defaultData()
	}
	for _, path := range []*string{&c.data, &c.mountPoint} {
		if path == &c.mountPoint {
			*path = rest[0]
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func defaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/dos"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "dos")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return filepath.Join(home, ".local", "state", "dos")
}
