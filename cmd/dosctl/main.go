// Dosctl administers dos without a mount.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"dos/internal/node"
)

const usage = `usage: dosctl [flags] VERB …

  status [--long]     is my data safe, what is going on, what should I do
  events [--follow]   what happened
  fsck [--verify]     check names, extents, stripes, shards (--verify: bytes; --salvage: a broken log)
  scrub | replace STORE   read every record now, and mend what is bad | give up what a lost store had
  dump|restore FILE | recover [--yes]   copy the metadata, make DIR/meta from it | go on when most others are lost
  node list | node drain|resume|remove NAME          the machines of a cluster
  token create [NAME] [--client|--password [--rights ro|rw|admin]] [--ttl 1h] | token list|delete HASH
  kv get|put|del|scan|watch TABLE/KEY [--only VERSION] [--ttl 1h] [--after REVISION] | kv txn <STEPS
  queue list | queue make|remove|status|peek|inflight|log|ctl NAME [SETTING…]
  queue push|send|put NAME <TEXT | queue pop|take NAME [--wait 5s] [--follow] [-- COMMAND…]
  cache list | cache make|remove|status|watch|ctl BUCKET | cache get|put|del|incr|scan BUCKET/KEY
  login TOKEN|@FILE|- [--name NAME]                  join as a client
  lock NAME [--shared] -- COMMAND…                   run it with a lock held | lock status NAME
  identity list | identity revoke NAME [--node] | authority rotate [--now]   who has joined; whom to trust
  run [cpu=2 mem=1g…] -- COMMAND…                    run it on some machine, as if it were this one
  task list | task show|cancel ID | task ctl ID COMMAND… | top      tasks; all, live

  --cluster HOST:PORT[,…] --identity FILE   a cluster, and who you are for it
  --data DIR, --mount DIR   the dos here (default: the one that runs, else $DOS_CLUSTER)
  --json              for programs, where a table is printed; --version
example:
  dosctl --cluster 10.0.0.1:7600 status
`

// errUsage marks what the user has to put right in the command line.
type errUsage struct{ error }

func wrong(format string, args ...any) error { return errUsage{fmt.Errorf(format, args...)} }

// errProblems says that the check itself worked and found something.
var errProblems = errors.New("problems were found")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	var wrong errUsage
	var status errStatus
	switch {
	case errors.As(err, &status):
		os.Exit(int(status))
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
	where
	flags  flags
	args   []string // after the verb
	dash   int      // how many of them come before "--"; below 0: there is none
	in     io.Reader
	out    io.Writer
	errout io.Writer
}

// A verb is one thing that dosctl can do.
type verb struct {
	name  string   // one word or two
	args  []string // what each argument is called
	rest  int      // at least so many arguments, and any that follow; 0: those in args
	flags []string // those that go with it, beyond the common ones
	run   func(ctx context.Context, c command) error
}

// verbs lists them all, each group in a file of its own.
var verbs = slices.Concat(dataVerbs, kvVerbs, lockVerbs, queueVerbs, cacheVerbs, taskVerbs, topVerbs, nodeVerbs, accessVerbs)

// flags are those that go with some verbs only.
type flags struct {
	json, long, verify, salvage, follow, node, client, password, now, yes, shared bool

	rights, name, wait string

	ttl         duration
	only, after version
}

func run(ctx context.Context, args []string, out, errout io.Writer) error {
	c := command{in: os.Stdin, out: out, errout: errout}
	var version bool
	set := pflag.NewFlagSet("dosctl", pflag.ContinueOnError)
	set.Usage = func() {}
	common := c.where.flags(set)
	set.BoolVar(&c.flags.json, "json", false, "")
	set.BoolVar(&c.flags.long, "long", false, "")
	set.BoolVar(&c.flags.verify, "verify", false, "")
	set.BoolVar(&c.flags.salvage, "salvage", false, "")
	set.BoolVar(&c.flags.follow, "follow", false, "")
	set.BoolVar(&c.flags.node, "node", false, "")
	set.BoolVar(&c.flags.client, "client", false, "")
	set.BoolVar(&c.flags.password, "password", false, "")
	set.BoolVar(&c.flags.now, "now", false, "")
	set.BoolVar(&c.flags.yes, "yes", false, "")
	set.BoolVar(&c.flags.shared, "shared", false, "")
	set.StringVar(&c.flags.rights, "rights", "", "")
	set.StringVar(&c.flags.name, "name", "", "")
	set.StringVar(&c.flags.wait, "wait", "", "")
	set.Var(&c.flags.ttl, "ttl", "")
	set.Var(&c.flags.only, "only", "")
	set.Var(&c.flags.after, "after", "")
	set.BoolVar(&version, "version", false, "")
	err := set.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(out, usage)
		return nil
	case err != nil:
		return errUsage{err}
	case version:
		fmt.Fprintln(out, "dosctl", node.Version())
		return nil
	case set.NArg() == 0:
		return wrong("needs a verb")
	}
	v, rest, err := find(set.Args())
	if err != nil {
		return err
	}
	c.args = rest
	c.dash = set.ArgsLenAtDash() - (set.NArg() - len(rest))
	set.Visit(func(f *pflag.Flag) {
		if err == nil && !slices.Contains(common, f.Name) && !slices.Contains(v.flags, f.Name) {
			err = wrong("--%s does not go with %s", f.Name, v.name)
		}
	})
	if err == nil && v.rest > 0 && len(rest) < v.rest {
		err = wrong("%s: that is what it takes", v.usage())
	}
	if err == nil && v.rest == 0 && len(rest) != len(v.args) && !(v.flagged("client") && len(rest) <= 1) {
		err = wrong("%s: it takes %s", v.usage(), counted(len(v.args)))
	}
	if err == nil {
		err = c.where.check()
	}
	if err != nil {
		return err
	}
	return v.run(ctx, c)
}

func (v verb) flagged(name string) bool { return slices.Contains(v.flags, name) }

// usage is the verb with its arguments.
func (v verb) usage() string { return strings.Join(append([]string{v.name}, v.args...), " ") }

func counted(n int) string {
	return [...]string{"no argument", "one argument", "two arguments"}[n]
}

// find returns the verb that the words begin with, and the words after it.
func find(words []string) (verb, []string, error) {
	var second []string // the verbs of two words that begin with the first
	for _, v := range verbs {
		name := strings.Fields(v.name)
		switch {
		case name[0] != words[0]:
		case len(name) == 1:
			return v, words[1:], nil
		case len(words) > 1 && words[1] == name[1]:
			return v, words[2:], nil
		default:
			second = append(second, name[1])
		}
	}
	if len(second) > 0 {
		return verb{}, nil, wrong("%s: what about it? %s", words[0], strings.Join(second, ", "))
	}
	return verb{}, nil, wrong("no verb %q", words[0])
}
