package metrics

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

type source struct{ err error }

func (s source) Status(context.Context) (cluster.Status, error) {
	return cluster.Status{
		Version: "v1", Since: meta.At(time.Unix(100, 0)), Want: "1+1", Spare: 1, Free: 5, Stripes: cluster.Redundancy{Full: 3, Lost: 1},
		Stores: []cluster.Store{{ID: 7, Node: "a\"b", State: cluster.Down, Shards: 9}},
		Meta:   cluster.Metadata{Leader: "a", Members: 3, Alive: 2, Applied: 12},
	}, s.err
}

func (source) Names(context.Context) ([]string, error) { return []string{"a", "gone"}, nil }

func (source) Node(_ context.Context, name string) (nodes.Node, error) {
	if name == "gone" {
		return nodes.Node{}, meta.NotExist
	}
	return nodes.Node{Name: name, State: "up", Load: nodes.Load{One: 0.5, CPUs: 2}, Memory: nodes.Memory{Total: 8, Resident: 3}}, nil
}

func someTasks(context.Context) (task.Status, error) {
	return task.Status{Counts: []int64{0, 0, 3, 1, 0, 0, 0, 0}, Submitted: 9, Nodes: []task.NodeStatus{{Offer: task.Offer{Node: "a", Have: task.Resources{CPU: 2000}}, Used: task.Resources{CPU: 500}, Tasks: 1}}}, nil
}

func TestText(t *testing.T) {
	text, err := New(source{}, someTasks).Text(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"dos_answers 1", `dos_health{health="lost"} 1`, `dos_health{health="ok"} 0`, `dos_stripes{state="full"} 3`, `dos_stripes{state="lost"} 1`,
		`dos_store_up{node="a\"b",store="7"} 0`, `dos_store_shards{node="a\"b",store="7"} 9`, "dos_free_bytes 5",
		"dos_meta_members_alive 2", "# TYPE dos_meta_applied_total counter", `dos_node_up{node="a"} 1`, `dos_node_load1{node="a"} 0.5`,
		`dos_node_memory_bytes{kind="resident",node="a"} 3`, `dos_build_info{version="v1"} 1`, "dos_start_time_seconds 100",
		`dos_tasks{state="pending"} 3`, `dos_tasks{state="running"} 1`, "dos_jobs_submitted_total 9", `dos_node_tasks_cpus_used{node="a"} 0.5`, `dos_node_tasks{node="a"} 1`,
	} {
		if !strings.Contains("\n"+text, "\n"+want+"\n") {
			t.Errorf("no line %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "gone") || strings.Contains(text, "go_goroutines") {
		t.Errorf("too much is said in\n%s", text)
	}
}

// What cannot be known is left out, and the rest is there.
func TestNoStatus(t *testing.T) {
	text, err := New(source{errors.New("no")}, someTasks).Text(t.Context())
	if err != nil || !strings.Contains(text, "dos_answers 0\n") || !strings.Contains(text, "dos_node_up") || strings.Contains(text, "dos_files") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestHandler(t *testing.T) {
	server := httptest.NewServer(New(source{}, someTasks).Handler())
	defer server.Close()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for _, want := range []string{"dos_files 0", "go_goroutines ", "process_resident_memory_bytes "} {
		if err != nil || !strings.Contains(string(body), "\n"+want) {
			t.Errorf("%v: no %s", err, want)
		}
	}
}

// The names are as Prometheus wants them.
func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(New(source{}, someTasks).whole)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
