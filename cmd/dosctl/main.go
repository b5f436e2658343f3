// Dosctl administers dos without a mount.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/pflag"

	"dos/internal/admin"
	"dos/internal/node"
	"dos/internal/quietlog"
	"dos/procfs/cluster"
)

const usage = `usage: dosctl [--data DIR] VERB [flags]

  status           is my data safe, what is going on
  fsck [--verify]  check that every extent has its stripes, every stripe its
                   shards, every inode its name; --verify reads every shard too.
                   Works on a running dos, else on the directory itself; then
                   --salvage opens metadata whose log lost its end
  scrub            read every record of every store now, and mend what is bad
  replace STORE    give up what a lost store had: it starts empty and is rebuilt.
                   That happens by itself unless so many are lost that data
                   cannot be read without them
  dump FILE        write the metadata to FILE, a copy of DIR/meta at one moment
  restore FILE     make DIR/meta anew from a dump (dos must not run on DIR)

  --data DIR       the data directory of an embedded cluster
                   (default: that of the one that runs)
  --json           print JSON where a table would be printed
  --version        print the version

example:
  dosctl --data /srv/dos fsck --verify
`

// errUsage marks what the user has to put right in the command line.
type errUsage struct{ error }

// errProblems says that the check itself worked and found something.
var errProblems = errors.New("problems were found")

func main() {
	// What a verb finds is its output; of what happens below it only trouble is news.
	slog.SetDefault(slog.New(quietlog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	var wrong errUsage
	switch {
	case errors.As(err, &wrong):
		fmt.Fprintf(os.Stderr, "dosctl: %v (try dosctl --help)\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "dosctl:", err)
		os.Exit(1)
	}
}

// command is what the command line said.
type command struct {
	data    string
	json    bool
	verify  bool
	salvage bool
	args    []string // after the verb
	out     io.Writer
}

// verbs lists what dosctl can do, with the number of arguments each takes.
var verbs = map[string]struct {
	args int
	run  func(ctx context.Context, c command) error
}{
	"status":  {0, status},
	"fsck":    {0, fsck},
	"scrub":   {0, scrub},
	"replace": {1, replace},
	"dump":    {1, dump},
	"restore": {1, restore},
}

func run(ctx context.Context, args []string, out io.Writer) error {
	c := command{out: out}
	var version bool
	flags := pflag.NewFlagSet("dosctl", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.StringVar(&c.data, "data", "", "")
	flags.BoolVar(&c.json, "json", false, "")
	flags.BoolVar(&c.verify, "verify", false, "")
	flags.BoolVar(&c.salvage, "salvage", false, "")
	flags.BoolVar(&version, "version", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(out, usage)
		return nil
	case err != nil:
		return errUsage{err}
	case version:
		fmt.Fprintln(out, "dosctl", node.Version())
		return nil
	case flags.NArg() == 0:
		return errUsage{errors.New("needs a verb")}
	}
	name := flags.Arg(0)
	c.args = flags.Args()[1:]
	verb, ok := verbs[name]
	switch {
	case !ok:
		return errUsage{fmt.Errorf("no verb %q", name)}
	case len(c.args) != verb.args:
		return errUsage{fmt.Errorf("%s takes %d arguments, not %d", name, verb.args, len(c.args))}
	case (c.verify || c.salvage) && name != "fsck":
		return errUsage{errors.New("--verify and --salvage go with fsck")}
	}
	if c.data == "" {
		if c.data, err = node.Running(ctx); err != nil {
			return err
		}
	}
	if c.data, err = filepath.Abs(c.data); err != nil {
		return err
	}
	return verb.run(ctx, c)
}

func status(ctx context.Context, c command) error {
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	var s cluster.Status
	if err := client.Status(ctx, &s); err != nil {
		return err
	}
	if c.json {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	_, err = io.WriteString(c.out, s.Text())
	return err
}

func fsck(ctx context.Context, c command) error {
	say := func(line string) { fmt.Fprintln(c.out, line) }
	var problems int
	client, err := dial(ctx, c)
	switch {
	case errors.Is(err, node.ErrNotRunning):
		problems, err = node.FsckOffline(ctx, c.data, node.FsckOptions{Data: c.verify, Salvage: c.salvage}, say)
	case c.salvage && err == nil:
		return errors.New("--salvage works on a directory on which no dos runs")
	case err == nil:
		problems, err = client.Fsck(ctx, c.verify, say)
	}
	if err == nil && problems > 0 {
		return errProblems
	}
	return err
}

func scrub(ctx context.Context, c command) error {
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	problems, err := client.Scrub(ctx, func(line string) { fmt.Fprintln(c.out, line) })
	if err == nil && problems > 0 {
		return errProblems
	}
	return err
}

func replace(ctx context.Context, c command) error {
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	return client.Replace(ctx, c.args[0])
}

// dump writes to a temporary name first: a FILE that exists is a whole dump.
func dump(ctx context.Context, c command) (err error) {
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	name := c.args[0]
	f, err := os.CreateTemp(filepath.Dir(name), ".dump-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	defer f.Close()
	w := bufio.NewWriter(f)
	if err := client.Dump(ctx, w); err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func restore(ctx context.Context, c command) error {
	f, err := os.Open(c.args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if err := node.Restore(ctx, c.data, bufio.NewReader(f)); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "restored: the tree is as it was when the dump was made.")
	fmt.Fprintln(c.out, "The next dosmount deletes data that was written since, for nothing names it any more;")
	fmt.Fprintln(c.out, "if you kept the old meta folder and want to go back to it, do so before.")
	return nil
}

// dial finds out whether a dos runs on the data directory.
func dial(ctx context.Context, c command) (*admin.Client, error) {
	sock, err := node.Socket(ctx, c.data)
	if err != nil {
		return nil, err
	}
	return admin.Dial(sock), nil
}
