package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	for _, test := range []struct {
		args string
		want config
		fail string // in the error; it is a usage error
	}{
		{"dosmount --data /d /m", config{mountPoint: "/m", data: "/d"}, ""},
		{"dosmount /m --data=/d/../e -d -o ro,sync -o noatime --ec 2+1",
			config{mountPoint: "/m", data: "/e", code: "2+1", background: true, options: []string{"ro", "sync", "noatime"}}, ""},
		{"mount.dos /srv/dos /m -o rw,noatime", config{mountPoint: "/m", data: "/srv/dos", background: true, options: []string{"rw", "noatime"}}, ""},
		{"mount.dos dos /m -s -n -v", config{mountPoint: "/m", data: defaultData(), background: true}, ""},
		{"dosmount --subtree home/me /m", config{mountPoint: "/m", data: defaultData(), subtree: "home/me"}, ""},
		{"dosmount", config{}, "one mount point"},
		{"dosmount /a /b", config{}, "one mount point"},
		{"dosmount --sync /m", config{}, "unknown flag"},
		{"mount.dos /m", config{}, "needs a data directory"},
	} {
		got, err := parse(strings.Fields(test.args), new(bytes.Buffer))
		var wrong errUsage
		switch {
		case test.fail != "":
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), test.fail) {
				t.Errorf("%s: %v, want a usage error with %q", test.args, err, test.fail)
			}
		case err != nil:
			t.Errorf("%s: %v", test.args, err)
		case got.mountPoint != test.want.mountPoint || got.data != test.want.data || got.code != test.want.code || got.subtree != test.want.subtree ||
			got.background != test.want.background || !slices.Equal(got.options, test.want.options):
			t.Errorf("%s: got %+v, want %+v", test.args, *got, test.want)
		}
	}
}

// The help fits a screen and shows an example.
func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if c, err := parse([]string{"dosmount", "--help"}, &out); c != nil || err != nil {
		t.Fatalf("--help: %v, %v", c, err)
	}
	if lines := strings.Count(out.String(), "\n"); lines > 24 || !strings.Contains(out.String(), "example:") {
		t.Errorf("the help has %d lines:\n%s", lines, out.String())
	}
}

// The last line is what the process in the background said why.
func TestLastLine(t *testing.T) {
	for text, want := range map[string]string{"old\nfirst\ndosmount: why\n": "dosmount: why", "why": "why", "": "", "\n": ""} {
		if got := lastLine(text); got != want {
			t.Errorf("of %q: %q, want %q", text, got, want)
		}
	}
}
