package run

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
)

// groupPaths are a cgroup: for version 1 its directory in the hierarchy of each controller, for
// version 2 one directory, under "".
type groupPaths map[string]string

// The names of what cgroups do for us, those of version 1.
const (
	byCPU     = "cpu"
	byAccount = "cpuacct"
	byMemory  = "memory"
	byPids    = "pids"
	byFreezer = "freezer"
)

var controllers = []string{byCPU, byAccount, byMemory, byPids, byFreezer}

// period is what a share of a processor is given in, microseconds: the kernel's own.
const period = 100_000

// A groups is where the cgroups of a Host are.
type groups struct {
	base groupPaths // of all together; nil: there are none
	can  map[string]bool
	swap bool // version 1: memory with swap can be limited
}

// openGroups looks what the machine lets us use, and makes the group of all tasks, named name.
// What it lacks, and why, is in lacks.
func openGroups(name string, all Limits) (g *groups, lacks []string) {
	g = &groups{can: make(map[string]bool)}
	base := make(groupPaths)
	var why error
	if cgroups.IsCgroup2UnifiedMode() {
		base[""] = filepath.Join(fs2.UnifiedMountpoint, name)
	} else {
		for _, c := range controllers {
			at, err := cgroups.FindCgroupMountpoint("", c)
			if err != nil {
				why = err
				continue
			}
			base[c] = filepath.Join(at, name)
		}
	}
	// Each limit is tried by itself in a group of its own.
	tries := map[string]cgroups.Resources{
		byCPU:     {CpuQuota: period, CpuPeriod: period},
		byAccount: {},
		byMemory:  {Memory: 1 << 30},
		byPids:    {PidsLimit: ptr(int64(100))},
		byFreezer: {Freezer: cgroups.Frozen},
	}
	for _, c := range controllers {
		try := groupPaths{}
		for key, dir := range base {
			if key == "" || key == c {
				try[key] = filepath.Join(dir, "try-"+c)
			}
		}
		if len(try) == 0 {
			continue
		}
		r := tries[c]
		m, err := manager(try, &r)
		if err == nil {
			err = m.Apply(-1)
		}
		if err == nil {
			err = m.Set(&r)
		}
		if c == byFreezer && err == nil {
			err = m.Freeze(cgroups.Thawed)
		}
		if m != nil {
			if dir := m.Path(byMemory); c == byMemory && err == nil {
				_, e := os.Stat(filepath.Join(dir, "memory.memsw.limit_in_bytes"))
				g.swap = e == nil || base[""] != ""
			}
			err = errors.Join(err, m.Destroy())
		}
		if err != nil {
			why = err
			if base[""] == "" {
				delete(base, c)
			}
			continue
		}
		g.can[c] = true
	}
	if len(g.can) > 0 {
		g.base = base
		m, err := manager(base, g.resources(all))
		if err == nil {
			err = m.Apply(-1)
		}
		if err == nil {
			err = m.Set(g.resources(all))
		}
		if err != nil {
			g.base, g.can, why = nil, make(map[string]bool), err
		}
	}
	for _, c := range controllers {
		if !g.can[c] && (c != byAccount || base[""] == "") {
			lacks = append(lacks, c)
		}
	}
	if len(lacks) > 0 && why != nil {
		lacks = append(lacks, "("+why.Error()+")")
	}
	return g, lacks
}

func ptr[T any](v T) *T { return &v }

func manager(paths groupPaths, r *cgroups.Resources) (cgroups.Manager, error) {
	c := &cgroups.Cgroup{Path: "/", Resources: r}
	if dir, ok := paths[""]; ok {
		m, err := fs2.NewManager(c, dir)
		if err != nil {
			return nil, err
		}
		return m, nil
	}
	m, err := fs.NewManager(c, paths)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// resources are limits as far as cgroups hold them.
func (g *groups) resources(l Limits) *cgroups.Resources {
	r := &cgroups.Resources{}
	if g.can[byCPU] && l.CPU > 0 {
		r.CpuPeriod = period
		r.CpuQuota = max(int64(l.CPU*period), 1000) // the kernel takes no less
	}
	if g.can[byMemory] && l.Memory > 0 {
		r.Memory = l.Memory
		if g.swap {
			r.MemorySwap = l.Memory
		}
	}
	if g.can[byPids] && l.Processes > 0 {
		r.PidsLimit = ptr(l.Processes)
	}
	return r
}

// bare are the limits that cgroups do not hold.
func (g *groups) bare(l Limits) Limits {
	if g.can[byMemory] {
		l.Memory = 0
	}
	if g.can[byPids] {
		l.Processes = 0
	}
	l.CPU = 0
	return l
}

// paths is where the group of a task is; nil without cgroups.
func (g *groups) paths(id string) groupPaths {
	if g.base == nil {
		return nil
	}
	paths := make(groupPaths)
	for c, dir := range g.base {
		paths[c] = filepath.Join(dir, id)
	}
	return paths
}

// make makes the group of a task with its limits.
func (g *groups) make(id string, l Limits) (*group, error) {
	return openGroup(g.paths(id), g.resources(l), true)
}

// A group is the cgroup of one task. A nil group is none.
type group struct{ manager cgroups.Manager }

func openGroup(paths groupPaths, r *cgroups.Resources, create bool) (*group, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	if r == nil {
		r = &cgroups.Resources{}
	}
	m, err := manager(paths, r)
	if err != nil || !create {
		return &group{m}, err
	}
	if err := m.Apply(-1); err != nil {
		return nil, errors.Join(err, m.Destroy())
	}
	if err := m.Set(r); err != nil {
		return nil, errors.Join(err, m.Destroy())
	}
	return &group{m}, nil
}

// enter puts the calling thread, which is locked to its goroutine, and what it
// forks, into a group of version 1. A process of version 2 is started in its group
// by the kernel.
func (p groupPaths) enter() error {
	for c, dir := range p {
		if c == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

// freezes reports whether the group can be frozen.
func (p groupPaths) freezes() bool { return p[""] != "" || p[byFreezer] != "" }

// thaw has a group go on that somebody froze who was killed then: in version 1 what stands
// still does not die.
func (p groupPaths) thaw() {
	if !p.freezes() {
		return
	}
	if g, err := openGroup(p, nil, false); err == nil {
		_ = g.freeze(false) // or it is gone
	}
}

// parent is the group that p is in.
func (p groupPaths) parent() groupPaths {
	up := make(groupPaths, len(p))
	for c, dir := range p {
		up[c] = filepath.Dir(dir)
	}
	return up
}

// pids lists the processes in the group and the groups that the task made in it.
func (g *group) pids() []int {
	seen := make(map[int]bool)
	var list []int
	for _, dir := range g.manager.GetPaths() { // of version 1 one may have been left
		found, err := cgroups.GetAllPids(dir)
		if err != nil {
			continue
		}
		for _, pid := range found {
			if !seen[pid] {
				seen[pid] = true
				list = append(list, pid)
			}
		}
	}
	return list
}

func (g *group) freeze(on bool) error {
	state := cgroups.Thawed
	if on {
		state = cgroups.Frozen
	}
	return g.manager.Freeze(state)
}

// kill kills all in the group, and reports whether nothing is left after limit. A process of version
// 1 that is frozen dies when it is thawed, and does nothing before.
func (g *group) kill(limit time.Duration) bool {
	for began := time.Now(); ; time.Sleep(killPause) {
		list := g.pids()
		if len(list) == 0 {
			return true
		}
		if time.Since(began) > limit {
			return false
		}
		if dir, ok := g.manager.GetPaths()[""]; ok && os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
			continue
		}
		_ = g.freeze(true) // it is to keep a fork bomb from outrunning us; without it we are only slower
		signalAll(g.pids(), 9)
		_ = g.freeze(false)
	}
}

// usage is what the group has used, and whether something in it was killed because
// it had no memory left.
func (g *group) usage() (u Usage, oom bool) {
	st, err := g.manager.Stats(&cgroups.StatsOptions{Controllers: cgroups.CPU | cgroups.Memory})
	if err == nil {
		u.CPU = time.Duration(st.CpuStats.CpuUsage.TotalUsage)
		u.Memory = int64(st.MemoryStats.Usage.MaxUsage)
	}
	kills, err := g.manager.OOMKillCount()
	return u, err == nil && kills > 0
}

// remove removes the group, which is empty, and those that the task made in it.
func (g *group) remove() error {
	if err := g.manager.Destroy(); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// tasksOf lists the groups that there are under the group of all.
func (g *groups) tasksOf() []string {
	seen := make(map[string]bool)
	var ids []string
	for _, dir := range g.base {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			if e.IsDir() && !seen[e.Name()] {
				seen[e.Name()] = true
				ids = append(ids, e.Name())
			}
		}
	}
	return ids
}

// groupName is what the cgroup of all tasks of a Host is called.
func groupName(dir string) string {
	h := fnv.New64a()
	h.Write([]byte(dir))
	return fmt.Sprintf("dos-%016x", h.Sum64())
}
