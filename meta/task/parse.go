package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"dos/meta"
)

// Directive begins the lines of a script that say how it is to run, in words
// KEY=VALUE, the last of a kind counting where it does not say "each adds". A value
// with blanks stands in quotes.
//
//	cpu=2 cpu=0.5      cores, 1 if nothing is said
//	mem=1g             bytes: k, m, g, t are powers of 1024
//	gpu=1              graphics processors
//	res=tpu:2,lic:1    other counted resources; each adds
//	label=ssd,zone=a   what the machine must have; each adds
//	node=N             the machine
//	prio=10            the higher goes first; may be negative
//	after=ok:12,any:13 what must have ended, well, somehow, or (fail:) not well; each adds
//	array=0-99%10      one task for each index, 10 at once; also 1,3,5 and 0-90:10
//	at=TIME            not before: 2026-11-29T10:00[:05][Z|+01:00], 10:00 (the next one), or +90m
//	every=1h           again and again
//	timeout=1h30m      of each attempt; also 90s, 2d
//	retries=3          when it failed
//	name=N queue=P cwd=DIR stdin=FILE near=FILE
//	env=A=1            a variable; each adds
//	hold               it waits to be released
//
// JSON has the same keys: numbers or texts as values, lists for what adds, objects for
// res and env, true for hold, "script" or "args" for what is to be run.
const Directive = "#DOS"

// NewSpec is a specification that says nothing.
func NewSpec() Spec { return Spec{Need: Resources{CPU: 1000}} }

// Parse reads a job: a script, or JSON if it begins with "{". What it does not say is
// as in from. Now is what times are relative to, and where they have no zone, in whose.
func Parse(text []byte, from Spec, now time.Time) (Spec, error) {
	if bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		return parseJSON(text, from, now)
	}
	if len(text) > ScriptMax {
		return from, fmt.Errorf("a script of %d bytes, at most %d: %w", len(text), ScriptMax, meta.TooLarge)
	}
	from.Script = text
	for line := range bytes.Lines(text) {
		if err := from.Line(string(line), now); err != nil {
			return from, err
		}
	}
	return from, from.Check()
}

// Line does what a line of a script says, if it is one that says something.
func (s *Spec) Line(line string, now time.Time) error {
	rest, ok := strings.CutPrefix(line, Directive)
	if !ok || rest != "" && !strings.ContainsAny(rest[:1], " \t\r\n") {
		return nil
	}
	words, err := split(rest)
	if err != nil {
		return err
	}
	for _, w := range words {
		key, value, given := strings.Cut(w, "=")
		if !given && key != "hold" {
			return fmt.Errorf("%.40q is not OPTION=VALUE: %w", w, meta.Invalid)
		}
		if err := s.Set(key, value, now); err != nil {
			return err
		}
	}
	return nil
}

// Set sets an option.
func (s *Spec) Set(key, value string, now time.Time) (err error) {
	setter, ok := setters[key]
	if !ok {
		return fmt.Errorf("%.40q is no option; there are %s: %w", key, strings.Join(slices.Sorted(maps.Keys(setters)), " "), meta.Invalid)
	}
	if err := setter(s, value, now); err != nil {
		return fmt.Errorf("%s=%.60s: %w", key, value, err)
	}
	return nil
}

var setters = map[string]func(s *Spec, v string, now time.Time) error{
	"cpu": func(s *Spec, v string, _ time.Time) (err error) {
		s.Need.CPU, err = scaled(v, 1000, nil)
		if err == nil && s.Need.CPU <= 0 {
			err = fmt.Errorf("a task needs some, from 0.001 on: %w", meta.Invalid)
		}
		return err
	},
	"mem": func(s *Spec, v string, _ time.Time) (err error) {
		s.Need.Mem, err = scaled(v, 1, sizes)
		return err
	},
	GPU:   func(s *Spec, v string, _ time.Time) error { return s.count(GPU, v) },
	"res": setCounts,
	"label": func(s *Spec, v string, _ time.Time) error {
		for l := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(l, "=")
			if err := checkWord("label", name); err != nil {
				return err
			}
			s.Labels = append(slices.Clip(s.Labels), l)
		}
		return nil
	},
	"node": func(s *Spec, v string, _ time.Time) error { return text(&s.Node, v) },
	"name": func(s *Spec, v string, _ time.Time) error {
		// Others see it too, and not each in a terminal that may be told what to do.
		if strings.ContainsFunc(v, unicode.IsControl) {
			return fmt.Errorf("a control character: %w", meta.Invalid)
		}
		return text(&s.Name, v)
	},
	"cwd":     func(s *Spec, v string, _ time.Time) error { return text(&s.Cwd, v) },
	"stdin":   func(s *Spec, v string, _ time.Time) error { return text(&s.Stdin, v) },
	"near":    func(s *Spec, v string, _ time.Time) error { return text(&s.Near, v) },
	"queue":   func(s *Spec, v string, _ time.Time) error { s.Queue = v; return checkWord("queue", v) },
	"prio":    func(s *Spec, v string, _ time.Time) error { return whole(&s.Prio, v, -PrioMax, PrioMax) },
	"retries": func(s *Spec, v string, _ time.Time) error { return whole(&s.Retries, v, 0, RetriesMax) },
	"after":   setAfter,
	"array": func(s *Spec, v string, _ time.Time) (err error) {
		s.Array, err = ParseArray(v)
		return err
	},
	"at": func(s *Spec, v string, now time.Time) error {
		at, err := parseTime(v, now)
		s.At = meta.At(at)
		return err
	},
	"every":   func(s *Spec, v string, _ time.Time) error { return duration(&s.Every, v) },
	"timeout": func(s *Spec, v string, _ time.Time) error { return duration(&s.Timeout, v) },
	"env": func(s *Spec, v string, _ time.Time) error {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return fmt.Errorf("not NAME=VALUE: %w", meta.Invalid)
		}
		s.Env = append(slices.Clip(s.Env), v)
		return nil
	},
	"hold": func(s *Spec, v string, _ time.Time) (err error) {
		if s.Hold, err = strconv.ParseBool(v); v == "" {
			s.Hold, err = true, nil
		}
		if err != nil {
			return fmt.Errorf("not true or false: %w", meta.Invalid)
		}
		return nil
	},
}

func text(to *string, v string) error {
	if v == "" {
		return fmt.Errorf("nothing is said: %w", meta.Invalid)
	}
	*to = v
	return nil
}

func whole(to *int, v string, low, high int) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return fmt.Errorf("not a whole number from %d to %d: %w", low, high, meta.Invalid)
	}
	*to = n
	return nil
}

func duration(to *time.Duration, v string) (err error) {
	*to, err = ParseDuration(v)
	return err
}

// ParseDuration reads a duration above zero: 90s, 1h30m, 2d.
func ParseDuration(v string) (time.Duration, error) {
	days, rest, ok := strings.Cut(v, "d")
	var d time.Duration
	if ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%.40q is no duration: %w", v, meta.Invalid)
		}
		d = time.Duration(n) * 24 * time.Hour
	} else {
		rest = v
	}
	if rest != "" {
		more, err := time.ParseDuration(rest)
		if err != nil || more < 0 {
			return 0, fmt.Errorf("%.40q is no duration such as 90s, 1h30m or 2d: %w", v, meta.Invalid)
		}
		d += more
	}
	if d <= 0 || d > timeMax {
		return 0, fmt.Errorf("%.40q is no duration above zero and up to %v: %w", v, timeMax, meta.Invalid)
	}
	return d, nil
}

func parseTime(v string, now time.Time) (time.Time, error) {
	if after, ok := strings.CutPrefix(v, "+"); ok {
		d, err := ParseDuration(after)
		return now.Add(d), err
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, v); err == nil {
			return inRange(t)
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return inRange(t)
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(layout, v); err == nil {
			y, m, d := now.Date()
			at := time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			if !at.After(now) {
				at = at.AddDate(0, 0, 1)
			}
			return at, nil
		}
	}
	return now, fmt.Errorf("no time such as 2026-11-29T10:00, 10:00 or +90m: %w", meta.Invalid)
}

// inRange refuses times that have no number of nanoseconds.
func inRange(t time.Time) (time.Time, error) {
	if t.Year() < 1970 || t.Year() > 2200 {
		return t, fmt.Errorf("not a year from 1970 to 2200: %w", meta.Invalid)
	}
	return t, nil
}

func (s *Spec) count(name, v string) error {
	var n int
	if err := checkWord("resource", name); err != nil {
		return err
	}
	if err := whole(&n, v, 0, CountMax); err != nil {
		return err
	}
	s.Need = s.Need.Clone()
	if delete(s.Need.Count, name); n > 0 {
		if s.Need.Count == nil {
			s.Need.Count = make(map[string]int64)
		}
		s.Need.Count[name] = int64(n)
	}
	return nil
}

func setCounts(s *Spec, v string, _ time.Time) error {
	for one := range strings.SplitSeq(v, ",") {
		name, n, ok := strings.Cut(one, ":")
		if !ok {
			return fmt.Errorf("not NAME:NUMBER: %w", meta.Invalid)
		}
		if name == "cpu" || name == "mem" {
			return fmt.Errorf("say %s=%s: %w", name, n, meta.Invalid)
		}
		if err := s.count(name, n); err != nil {
			return err
		}
	}
	return nil
}

func setAfter(s *Spec, v string, _ time.Time) error {
	for one := range strings.SplitSeq(v, ",") {
		on, id, ok := strings.Cut(one, ":")
		c := slices.Index(conditions, on)
		if !ok || c < 0 {
			return fmt.Errorf("%.40q is not ok:ID, any:ID or fail:ID: %w", one, meta.Invalid)
		}
		dep := Dep{On: Condition(c)}
		var err error
		if dep.ID, err = ParseID(id); err != nil {
			return err
		}
		s.After = append(slices.Clip(s.After), dep)
	}
	return nil
}

// ParseArray reads indices: 0-99, 1,3,5-7, 0-90:10, each perhaps with %N at the end.
func ParseArray(v string) (*Array, error) {
	list, throttle, throttled := strings.Cut(v, "%")
	a := new(Array)
	if throttled {
		if err := whole(&a.Throttle, throttle, 1, ArrayMax); err != nil {
			return nil, err
		}
	}
	var all []uint32
	for part := range strings.SplitSeq(list, ",") {
		span, stepText, stepped := strings.Cut(part, ":")
		from, to, isRange := strings.Cut(span, "-")
		var first, last int
		step := 1
		err := whole(&first, from, 0, IndexMax)
		if last = first; err == nil && isRange {
			err = whole(&last, to, 0, IndexMax)
		}
		if err == nil && stepped {
			err = whole(&step, stepText, 1, IndexMax)
		}
		switch {
		case err != nil:
			return nil, err
		case last < first:
			return nil, fmt.Errorf("%d-%d goes backwards: %w", first, last, meta.Invalid)
		case (last-first)/step+len(all) >= ArrayMax:
			return nil, fmt.Errorf("more than %d elements: %w", ArrayMax, meta.Invalid)
		}
		for i := first; i <= last; i += step {
			all = append(all, uint32(i))
		}
	}
	slices.Sort(all)
	for i, n := range all {
		switch {
		case i > 0 && all[i-1] == n:
			return nil, fmt.Errorf("index %d is there twice: %w", n, meta.Invalid)
		case i > 0 && all[i-1]+1 == n:
			a.Indices[len(a.Indices)-1].Last = n
		default:
			a.Indices = append(a.Indices, Range{n, n})
		}
	}
	return a, nil
}

var sizes = map[byte]float64{'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40}

// scaled reads a number that is not negative, with a unit perhaps, times the scale.
func scaled(v string, scale float64, units map[byte]float64) (int64, error) {
	number := strings.ToLower(v)
	if units != nil {
		number = strings.TrimSuffix(strings.TrimSuffix(number, "b"), "i")
		if n := len(number); n > 1 && units[number[n-1]] != 0 {
			scale *= units[number[n-1]]
			number = number[:n-1]
		}
	}
	// Digits and a point only: no "inf", "nan", "1e9" or "0x10".
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.Trim(number, "0123456789.") != "" {
		return 0, fmt.Errorf("%.40q is no amount: %w", v, meta.Invalid)
	}
	if f *= scale; f > MemMax {
		return 0, fmt.Errorf("%.40q is more than any machine has: %w", v, meta.Invalid)
	}
	return int64(math.Round(f)), nil
}

// split splits words at blanks. Quotes of either kind keep what is in them together.
func split(line string) (words []string, err error) {
	var word strings.Builder
	in, quote := false, rune(0)
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, in = c, true
		case strings.ContainsRune(" \t\r\n", c):
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteRune(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is not closed: %w", meta.Invalid)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

func parseJSON(text []byte, s Spec, now time.Time) (Spec, error) {
	if len(text) > 2*SpecMax {
		return s, fmt.Errorf("JSON of %d bytes, at most %d: %w", len(text), 2*SpecMax, meta.TooLarge)
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil || d.More() {
		return s, fmt.Errorf("the JSON is not one object: %v: %w", err, meta.Invalid)
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if err := s.field(key, fields[key], now); err != nil {
			return s, err
		}
	}
	return s, s.Check()
}

// field sets what one key of JSON says.
func (s *Spec) field(key string, value any, now time.Time) error {
	switch key {
	case "script":
		script, ok := value.(string)
		if !ok || strings.Contains(script, "\x00") {
			return fmt.Errorf("script is no text: %w", meta.Invalid)
		}
		s.Script = []byte(script)
		return nil
	case "args":
		list, ok := value.([]any)
		for _, one := range list {
			arg, isText := one.(string)
			ok = ok && isText
			s.Args = append(s.Args, arg)
		}
		if !ok {
			return fmt.Errorf("args is no list of texts: %w", meta.Invalid)
		}
		return nil
	}
	switch v := value.(type) {
	case []any:
		for _, one := range v {
			if _, nested := one.([]any); nested {
				return fmt.Errorf("%.40s is a list in a list: %w", key, meta.Invalid)
			}
			if err := s.field(key, one, now); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		sep, ok := map[string]string{"env": "=", "res": ":"}[key]
		if !ok {
			return fmt.Errorf("%.40s is no object: %w", key, meta.Invalid)
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			switch v[name].(type) {
			case string, json.Number:
			default:
				return fmt.Errorf("%.40s of %.40q is no text or number: %w", key, name, meta.Invalid)
			}
			if err := s.Set(key, fmt.Sprint(name, sep, v[name]), now); err != nil {
				return err
			}
		}
		return nil
	case nil:
		return nil
	}
	return s.Set(key, fmt.Sprint(value), now)
}
