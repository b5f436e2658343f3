package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"dos/meta/task"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

var (
	answers = prometheus.NewDesc("dos_answers", "1 if the status of the cluster could be had.", nil, nil)
	health  = prometheus.NewDesc("dos_health", "1 for the word that says how the cluster is.", []string{"health"}, nil)
	stripes = prometheus.NewDesc("dos_stripes", "Stripes by how much more they can lose.", []string{"state"}, nil)
	build   = prometheus.NewDesc("dos_build_info", "Always 1, with the version.", []string{"version"}, nil)
	memory  = prometheus.NewDesc("dos_node_memory_bytes", "Memory of the machine, and what dos has there (resident).", []string{"node", "kind"}, nil)
)

var ofStatus = []series[cluster.Status]{
	gauge("capacity_bytes", "Data that the stores hold in all, at the code of now.", nil, func(s cluster.Status) float64 { return float64(s.Capacity) }),
	gauge("free_bytes", "Data that can still be written.", nil, func(s cluster.Status) float64 { return float64(s.Free) }),
	gauge("used_bytes", "Data that files hold.", nil, func(s cluster.Status) float64 { return float64(s.Used) }),
	gauge("dirty_bytes", "Data written and not yet stored, where one mount is all.", nil, func(s cluster.Status) float64 { return float64(s.Dirty) }),
	gauge("files", "Inodes.", nil, func(s cluster.Status) float64 { return float64(s.Files) }),
	gauge("spare_stores", "Stores that may be lost from now on without loss of data.", nil, func(s cluster.Status) float64 { return float64(s.Spare) }),
	gauge("repair_stripes_left", "Stripes that are known to need repair.", nil, func(s cluster.Status) float64 { return float64(max(0, s.Repair.Total-s.Repair.Done)) }),
	gauge("repair_bytes_per_second", "How fast it is repaired.", nil, func(s cluster.Status) float64 { return float64(s.Repair.Rate) }),
	gauge("scrub_shards", "Shards read in the round under way.", nil, func(s cluster.Status) float64 { return float64(s.Scrub.Done) }),
	counter("scrub_bad_shards", "Shards found damaged by scrubbing since the start.", nil, func(s cluster.Status) float64 { return float64(s.Scrub.Bad) }),
	gauge("fold_files_waiting", "Files whose stripes are to be folded.", nil, func(s cluster.Status) float64 { return float64(s.Fold.Waiting) }),
	counter("fold_files", "Files folded since the start.", nil, func(s cluster.Status) float64 { return float64(s.Fold.Done) }),
	gauge("garbage_stripes", "Stripes that wait to be deleted.", nil, func(s cluster.Status) float64 { return float64(s.Garbage.Stripes) }),
	gauge("garbage_bytes", "Data that waits to be deleted.", nil, func(s cluster.Status) float64 { return float64(s.Garbage.Bytes) }),
	gauge("meta_members", "Metadata members with a vote.", nil, func(s cluster.Status) float64 { return float64(s.Meta.Members) }),
	gauge("meta_members_alive", "Of them, those that answer.", nil, func(s cluster.Status) float64 { return float64(s.Meta.Alive) }),
	gauge("meta_leader", "1 if one leads.", nil, func(s cluster.Status) float64 { return truth(s.Meta.Leader != "") }),
	gauge("meta_term", "The term of the metadata group.", nil, func(s cluster.Status) float64 { return float64(s.Meta.Term) }),
	counter("meta_applied", "Entries of the metadata's log that were applied.", nil, func(s cluster.Status) float64 { return float64(s.Meta.Applied) }),
	gauge("start_time_seconds", "When the process that answers started.", nil, func(s cluster.Status) float64 { return float64(s.Since.Std().UnixNano()) / 1e9 }),
}

var ofStripes = []struct {
	state string
	value func(cluster.Redundancy) int64
}{
	{"full", func(r cluster.Redundancy) int64 { return r.Full }},
	{"short", func(r cluster.Redundancy) int64 { return r.Short }},
	{"degraded", func(r cluster.Redundancy) int64 { return r.Degraded }},
	{"endangered", func(r cluster.Redundancy) int64 { return r.Endangered }},
	{"lost", func(r cluster.Redundancy) int64 { return r.Lost }},
}

var storeLabels = []string{"store", "node"}

var ofStore = []series[cluster.Store]{
	gauge("store_up", "1 if the store serves what it should have.", storeLabels, func(s cluster.Store) float64 { return truth(s.State == cluster.Up) }),
	gauge("store_capacity_bytes", "What the disk below holds.", storeLabels, func(s cluster.Store) float64 { return float64(s.Capacity) }),
	gauge("store_free_bytes", "What it can still take.", storeLabels, func(s cluster.Store) float64 { return float64(s.Free) }),
	gauge("store_used_bytes", "What its shards take.", storeLabels, func(s cluster.Store) float64 { return float64(s.Used) }),
	gauge("store_shards", "Shards on it.", storeLabels, func(s cluster.Store) float64 { return float64(s.Shards) }),
}

var nodeLabels = []string{"node"}

var ofNode = []series[nodes.Node]{
	gauge("node_up", "1 if the machine answers.", nodeLabels, func(n nodes.Node) float64 { return truth(n.State == cluster.Up) }),
	gauge("node_draining", "1 if its data is to move off.", nodeLabels, func(n nodes.Node) float64 { return truth(n.Draining) }),
	gauge("node_held", "1 if no task starts there.", nodeLabels, func(n nodes.Node) float64 { return truth(n.Held || n.Draining) }),
	gauge("node_age_seconds", "How old is what is known of it.", nodeLabels, func(n nodes.Node) float64 { return n.Now.Std().Sub(n.Seen.Std()).Seconds() }),
	gauge("node_cpus", "Cores of the machine.", nodeLabels, func(n nodes.Node) float64 { return float64(n.Load.CPUs) }),
	gauge("node_load1", "The load average over a minute.", nodeLabels, func(n nodes.Node) float64 { return n.Load.One }),
	gauge("node_load5", "The load average over five minutes.", nodeLabels, func(n nodes.Node) float64 { return n.Load.Five }),
	gauge("node_load15", "The load average over fifteen minutes.", nodeLabels, func(n nodes.Node) float64 { return n.Load.Fifteen }),
}

var (
	taskStates = prometheus.NewDesc("dos_tasks", "Tasks by their state, each element of an array for itself.", []string{"state"}, nil)
	submitted  = prometheus.NewDesc("dos_jobs_submitted_total", "Jobs that were submitted.", nil, nil)
)

var ofOffer = []series[task.NodeStatus]{
	gauge("node_tasks", "Tasks that the machine has.", nodeLabels, func(n task.NodeStatus) float64 { return float64(n.Tasks) }),
	gauge("node_tasks_cpus", "Cores that it offers to tasks.", nodeLabels, func(n task.NodeStatus) float64 { return float64(n.Offer.Have.CPU) / 1000 }),
	gauge("node_tasks_cpus_used", "Cores that tasks have.", nodeLabels, func(n task.NodeStatus) float64 { return float64(n.Used.CPU) / 1000 }),
	gauge("node_tasks_memory_bytes", "Memory that it offers to tasks.", nodeLabels, func(n task.NodeStatus) float64 { return float64(n.Offer.Have.Mem) }),
	gauge("node_tasks_memory_used_bytes", "Memory that is kept for tasks.", nodeLabels, func(n task.NodeStatus) float64 { return float64(n.Used.Mem) }),
}

var ofMemory = []struct {
	kind  string
	value func(nodes.Memory) int64
}{
	{"total", func(m nodes.Memory) int64 { return m.Total }},
	{"free", func(m nodes.Memory) int64 { return m.Free }},
	{"available", func(m nodes.Memory) int64 { return m.Available }},
	{"resident", func(m nodes.Memory) int64 { return m.Resident }},
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
