package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"dos/internal/admin"
	"dos/internal/node"
)

// where says which dos is meant.
type where struct {
	data     string   // its data directory
	cluster  []string // addresses of machines of a cluster
	identity string   // the file that proves to a cluster who asks
	mount    string   // a mount of it
}

// flags adds the flags that go with every verb, and returns their names.
func (w *where) flags(set *pflag.FlagSet) []string {
	set.StringVar(&w.data, "data", "", "")
	set.StringSliceVar(&w.cluster, "cluster", nil, "")
	set.StringVar(&w.identity, "identity", node.DefaultIdentity(), "")
	set.StringVar(&w.mount, "mount", "", "")
	return []string{"data", "cluster", "identity", "mount"}
}

func (w *where) check() error {
	n := 0
	for _, given := range []bool{w.data != "", len(w.cluster) > 0, w.mount != ""} {
		if given {
			n++
		}
	}
	if n > 1 {
		return wrong("--data, --cluster and --mount each say which dos is meant: one of them is enough")
	}
	for _, addr := range w.cluster {
		if err := checkAddr(addr); err != nil {
			return wrong("--cluster %w", err)
		}
	}
	if w.data == "" {
		return nil
	}
	var err error
	w.data, err = filepath.Abs(w.data)
	return err
}

func checkAddr(addr string) error {
	if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
		return fmt.Errorf("%q: HOST:PORT is needed", addr)
	}
	return nil
}

// clusterEnv names the cluster that is meant where none is named.
const clusterEnv = "DOS_CLUSTER"

// resolve decides which dos is meant if the command line does not say.
func (w *where) resolve(ctx context.Context) error {
	if w.mount != "" {
		addrs, err := mounted(w.mount)
		if err != nil {
			return err
		}
		if w.cluster = addrs; len(addrs) == 0 { // an embedded cluster
			w.data, err = node.Running(ctx)
		}
		return err
	}
	if w.data != "" || len(w.cluster) > 0 {
		return nil
	}
	data, err := node.Running(ctx)
	if err == nil {
		w.data = data
		return nil
	}
	env := os.Getenv(clusterEnv)
	if env == "" {
		if errors.Is(err, node.ErrNotRunning) {
			return fmt.Errorf("no dos runs here: say which is meant, --cluster HOST:PORT (or $%s) or --data DIR", clusterEnv)
		}
		return err
	}
	w.cluster = strings.Split(env, ",")
	for _, addr := range w.cluster {
		if err := checkAddr(addr); err != nil {
			return fmt.Errorf("$%s: %w", clusterEnv, err)
		}
	}
	return nil
}

// mounted returns the addresses of the machines behind a mount; none if it is
// one of an embedded cluster.
func mounted(point string) ([]string, error) {
	list, err := filepath.Glob(filepath.Join(point, "nodes", "*", "status"))
	if err != nil {
		return nil, err
	}
	var addrs []string
	found := false
	for _, name := range list {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		found = true
		for line := range strings.Lines(string(text)) {
			if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == "addr" {
				addrs = append(addrs, value)
			}
		}
	}
	if !found {
		return nil, fmt.Errorf("%s is no mount of dos, or one with --subtree", point)
	}
	return addrs, nil
}

// client returns the way to ask the dos that is meant.
func (c *command) client(ctx context.Context) (*admin.Client, error) {
	if err := c.resolve(ctx); err != nil {
		return nil, err
	}
	if len(c.cluster) > 0 {
		return node.DialCluster(c.cluster, c.identity)
	}
	sock, err := node.Socket(ctx, c.data)
	if err != nil {
		return nil, err
	}
	return admin.Dial(sock), nil
}

// A duration is a flag: what time.ParseDuration takes, and days.
type duration struct{ time.Duration }

func (d *duration) Type() string { return "duration" }

func (d *duration) Set(text string) (err error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		if _, err = fmt.Sscanf(days, "%d", &n); err == nil && fmt.Sprint(n) == days {
			d.Duration = time.Duration(n) * 24 * time.Hour
		} else {
			err = errors.New("not a number of days")
		}
	} else {
		d.Duration, err = time.ParseDuration(text)
	}
	if err != nil || d.Duration <= 0 {
		return errors.New("a time such as 30m, 12h or 7d is needed")
	}
	return nil
}

// ask calls f with a client of the dos that is meant.
func ask(f func(ctx context.Context, c command, client *admin.Client) error) func(context.Context, command) error {
	return func(ctx context.Context, c command) error {
		client, err := c.client(ctx)
		if err != nil {
			return err
		}
		if err := f(ctx, c, client); err != nil {
			return err
		}
		c.freshen(ctx)
		return nil
	}
}

// freshen sees to the identity: nobody else does for a client that only dosctl uses.
func (c *command) freshen(ctx context.Context) {
	if len(c.cluster) == 0 {
		return
	}
	if err := node.Freshen(ctx, c.cluster, c.identity); err != nil {
		fmt.Fprintf(c.errout, "dosctl: the identity in %s is not renewed: %v\n", c.identity, err)
	}
}
