package members

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// Machine returns what is known of a machine.
func Machine(r state.Reader, name string) (Node, bool) { return get[Node](r, nodeKey(name)) }

// Epoch grows with each change of anything that this room knows.
func Epoch(r state.Reader) uint64 {
	c, _ := get[cluster](r, clusterKey())
	return c.Epoch
}

// Label returns a label of a machine, and whether it has it.
func (n Node) Label(key string) (value string, ok bool) {
	if value, ok = n.Set[key]; ok || slices.Contains(n.Unset, key) {
		return value, ok
	}
	value, ok = n.Labels[key]
	return value, ok
}

// AllLabels returns all labels of a machine.
func (n Node) AllLabels() map[string]string {
	all := maps.Clone(n.Labels)
	if all == nil {
		all = make(map[string]string)
	}
	for _, key := range n.Unset {
		delete(all, key)
	}
	maps.Copy(all, n.Set)
	return all
}

// Share is the machine's weight as a factor: 1 is that of most.
func (n Node) Share() float64 {
	if n.Weight == 0 {
		return 1
	}
	return float64(n.Weight) / 100
}

func setNode(tx *state.Tx, req SetNode) (struct{}, error) {
	c, err := current(tx)
	if err != nil {
		return struct{}{}, err
	}
	n, ok := get[Node](tx, nodeKey(req.Node))
	if !ok {
		return struct{}{}, fmt.Errorf("machine %.40q: %w", req.Node, meta.NotExist)
	}
	if req.Label != "" {
		if err := n.label(req.Label, req.Value); err != nil {
			return struct{}{}, err
		}
	}
	if req.Weight != nil {
		if *req.Weight == 0 || *req.Weight > WeightMax {
			return struct{}{}, fmt.Errorf("a weight is from 0.01 to %d: %w", WeightMax/100, meta.Invalid)
		}
		n.Weight = *req.Weight
	}
	if req.Hold != nil {
		if len(req.HoldWhy) > TextMax {
			return struct{}{}, fmt.Errorf("a reason of %d bytes, at most %d: %w", len(req.HoldWhy), TextMax, meta.Invalid)
		}
		n.Hold, n.HoldWhy = *req.Hold, req.HoldWhy
	}
	put(tx, &c, nodeKey(n.Name), n)
	return struct{}{}, nil
}

// label gives the machine a label, or takes it if value is nil.
func (n *Node) label(key string, value *string) error {
	if !labelWord(key) || value != nil && *value != "" && !labelWord(*value) {
		return fmt.Errorf("label %.40q: its name and value are single words of at most %d bytes, and the name does not begin with - or #: %w", key, TextMax, meta.Invalid)
	}
	n.Unset = slices.DeleteFunc(n.Unset, func(k string) bool { return k == key })
	delete(n.Set, key)
	was, has := n.Labels[key]
	switch {
	case value == nil && has:
		n.Unset = slices.Sorted(slices.Values(append(n.Unset, key)))
	case value != nil && !(has && was == *value):
		if n.Set == nil {
			n.Set = make(map[string]string)
		}
		n.Set[key] = *value
	}
	if len(n.AllLabels()) > LabelsMax || len(n.Unset) > LabelsMax {
		return fmt.Errorf("machine %.40q: at most %d labels: %w", n.Name, LabelsMax, meta.Quota)
	}
	return nil
}

// labelWord says whether a text can be a word of a line of /dos/nodes/N/labels.
func labelWord(text string) bool {
	return text != "" && len(text) <= TextMax && text[0] != '-' && text[0] != '#' && !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == '=' || r == ','
	})
}

// The names of the settings of a cluster.
const (
	// RebuildAfter is how long a store may be away before what it had is rebuilt
	// elsewhere.
	RebuildAfter = "rebuild-after"
	// CacheMemory is the memory that entries of the cache and queues in memory may take
	// together on each machine that has them.
	CacheMemory = "cache-memory"
)

// Known is a setting that there is.
type Known struct {
	Name, Default string
	check         func(string) error
}

// Settings are those that there are, in order.
var Settings = []Known{
	{CacheMemory, "256m", func(text string) error {
		if n, err := meta.ParseSize(text); err != nil || n < 16<<20 || n > 1<<44 {
			return fmt.Errorf("%.40q is not a size from 16m to 16t: %w", text, meta.Invalid)
		}
		return nil
	}},
	{RebuildAfter, "10m0s", func(text string) error {
		if d, err := time.ParseDuration(text); err != nil || d < 30*time.Second || d > 30*24*time.Hour {
			return fmt.Errorf("%.40q is not a time from 30s to 720h: %w", text, meta.Invalid)
		}
		return nil
	}},
}

// Setting returns the value that a setting has.
func (m Map) Setting(name string) string {
	if value, ok := m.Config[name]; ok {
		return value
	}
	for _, s := range Settings {
		if s.Name == name {
			return s.Default
		}
	}
	panic("members: there is no setting " + name)
}

const settingPrefix = "3k"

func configure(tx *state.Tx, req Setting) (struct{}, error) {
	c, err := current(tx)
	if err != nil {
		return struct{}{}, err
	}
	at := slices.IndexFunc(Settings, func(s Known) bool { return s.Name == req.Name })
	if at < 0 {
		return struct{}{}, fmt.Errorf("there is no setting %.40q: %w", req.Name, meta.NotExist)
	}
	key := []byte(settingPrefix + req.Name)
	if req.Value == "" {
		if _, ok := tx.Get(key); ok {
			tx.Delete(key)
			c.Epoch++
			tx.Set(clusterKey(), state.Marshal(c))
		}
		return struct{}{}, nil
	}
	if err := Settings[at].check(req.Value); err != nil {
		return struct{}{}, fmt.Errorf("%s: %w", req.Name, err)
	}
	put(tx, &c, key, req.Value)
	return struct{}{}, nil
}

// config reads the settings that are not at their default.
func config(r state.Reader) map[string]string {
	var all map[string]string
	for key, val := range r.Scan([]byte(settingPrefix), state.After([]byte(settingPrefix))) {
		var text string
		state.MustUnmarshal(val, &text)
		if all == nil {
			all = make(map[string]string)
		}
		all[string(key[len(settingPrefix):])] = text
	}
	return all
}
