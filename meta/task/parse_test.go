package task

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"dos/meta"
)

var zone = time.FixedZone("here", 3600)
var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, zone)

func when(text string) meta.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return meta.At(t)
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		words string
		want  func(s *Spec)
	}{
		{"", func(s *Spec) {}},
		{"cpu=2", func(s *Spec) { s.Need.CPU = 2000 }},
		{"cpu=0.5 cpu=0.25", func(s *Spec) { s.Need.CPU = 250 }},
		{"mem=1g", func(s *Spec) { s.Need.Mem = 1 << 30 }},
		{"mem=1.5GiB", func(s *Spec) { s.Need.Mem = 3 << 29 }},
		{"mem=512mb", func(s *Spec) { s.Need.Mem = 512 << 20 }},
		{"mem=100", func(s *Spec) { s.Need.Mem = 100 }},
		{"gpu=1", func(s *Spec) { s.Need.Count = map[string]int64{"gpu": 1} }},
		{"gpu=1 gpu=0", func(s *Spec) { s.Need.Count = map[string]int64{} }},
		{"res=tpu:2,lic:1 res=x:3", func(s *Spec) { s.Need.Count = map[string]int64{"tpu": 2, "lic": 1, "x": 3} }},
		{"label=ssd,zone=a label=b", func(s *Spec) { s.Labels = []string{"ssd", "zone=a", "b"} }},
		{"node=n1 prio=-3 retries=3 queue=night", func(s *Spec) { s.Node, s.Prio, s.Retries, s.Queue = "n1", -3, 3, "night" }},
		{"after=ok:12,any:13 after=fail:14_0", func(s *Spec) {
			s.After = []Dep{{ID{Job: 12}, OK}, {ID{Job: 13}, Any}, {ID{14, 1}, Fail}}
		}},
		{"array=0-99%10", func(s *Spec) { s.Array = &Array{[]Range{{0, 99}}, 10} }},
		{"array=7,1,3,4,5", func(s *Spec) { s.Array = &Array{[]Range{{1, 1}, {3, 5}, {7, 7}}, 0} }},
		{"array=0-9:5,1", func(s *Spec) { s.Array = &Array{[]Range{{0, 1}, {5, 5}}, 0} }},
		{"at=2026-11-30T10:00", func(s *Spec) { s.At = when("2026-11-30T10:00:00+01:00") }},
		{"at=2026-11-30T10:00Z", func(s *Spec) { s.At = when("2026-11-30T10:00:00Z") }},
		{"at='2026-11-30 10:00'", func(s *Spec) { s.At = when("2026-11-30T10:00:00+01:00") }},
		{"at=11:30", func(s *Spec) { s.At = when("2026-11-30T11:30:00+01:00") }},
		{"at=12:30", func(s *Spec) { s.At = when("2026-11-29T12:30:00+01:00") }},
		{"at=+90m", func(s *Spec) { s.At = when("2026-11-29T13:30:00+01:00") }},
		{"every=1h timeout=1d2h", func(s *Spec) { s.Every, s.Timeout = time.Hour, 26*time.Hour }},
		{`name="two words" cwd='/a b' stdin=/in near=/data`, func(s *Spec) {
			s.Name, s.Cwd, s.Stdin, s.Near = "two words", "/a b", "/in", "/data"
		}},
		{`env=A=1 env="B=x y" hold`, func(s *Spec) { s.Env, s.Hold = []string{"A=1", "B=x y"}, true }},
	} {
		want := NewSpec()
		want.Script = []byte("#!/bin/sh\n#DOS " + c.words + "\nmake\n")
		c.want(&want)
		if got, err := Parse(want.Script, NewSpec(), noon); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", c.words, got, err, want)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for words, want := range map[string]string{
		"cpu=0": "needs some", "cpu=-1": "amount", "cpu=1e3": "amount", "cpu=inf": "amount", "cpu=99999999": "cpu", "cpu=": "amount",
		"mem=1x": "amount", "mem=99999t": "more than any", "mem=g": "amount", "gpu=-1": "whole", "gpu=1.5": "whole", "gpu=99999999999": "whole",
		"res=tpu": "NAME:NUMBER", "res=cpu:1": "say cpu=1", "res=a/b:1": "no name", "label=": "no name", "queue=../x": "no name",
		"prio=1001": "whole", "prio=x": "whole", "retries=101": "whole", "node=": "nothing",
		"after=12": "ok:ID", "after=ok:012": "no task", "after=ok:1_": "no task", "after=ok:0": "no task", "after=ok:1,any:1": "twice", "after=later:1": "ok:ID",
		"array=": "whole", "array=5-1": "backwards", "array=1,1": "twice", "array=0-40000": "more than", "array=0-9%0": "whole", "array=0-9:0": "whole", "array=99999999": "whole",
		"at=tomorrow": "no time", "at=1950-01-01": "year", "every=1ms": "every", "every=1h array=0-1": "together", "timeout=10": "duration", "timeout=-1h": "duration", "timeout=9999999h": "duration",
		"env=A": "NAME=VALUE", "env==1": "NAME=VALUE", "hold=maybe": "true or false", "colour=red": "no option", "cpu": "OPTION=VALUE", "name='x": "not closed", "name=\x1b[2J": "control",
	} {
		_, err := Parse([]byte("#DOS "+words+"\ntrue\n"), NewSpec(), noon)
		if !errors.Is(err, meta.Invalid) && !errors.Is(err, meta.Unsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", words, err, want)
		}
	}
	if _, err := Parse(make([]byte, ScriptMax+1), NewSpec(), noon); !errors.Is(err, meta.TooLarge) {
		t.Errorf("a script that is too large: %v", err)
	}
	if _, err := Parse(nil, NewSpec(), noon); !errors.Is(err, meta.Invalid) {
		t.Errorf("no script: %v", err)
	}
}

// Only lines that begin with the directive itself say something.
func TestNoOption(t *testing.T) {
	for _, line := range []string{"# DOS cpu=x", " #DOS cpu=x", "#DOSX cpu=x", "#dos cpu=x", "echo '#DOS cpu=x'"} {
		if _, err := Parse([]byte(line+"\n"), NewSpec(), noon); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestJSON(t *testing.T) {
	got, err := Parse([]byte(`{"args": ["echo", "a b"], "cpu": 0.5, "mem": "1g", "gpu": 1, "res": {"tpu": 2}, "label": ["ssd", "x"], "prio": 3,
		"after": ["ok:12", "any:13"], "array": "0-3%2", "timeout": "1h", "env": {"A": "1", "B": 2}, "name": "x y", "hold": true, "node": null}`), NewSpec(), noon)
	want := Spec{
		Args: []string{"echo", "a b"}, Need: Resources{CPU: 500, Mem: 1 << 30, Count: map[string]int64{"gpu": 1, "tpu": 2}},
		Labels: []string{"ssd", "x"}, Prio: 3, After: []Dep{{ID{Job: 12}, OK}, {ID{Job: 13}, Any}}, Array: &Array{[]Range{{0, 3}}, 2},
		Timeout: time.Hour, Env: []string{"A=1", "B=2"}, Name: "x y", Hold: true,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for text, words := range map[string]string{
		`{`: "one object", `{} {}`: "one object", `{"args": "ls"}`: "list", `{"args": [1]}`: "list", `{"script": 1}`: "no text", `{"script": "a\u0000b"}`: "no text", `{"script": "x", "cpu": {}}`: "no object",
		`{"script": "x", "cpu": [[1]]}`: "list in a list", `{"script": "x", "colour": 1}`: "no option", `{"script": "x", "args": ["y"]}`: "not both", `{"script": "x", "env": {"A": []}}`: "text or number",
		`{"script": "x", "cpu": 1e300}`: "amount",
	} {
		if _, err := Parse([]byte(text), NewSpec(), noon); !errors.Is(err, meta.Invalid) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", text, err, words)
		}
	}
}

func TestID(t *testing.T) {
	for text, want := range map[string]ID{"1": {Job: 1}, "12_0": {12, 1}, "18446744073709551615_16777215": {1<<64 - 1, 1 << 24}} {
		if got, err := ParseID(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "+1", "01", "1_", "_1", "1_-1", "1_01", "1_16777216", "1 ", "x", "1_2_3", "18446744073709551616"} {
		if id, err := ParseID(text); !errors.Is(err, meta.Invalid) {
			t.Errorf("%q is %v, %v", text, id, err)
		}
	}
}

// What comes from outside makes no sense or is read, and what is read is checked.
func FuzzParse(f *testing.F) {
	f.Add([]byte("#DOS cpu=2 mem=1g array=0-9%2 after=ok:1\nmake\n"))
	f.Add([]byte(`{"args": ["x"], "env": {"A": 1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text, NewSpec(), noon)
		var kind meta.Kind
		switch {
		case err != nil && !errors.As(err, &kind):
			t.Errorf("%v has no kind", err)
		case err == nil && s.Check() != nil:
			t.Errorf("%q: %+v was accepted", text, s)
		}
	})
}
