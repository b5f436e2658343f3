// Package layout keeps the import graph the shape that the design draws: which
// room may import which, which room alone may import a library, and how large
// a file may grow.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "dos/"

// may lists what each room may import of this module, tests aside. A trailing
// slash means everything below. A room that is not listed may not exist.
var may = map[string][]string{
	"internal/access":            {"meta", "procfs"},
	"internal/boottime":          {},
	"internal/cache":             {"chunk/cache", "internal/boottime", "internal/rpc", "meta", "meta/cache", "meta/session", "meta/state"},
	"internal/disk":              {},
	"internal/quietlog":          {},
	"internal/relay":             {"meta", "meta/exchange"},
	"internal/rights":            {"internal/rpc", "internal/trust", "meta", "meta/"},
	"internal/rpc":               {},
	"internal/run":               {},
	"internal/trust":             {},
	"internal/rpc/rpctest":       {"internal/rpc"},
	"internal/admin":             {"meta"},
	"internal/admission":         {"internal/rpc", "internal/trust", "meta", "meta/client", "meta/state", "meta/trust"},
	"internal/agent":             {"internal/boottime", "internal/run", "meta", "meta/client", "meta/task"},
	"internal/fleet":             {"chunk", "meta", "meta/members", "procfs/cluster", "procfs/nodes"},
	"internal/metrics":           {"meta/task", "procfs/cluster", "procfs/nodes"},
	"internal/tasktree":          {"fuse/vfs", "internal/access", "meta", "meta/task", "procfs", "procfs/tasks"},
	"internal/steward":           {"chunk", "meta", "meta/members", "meta/namespace"},
	"internal/gateway/files":     {"fuse/vfs", "internal/access", "meta", "procfs"},
	"internal/gateway/calls":     {"internal/access", "internal/rpc", "meta", "meta/call", "meta/client", "meta/exchange"},
	"internal/gateway/passwords": {"internal/trust", "meta"},
	"internal/gateway/redis":     {"internal/cache", "internal/gateway/passwords", "internal/trust", "meta", "meta/cache", "meta/kv", "meta/queue"},
	"internal/gateway/web":       {"internal/gateway/passwords", "internal/rights", "internal/trust"},
	"internal/node":              {"chunk", "chunk/", "meta", "meta/", "procfs", "procfs/", "fuse", "fuse/", "internal/"},

	"chunk":                   {},
	"chunk/erasure":           {"chunk"},
	"chunk/disk":              {"chunk", "internal/"},
	"chunk/mem":               {"chunk", "internal/"},
	"chunk/rpc":               {"chunk", "internal/"},
	"chunk/storetest":         {"chunk"},
	"chunk/stripe":            {"chunk", "chunk/erasure"},
	"chunk/stripe/stripetest": {"chunk", "chunk/mem"},
	"chunk/repair":            {"chunk", "chunk/"},
	"chunk/fold":              {"chunk", "chunk/"},
	"chunk/node":              {"chunk", "chunk/", "internal/"},
	"chunk/cache":             {"chunk", "internal/"},

	"meta":                 {"chunk"},
	"meta/state":           {"meta"},
	"meta/lease":           {"meta", "meta/state"},
	"meta/session":         {"chunk", "meta", "meta/state"},
	"meta/lock":            {"meta", "meta/state", "meta/session"},
	"meta/named":           {"meta", "meta/state", "meta/session"},
	"meta/queue":           {"chunk", "meta", "meta/state", "meta/session", "meta/namespace"},
	"meta/task":            {"meta", "meta/state", "meta/session"},
	"meta/call":            {"meta", "meta/state"},
	"meta/exchange":        {"meta", "internal/rpc"},
	"meta/namespace":       {"chunk", "meta", "meta/state", "meta/session", "meta/lease", "meta/named"},
	"meta/members":         {"chunk", "meta", "meta/state", "meta/session"},
	"meta/trust":           {"meta", "meta/state"},
	"meta/kv":              {"meta", "meta/state"},
	"meta/cache":           {"meta", "meta/state"},
	"meta/txn":             {"meta", "meta/state"},
	"meta/memory":          {"meta", "meta/state", "meta/session", "meta/queue", "internal/rpc", "internal/boottime"},
	"meta/replica":         {"meta", "meta/state", "internal/disk"},
	"meta/quorum":          {"meta", "meta/replica"},
	"meta/rpc":             {"chunk", "meta", "meta/", "internal/rpc"},
	"meta/node":            {"chunk", "meta", "meta/", "internal/disk", "internal/boottime"},
	"meta/client":          {"chunk", "meta", "meta/", "internal/boottime"},
	"meta/state/statetest": {"meta/state"},
	"meta/metatest":        {"chunk", "meta", "meta/"},

	"procfs":         {"meta"},
	"procfs/cache":   {"internal/cache", "meta", "meta/cache", "procfs"},
	"procfs/cluster": {"meta", "procfs"},
	"procfs/queues":  {"meta", "meta/client", "meta/queue", "meta/txn", "procfs"},
	"procfs/locks":   {"meta", "meta/client", "meta/named", "procfs"},
	"procfs/nodes":   {"meta", "procfs"},
	"procfs/tasks":   {"meta", "meta/task", "procfs"},
	"procfs/kv":      {"meta", "meta/kv", "meta/txn", "procfs"},
	"procfs/rpc":     {"internal/relay", "meta", "meta/call", "meta/client", "meta/exchange", "procfs"},

	"fuse/vfs":         {"chunk", "chunk/stripe", "meta"},
	"fuse/vfs/vfstest": {"chunk", "chunk/", "meta", "meta/", "fuse/vfs"},
	"fuse":             {"fuse/vfs", "meta", "procfs"},

	"cmd/dosmount": {"chunk", "fuse", "internal/"},
	"cmd/dosd":     {"chunk", "internal/"},
	"cmd/dosctl":   {"internal/", "meta", "meta/cache", "meta/client", "meta/kv", "meta/txn", "meta/task", "procfs", "procfs/cache", "procfs/cluster", "procfs/nodes", "procfs/queues", "procfs/tasks"},

	"bench":         {"bench/load", "internal/cache", "internal/node", "meta/cache", "meta/call", "meta/client", "meta/exchange", "meta/queue"},
	"bench/load":    {},
	"test/cluster":  {},
	"test/posix":    {"test/witness"},
	"test/witness":  {},
	"test/fault":    {"test/cluster", "test/witness"},
	"test/history":  {},
	"test/machines": {"test/cluster", "test/history", "test/witness"},
	"test/redis":    {"test/cluster"},
	"test/services": {"test/cluster", "test/history", "test/witness"},
	"test/special":  {"test/cluster"},
	"test/tasks":    {"test/cluster"},
	"test/web":      {"test/cluster"},
	"test/layout":   {},
}

// libraries lists which rooms may import each library, by module path. A room
// that ends in "/rpc" stands for all of that name. A library that is not
// listed may not be imported at all: it needs a reason first, here and in the README.
var libraries = map[string][]string{
	"github.com/hanwen/go-fuse/v2":        {"fuse", "bench"},
	"google.golang.org/grpc":              {"internal/rpc", "*/rpc"},
	"github.com/hashicorp/raft":           {"meta/replica"},
	"github.com/hashicorp/raft-wal":       {"meta/replica"},
	"github.com/hashicorp/go-hclog":       {"meta/replica"},
	"github.com/dgraph-io/badger/v4":      {"meta/replica", "chunk/cache"},
	"github.com/dgraph-io/ristretto/v2":   {"meta/replica"},
	"github.com/fxamacker/cbor/v2":        {"meta/state", "internal/rpc"},
	"github.com/google/btree":             {"meta/state", "chunk/*"},
	"github.com/klauspost/reedsolomon":    {"chunk/erasure"},
	"github.com/opencontainers/cgroups":   {"internal/run"},
	"github.com/spf13/pflag":              {"cmd/*"},
	"github.com/tidwall/redcon":           {"internal/gateway/redis"},
	"github.com/anishathalye/porcupine":   {"test/history"},
	"golang.org/x/net":                    {"internal/node"},
	"golang.org/x/sync":                   {"*"},
	"golang.org/x/sys":                    {"*"},
	"github.com/prometheus/client_golang": {"internal/metrics"},
	"github.com/prometheus/common":        {"internal/metrics"},
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		room := strings.TrimPrefix(p.ImportPath, module)
		allowed, ok := may[room]
		if !ok {
			t.Errorf("%s is not in the table; say what it owns and what it may import", room)
		}
		for _, imp := range p.Imports {
			if dep, ours := strings.CutPrefix(imp, module); ours {
				if !slices.ContainsFunc(allowed, func(a string) bool {
					return dep == a || strings.HasSuffix(a, "/") && strings.HasPrefix(dep, a)
				}) {
					t.Errorf("%s may not import %s", room, dep)
				}
				continue
			}
			if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
				continue // the standard library
			}
			lib, rooms := library(imp)
			switch {
			case lib == "":
				t.Errorf("%s imports %s, which is not in the table of libraries", room, imp)
			case !slices.ContainsFunc(rooms, func(pattern string) bool { return matches(pattern, room) }):
				t.Errorf("%s may not import %s: it is confined to %s", room, imp, strings.Join(rooms, ", "))
			}
		}
	}
}

// TestTable keeps rooms that no longer exist out of the table.
func TestTable(t *testing.T) {
	exist := make(map[string]bool)
	for _, p := range packages(t) {
		exist[strings.TrimPrefix(p.ImportPath, module)] = true
	}
	for room := range may {
		if !exist[room] {
			t.Errorf("%s is in the table and does not exist", room)
		}
	}
}

// TestReadme holds the README to naming each library that is used.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool)
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			if lib, _ := library(imp); lib != "" {
				used[lib] = true
			}
		}
	}
	for lib := range used {
		if !strings.Contains(string(readme), lib) {
			t.Errorf("README.md does not say why %s is used", lib)
		}
	}
	for lib := range libraries {
		if !used[lib] {
			t.Errorf("%s is in the table of libraries and nothing imports it", lib)
		}
	}
}

// maxFile is the size in bytes from which a source file has become a hall.
const maxFile = 40 << 10

func TestFileSizes(t *testing.T) {
	root := "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, ".pb.go"):
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an editor's temporary file
		}
		if err == nil && info.Size() > maxFile {
			t.Errorf("%s has %d bytes, over %d: it is more than one room", path, info.Size(), maxFile)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

type pkg struct {
	ImportPath string
	Imports    []string
}

// packages lists the packages of the module with what they import, tests aside.
func packages(t *testing.T) []pkg {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// library finds the library that an import path belongs to; the longest match
// wins, so that raft-wal is not raft.
func library(imp string) (lib string, rooms []string) {
	for l, r := range libraries {
		if (imp == l || strings.HasPrefix(imp, l+"/")) && len(l) > len(lib) {
			lib, rooms = l, r
		}
	}
	return lib, rooms
}

// matches reports whether a room is one that the pattern means: a room's name,
// "*" for all, "*/name" for every room of that name, "room/*" for all below.
func matches(pattern, room string) bool {
	switch {
	case pattern == "*":
		return true
	case strings.HasPrefix(pattern, "*/"):
		return strings.HasSuffix(room, pattern[1:])
	case strings.HasSuffix(pattern, "/*"):
		return strings.HasPrefix(room, pattern[:len(pattern)-1])
	}
	return room == pattern
}
