// Dosd is one machine's daemon: a machine of a cluster of dos.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"dos/chunk"
	"dos/internal/node"
	"dos/internal/quietlog"
)

const usage = `usage: dosd --data DIR --listen HOST:PORT [flags]

Runs this machine as a part of a cluster until SIGINT or SIGTERM. The first
machine founds the cluster (--bootstrap), the others join it with a token that
dosctl token create prints (--join; of TOKEN as an argument others on the machine
can see it, of @FILE or - for standard input not). Afterwards the same command starts the
machine again. Everything between machines goes over the one TLS port.

%s
example:
  dosd --data /srv/dos --listen 10.0.0.1:7600 --bootstrap
  dosd --data /srv/dos --listen 10.0.0.2:7600 --join @token
`

// errUsage marks what the user has to put right in the command line.
type errUsage struct{ error }

func main() {
	if node.Started(os.Args) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	var wrong errUsage
	switch {
	case errors.As(err, &wrong):
		fmt.Fprintf(os.Stderr, "dosd: %v (try dosd --help)\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "dosd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stdout)
	if err != nil || c == nil {
		return err
	}
	if c.Mount != "" {
		// The kernel has applied each caller's umask already; ours must not add to it.
		syscall.Umask(0)
	}
	slog.SetDefault(slog.New(quietlog.New(slog.NewTextHandler(stderr, nil))))
	c.Ready = func() { fmt.Fprintf(stdout, "dosd: serving on %s\n", c.Listen) }
	return node.RunMachine(ctx, *c)
}

// parse returns nil and no error when help or the version was asked for.
func parse(args []string, stdout io.Writer) (*node.MachineConfig, error) {
	var c node.MachineConfig
	var version bool
	var code string
	var labels, resources []string
	flags := pflag.NewFlagSet("dosd", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	flags.StringVar(&c.Data, "data", "", "what the machine keeps, in `DIR`; made if missing")
	flags.StringVar(&c.Listen, "listen", "", "serve on `HOST:PORT`, by which the other machines reach this one")
	flags.StringSliceVar(&c.Roles, "roles", node.Roles, "what the machine does, `ROLE[,ROLE]`")
	flags.StringArrayVar(&c.Disks, "disk", nil, "a folder `DIR` for a store, one a disk (default one store in --data)")
	flags.StringVar(&c.Name, "name", "", "the machine's `NAME` for good (default the host's)")
	flags.StringVar(&c.Zone, "zone", "", "the `ZONE` whose machines fail together: a rack, a room")
	flags.StringArrayVar(&labels, "label", nil, "`K=V`, for people and for tasks")
	flags.StringArrayVar(&resources, "resource", nil, "`K=N` that tasks may use here: any kind, or less cpu, mem, gpu")
	flags.BoolVar(&c.Bootstrap, "bootstrap", false, "found a cluster if DIR is new; take over an embedded one")
	flags.StringVar(&code, "ec", "", "erasure code `K+M` of a new cluster (default 4+2)")
	flags.StringVar(&c.Join, "join", "", "join the cluster that gave `TOKEN`, or @FILE or -, if DIR is new")
	flags.StringVar(&c.Mount, "mount", "", "mount the tree at `MOUNTPOINT` too, for the machine's tasks")
	flags.StringVar(&c.Redis, "redis", "", "speak the protocol of Redis on `HOST:PORT`; off by default (without a password only on 127.0.0.1)")
	flags.StringVar(&c.HTTP, "http", "", "serve files and calls by plain HTTP on `HOST:PORT`; likewise")
	flags.StringVar(&c.Debug, "debug", "", "serve profiles (net/http/pprof) and /metrics on `ADDR`; off by default")
	flags.BoolVar(&version, "version", false, "print the version")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(stdout, usage, flags.FlagUsages())
		return nil, nil
	case err != nil:
		return nil, errUsage{err}
	case version:
		fmt.Fprintln(stdout, "dosd", node.Version())
		return nil, nil
	case flags.NArg() > 0:
		return nil, errUsage{fmt.Errorf("takes no arguments, not %q", flags.Arg(0))}
	case c.Data == "" || c.Listen == "":
		return nil, errUsage{errors.New("needs --data and --listen")}
	case c.Bootstrap && c.Join != "":
		return nil, errUsage{errors.New("--bootstrap founds a cluster, --join joins one: not both")}
	case code != "" && !c.Bootstrap:
		return nil, errUsage{errors.New("--ec goes with --bootstrap")}
	}
	for _, role := range c.Roles {
		if !slices.Contains(node.Roles, role) {
			return nil, errUsage{fmt.Errorf("no role %q: %s", role, strings.Join(node.Roles, ", "))}
		}
	}
	if c.Code, err = chunk.ParseCode(code); err != nil {
		return nil, errUsage{fmt.Errorf("--ec %w", err)}
	}
	if c.Resources, err = node.ParseResources(resources); err != nil {
		return nil, errUsage{fmt.Errorf("--resource %w", err)}
	}
	c.Labels = make(map[string]string)
	for _, label := range labels {
		key, val, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return nil, errUsage{fmt.Errorf("--label %q: K=V is needed", label)}
		}
		c.Labels[key] = val
	}
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return nil, err
	}
	if c.Mount != "" {
		if c.Mount, err = filepath.Abs(c.Mount); err != nil {
			return nil, err
		}
	}
	for i := range c.Disks {
		if c.Disks[i], err = filepath.Abs(c.Disks[i]); err != nil {
			return nil, err
		}
	}
	return &c, nil
}
