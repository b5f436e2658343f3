package special

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	turns, err := parse("# what for\n$ a\n> b\none\ntwo\n! kill\n~ c\nexit 1\n")
	want := []turn{{2, "$", "a\nb", "one\ntwo\n"}, {6, "!", "kill", ""}, {7, "~", "c", "exit 1\n"}}
	if err != nil || !reflect.DeepEqual(turns, want) {
		t.Errorf("%+v, %v, want %+v", turns, err, want)
	}
	if _, err := parse("out\n$ a\n"); err == nil {
		t.Error("an answer before anything was said")
	}
}

func TestAlike(t *testing.T) {
	for _, c := range []struct {
		text, want string
		alike      bool
	}{{"a\n", "a\n", true}, {"a\nb\n", "a\n", false}, {"a 5.\n", "a ….\n", true}, {"x 5.\n", "a ….\n", false}, {"a.\n", "ab\n", false}} {
		if alike(c.text, c.want) != c.alike {
			t.Errorf("%q is like %q: %v", c.text, c.want, !c.alike)
		}
	}
	if got := plain("bash: line 3: x: no\nbash: -c: line 1: y\nbash: line 1: 42 Killed\n"); got != "x: no\ny\nKilled\n" {
		t.Errorf("%q", got)
	}
}

func TestExamples(t *testing.T) {
	got := examples("about\n\nQ/push  text\n        more\n          a\n          b\nQ/pop   text\n          c\nhelp    this text\n")
	if want := []string{"a\nb\n", "c\n"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
