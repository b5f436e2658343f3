package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrongUse pins what is said about a command line that cannot be meant, before
// anything is asked or touched.
func TestWrongUse(t *testing.T) {
	for _, test := range []struct{ args, says string }{
		{"", "needs a verb"},
		{"fly", `no verb "fly"`},
		{"node", "node: what about it? list, drain, resume, remove"},
		{"node fly", "node: what about it? list, drain, resume, remove"},
		{"token", "token: what about it? create, list, delete"},
		{"status extra", "status: it takes no argument"},
		{"node drain", "node drain NAME: it takes one argument"},
		{"token create a b", "token create: it takes no argument"},
		{"status --verify", "--verify does not go with status"},
		{"node drain x --rights rw", "--rights does not go with node drain"},
		{"token create --node --client", "for a machine (--node) or for who mounts and administers (--client)"},
		{"token create --rights rw", "--rights goes with --client"},
		{"token create --client --rights root", `--rights "root": ro, rw or admin is needed`},
		{"token create --ttl 0", "a time such as 30m, 12h or 7d is needed"},
		{"token create --ttl 1.5d", "a time such as 30m, 12h or 7d is needed"},
		{"--cluster nowhere status", `--cluster "nowhere": HOST:PORT is needed`},
		{"--cluster a:1 --data /x status", "one of them is enough"},
		{"restore x", "--data DIR"},
		{"lock x", "lock NAME -- COMMAND…"},
		{"lock status", "lock status NAME: it takes one argument"},
		{"queue take x", "queue take NAME -- COMMAND…"},
		{"queue ctl", "queue ctl NAME SETTING…"},
		{"queue pop x --follow", "--follow does not go with queue pop"},
		{"status --shared", "--shared does not go with status"},
		{"--fly status", "--fly"},
	} {
		var out, errout bytes.Buffer
		err := run(t.Context(), strings.Fields(test.args), &out, &errout)
		var wrong errUsage
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") || out.Len()+errout.Len() > 0 {
			t.Errorf("dosctl %s: %v, printed %q %q; want wrong use that says %q", test.args, err, &out, &errout, test.says)
		}
	}
}

// TestCannot pins what is said when the command line is right and it cannot be done.
func TestCannot(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(clusterEnv, "nowhere")
	for _, test := range []struct{ args, says string }{
		{"--data " + dir + " status", "is not a data directory of dos"},
		{"--mount " + dir + " node list", "is no mount of dos"},
		{"--cluster 127.0.0.1:1 --identity " + dir + "/none status", "dosctl login makes it"},
		{"--identity " + filepath.Join(dir, "id") + " login x/y", "as dosctl token create prints it"},
	} {
		err := run(t.Context(), strings.Fields(test.args), new(bytes.Buffer), new(bytes.Buffer))
		var wrong errUsage
		if err == nil || errors.As(err, &wrong) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("dosctl %s: %v; want a failure that says %q", test.args, err, test.says)
		}
	}
}

// Every verb that is told of in the help is there, and the other way round.
func TestHelpIsWhole(t *testing.T) {
	for _, v := range verbs {
		for word := range strings.FieldsSeq(v.name) {
			if !strings.Contains(usage, word) {
				t.Errorf("the help does not tell of %q of %s", word, v.name)
			}
		}
		for _, flag := range v.flags {
			if flag != "node" && !strings.Contains(usage, "--"+flag) {
				t.Errorf("the help does not tell of --%s", flag)
			}
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]string{"30m": "30m0s", "7d": "168h0m0s", "1h30m": "1h30m0s"} {
		var d duration
		if err := d.Set(text); err != nil || d.String() != want {
			t.Errorf("%s is %v, %v; want %s", text, d, err, want)
		}
	}
}
