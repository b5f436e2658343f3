package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxRSSGoal is what dosmount's anonymous memory is to stay below, in bytes.
const maxRSSGoal = 700 << 20

// report is all that was measured; its JSON form is what --json writes.
type report struct {
	Started     time.Time `json:"started"`
	Seconds     float64   `json:"seconds"`
	Quick       bool      `json:"quick"`
	Kernel      string    `json:"kernel"`
	Go          string    `json:"go"`
	Fio         string    `json:"fio"`
	CPUs        int       `json:"cpus"`
	FileSystem  string    `json:"file_system"` // type of --data's, as statfs(2) numbers it
	ReadAheadKB int       `json:"read_ahead_kb"`
	Rows        []*row    `json:"rows"`
	MaxRSSAnon  int64     `json:"max_rss_anon_bytes"`
}

// row is one cell with what each target did, round by round.
type row struct {
	Group   string               `json:"group"`
	Name    string               `json:"name"`
	Unit    string               `json:"unit"`
	Rounds  map[string][]float64 `json:"rounds"`  // by target
	Medians map[string]float64   `json:"medians"` // by target
	ToPT    float64              `json:"dos_to_pt,omitempty"`
	ToPlain float64              `json:"dos_to_plain,omitempty"`
	Goal    float64              `json:"goal_to_pt,omitempty"`
	// ClusterToDos is there if a cluster was measured too.
	ClusterToDos float64 `json:"cluster_to_dos,omitempty"`
}

// describe notes what the numbers were measured on.
func (r *report) describe(ctx context.Context, dir string) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, "fio", "--version").Output()
	if err != nil {
		return err
	}
	r.Kernel, r.Go, r.CPUs = unix.ByteSliceToString(uts.Release[:]), runtime.Version(), runtime.NumCPU()
	r.Fio, r.FileSystem = strings.TrimSpace(string(version)), fmt.Sprintf("%#x", st.Type)
	return nil
}

func (r *report) add(group string, c cell, target string, v float64) {
	i := slices.IndexFunc(r.Rows, func(x *row) bool { return x.Name == c.name })
	if i < 0 {
		i = len(r.Rows)
		r.Rows = append(r.Rows, &row{Group: group, Name: c.name, Unit: c.unit, Goal: c.goal,
			Rounds: make(map[string][]float64), Medians: make(map[string]float64)})
	}
	x := r.Rows[i]
	x.Rounds[target] = append(x.Rounds[target], v)
	x.Medians[target] = median(x.Rounds[target])
	x.ToPT = ratio(x.Medians["dos"], x.Medians["PT"])
	x.ToPlain = ratio(x.Medians["dos"], x.Medians["plain"])
	x.ClusterToDos = ratio(x.Medians["cluster"], x.Medians["dos"])
}

// median is the middle value, or the mean of the middle two.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// print writes the table of ratios.
func (r *report) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nLinux %s, %d CPUs, %s, %s, read-ahead %d KiB, %.0f s in all; medians\n\n", r.Kernel, r.CPUs, r.Go, r.Fio, r.ReadAheadKB, r.Seconds)
	fmt.Fprintf(&b, "%-24s %-8s %11s %11s %11s %9s %9s  %s\n", "", "", "plain", "PT", "dos", "dos/plain", "dos/PT", "aim")
	group := ""
	for _, x := range r.Rows {
		if x.Group != group {
			group = x.Group
			fmt.Fprintf(&b, "%s\n", group)
		}
		fmt.Fprintf(&b, "  %-22s %-8s %11.1f %11.1f %11.1f %9.3f %9.3f  %s", x.Name, x.Unit,
			x.Medians["plain"], x.Medians["PT"], x.Medians["dos"], x.ToPlain, x.ToPT, aim(x))
		if x.ClusterToDos > 0 {
			fmt.Fprintf(&b, "  cluster %.1f, cluster/dos %.3f", x.Medians["cluster"], x.ClusterToDos)
		}
		b.WriteString("\n")
	}
	verdict := "met"
	if r.MaxRSSAnon >= maxRSSGoal {
		verdict = "missed"
	}
	fmt.Fprintf(&b, "\ndosmount's anonymous memory at most %d MiB (aim < %d MiB: %s)\n", r.MaxRSSAnon>>20, maxRSSGoal>>20, verdict)
	_, err := io.WriteString(w, b.String())
	return err
}

func aim(x *row) string {
	switch {
	case x.Goal == 0:
		return ""
	case x.ToPT >= x.Goal:
		return fmt.Sprintf(">= %.1f met", x.Goal)
	}
	return fmt.Sprintf(">= %.1f MISSED", x.Goal)
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
