package task

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dos/meta"
)

// Resources are what a task needs or a machine offers. Each kind is counted, and
// never more of it given out than there is.
type Resources struct {
	CPU int64 `cbor:"1,keyasint,omitempty"` // thousandths of a core
	// Mem is in bytes. A task that says none needs none in particular: none is kept
	// for it, and it has no limit of its own.
	Mem int64 `cbor:"2,keyasint,omitempty"`
	// Count has every other kind, by its name: "gpu", "license", ….
	Count map[string]int64 `cbor:"3,keyasint,omitempty"`
}

// GPU is the name of graphics processors among the counted resources.
const GPU = "gpu"

// Add adds other to r.
func (r *Resources) Add(other Resources) { r.add(other, 1) }

// Sub takes other from r.
func (r *Resources) Sub(other Resources) { r.add(other, -1) }

func (r *Resources) add(other Resources, sign int64) {
	r.CPU += sign * other.CPU
	r.Mem += sign * other.Mem
	for name, n := range other.Count {
		if r.Count == nil {
			r.Count = make(map[string]int64)
		}
		if r.Count[name] += sign * n; r.Count[name] == 0 {
			delete(r.Count, name)
		}
	}
}

// Clone returns a copy that shares nothing.
func (r Resources) Clone() Resources {
	r.Count = maps.Clone(r.Count)
	return r
}

// Fits reports whether r is no more than free, of every kind.
func (r Resources) Fits(free Resources) bool {
	if r.CPU > free.CPU || r.Mem > free.Mem {
		return false
	}
	for name, n := range r.Count {
		if n > free.Count[name] {
			return false
		}
	}
	return true
}

// check refuses what cannot be counted.
func (r Resources) check() error {
	if r.CPU < 0 || r.CPU > CPUMax || r.Mem < 0 || r.Mem > MemMax {
		return fmt.Errorf("cpu %s, at most %s, and mem %d bytes, at most %d: %w", cores(r.CPU), cores(CPUMax), r.Mem, int64(MemMax), meta.Invalid)
	}
	if len(r.Count) > KindsMax {
		return fmt.Errorf("%d kinds of resources, at most %d: %w", len(r.Count), KindsMax, meta.Invalid)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Count)) {
		if err := checkWord("resource", name); err != nil {
			return err
		}
		if n := r.Count[name]; n < 0 || n > CountMax {
			return fmt.Errorf("%s=%d, from 0 to %d: %w", name, n, int64(CountMax), meta.Invalid)
		}
	}
	return nil
}

// A Condition is when a task that comes after another may begin.
type Condition uint8

const (
	OK   Condition = iota // the other is done
	Any                   // it has ended, however
	Fail                  // it has failed, or was cancelled or lost
)

var conditions = []string{OK: "ok", Any: "any", Fail: "fail"}

func (c Condition) String() string {
	if int(c) < len(conditions) {
		return conditions[c]
	}
	return fmt.Sprintf("condition %d", uint8(c))
}

// A Dep is a task that must end first. An array has ended when all its elements have.
type Dep struct {
	ID ID        `cbor:"1,keyasint,omitempty"`
	On Condition `cbor:"2,keyasint,omitempty"`
}

// A Range is the indices from First to Last.
type Range struct {
	First uint32 `cbor:"1,keyasint,omitempty"`
	Last  uint32 `cbor:"2,keyasint,omitempty"`
}

// An Array makes a job many tasks that differ in their index.
type Array struct {
	Indices []Range `cbor:"1,keyasint,omitempty"` // in order, not touching each other
	// Throttle is how many may run at once; 0: all.
	Throttle int `cbor:"2,keyasint,omitempty"`
}

// Len is how many elements the array has.
func (a Array) Len() int { return rangesLen(a.Indices) }

func rangesLen(list []Range) (n int) {
	for _, r := range list {
		n += int(r.Last-r.First) + 1
	}
	return n
}

// A Spec is a task as it was submitted.
type Spec struct {
	// Script is run as a program if it begins with "#!", else by /bin/sh. Args, if
	// there are any, are a command and its arguments that are run in place of a script.
	Script []byte   `cbor:"1,keyasint,omitempty"`
	Args   []string `cbor:"2,keyasint,omitempty"`

	Name    string        `cbor:"3,keyasint,omitempty"`
	Queue   string        `cbor:"4,keyasint,omitempty"` // the partition; "" is the default one
	Need    Resources     `cbor:"5,keyasint,omitempty"`
	Labels  []string      `cbor:"6,keyasint,omitempty"` // that the machine must have: KEY or KEY=VALUE
	Node    string        `cbor:"7,keyasint,omitempty"` // the one that it must be
	Prio    int           `cbor:"8,keyasint,omitempty"` // the higher goes first
	After   []Dep         `cbor:"9,keyasint,omitempty"`
	Array   *Array        `cbor:"10,keyasint,omitempty"`
	At      meta.Time     `cbor:"11,keyasint,omitempty"` // not before
	Every   time.Duration `cbor:"12,keyasint,omitempty"` // it is run again that long after it began, until it is cancelled
	Timeout time.Duration `cbor:"13,keyasint,omitempty"` // of each attempt; 0: none
	// Retries is how often it is run again when it failed. A loss of its machine does
	// not count.
	Retries int      `cbor:"14,keyasint,omitempty"`
	Cwd     string   `cbor:"15,keyasint,omitempty"` // in the tree; "" is the root
	Stdin   string   `cbor:"16,keyasint,omitempty"` // a file of the tree; "": what is written to its stdin
	Env     []string `cbor:"17,keyasint,omitempty"` // NAME=VALUE
	Near    string   `cbor:"18,keyasint,omitempty"` // a file that it had best be near to
	// Prefer are the machines near to that file. Whoever submits knows where it is.
	Prefer []string `cbor:"19,keyasint,omitempty"`
	Hold   bool     `cbor:"20,keyasint,omitempty"` // it begins held
}

// An Owner is whose a task is, and as whom it runs.
type Owner struct {
	UID    uint32   `cbor:"1,keyasint,omitempty"`
	GID    uint32   `cbor:"2,keyasint,omitempty"`
	Groups []uint32 `cbor:"3,keyasint,omitempty"`
	Umask  uint32   `cbor:"4,keyasint,omitempty"`
}

// Check refuses, with meta.Invalid or meta.TooLarge and a sentence, a specification
// that makes no sense. Whether what it names is there is not looked at.
func (s *Spec) Check() error {
	switch {
	case len(s.Script) > ScriptMax:
		return fmt.Errorf("a script of %d bytes, at most %d: %w", len(s.Script), ScriptMax, meta.TooLarge)
	case (len(s.Script) > 0) == (len(s.Args) > 0):
		return fmt.Errorf("a script or a command is needed, and not both: %w", meta.Invalid)
	case s.Size() > SpecMax:
		return fmt.Errorf("a task of %d bytes with its arguments and variables, at most %d: %w", s.Size(), SpecMax, meta.TooLarge)
	case s.Need.CPU == 0:
		return fmt.Errorf("cpu=0: a task needs some: %w", meta.Invalid)
	case s.Prio < -PrioMax || s.Prio > PrioMax:
		return fmt.Errorf("prio=%d, from -%d to %d: %w", s.Prio, PrioMax, PrioMax, meta.Invalid)
	case s.Timeout != 0 && (s.Timeout < time.Second || s.Timeout > timeMax):
		return fmt.Errorf("timeout=%v, from 1s to %v: %w", s.Timeout, timeMax, meta.Invalid)
	case s.Every != 0 && (s.Every < EveryMin || s.Every > timeMax):
		return fmt.Errorf("every=%v, from %v to %v: %w", s.Every, EveryMin, timeMax, meta.Invalid)
	case s.Every != 0 && s.Array != nil:
		return fmt.Errorf("every= and array= together: %w", meta.Unsupported)
	case s.At < 0:
		return fmt.Errorf("at=%d: %w", s.At, meta.Invalid)
	case s.Retries < 0 || s.Retries > RetriesMax:
		return fmt.Errorf("retries=%d, from 0 to %d: %w", s.Retries, RetriesMax, meta.Invalid)
	case len(s.After) > AfterMax || len(s.Labels) > LabelsMax || len(s.Prefer) > PreferMax:
		return fmt.Errorf("%d tasks to come after, %d labels, %d near machines; at most %d, %d, %d: %w", len(s.After), len(s.Labels), len(s.Prefer), AfterMax, LabelsMax, PreferMax, meta.Invalid)
	}
	if err := s.Need.check(); err != nil {
		return err
	}
	for what, text := range s.texts {
		if len(text) > TextMax || strings.ContainsAny(text, "\x00\n") {
			return fmt.Errorf("%s %.40q is longer than %d bytes or has a newline or NUL: %w", what, text, TextMax, meta.Invalid)
		}
	}
	for _, e := range s.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.Contains(e, "\x00") {
			return fmt.Errorf("env=%.40q is not NAME=VALUE: %w", e, meta.Invalid)
		}
	}
	for _, arg := range s.Args {
		if strings.Contains(arg, "\x00") {
			return fmt.Errorf("an argument has a NUL: %w", meta.Invalid)
		}
	}
	for i, d := range s.After {
		if d.ID.Job == 0 || int(d.On) >= len(conditions) || slices.ContainsFunc(s.After[:i], func(e Dep) bool { return e.ID == d.ID }) {
			return fmt.Errorf("after=%v:%v is there twice or names no task: %w", d.On, d.ID, meta.Invalid)
		}
	}
	return s.checkArray()
}

func (s *Spec) checkArray() error {
	if s.Array == nil {
		return nil
	}
	n, next := 0, uint32(0)
	for i, r := range s.Array.Indices {
		if r.Last < r.First || i > 0 && r.First <= next || r.Last > IndexMax {
			return fmt.Errorf("array=: indices %d-%d are not in order or over %d: %w", r.First, r.Last, IndexMax, meta.Invalid)
		}
		next = r.Last + 1 // two ranges that touch are one
		n += int(r.Last-r.First) + 1
	}
	if n < 1 || n > ArrayMax || s.Array.Throttle < 0 {
		return fmt.Errorf("array= of %d elements, from 1 to %d, and %d at once: %w", n, ArrayMax, s.Array.Throttle, meta.Invalid)
	}
	return nil
}

// texts yields the short texts with what they are.
func (s *Spec) texts(yield func(what, text string) bool) {
	for _, t := range [][2]string{{"name", s.Name}, {"queue", s.Queue}, {"node", s.Node}, {"cwd", s.Cwd}, {"stdin", s.Stdin}, {"near", s.Near}} {
		if !yield(t[0], t[1]) {
			return
		}
	}
	for _, list := range []struct {
		what string
		all  []string
	}{{"label", s.Labels}, {"machine", s.Prefer}} {
		for _, text := range list.all {
			if !yield(list.what, text) {
				return
			}
		}
	}
}

// Size is about how many bytes the job takes in a request.
func (s *Spec) Size() int {
	n := len(s.Script)
	for _, list := range [][]string{s.Args, s.Env, s.Labels, s.Prefer} {
		for _, text := range list {
			n += len(text)
		}
	}
	return n
}

// checkWord refuses what is no name of a resource, a partition or a label's key.
func checkWord(what, text string) error {
	ok := text != "" && len(text) <= NameMax && text[0] != '.'
	for _, c := range []byte(text) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%.40q is no name of a %s: letters, digits, '-', '_' and '.', at most %d: %w", text, what, NameMax, meta.Invalid)
	}
	return nil
}

// cores writes thousandths of a core.
func cores(milli int64) string {
	if milli%1000 == 0 {
		return fmt.Sprint(milli / 1000)
	}
	return strings.TrimRight(fmt.Sprintf("%d.%03d", milli/1000, milli%1000), "0")
}
