package members

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// A cluster under test: a machine with its state in memory.
type world struct {
	t       *testing.T
	machine *state.Machine
	store   *state.Overlay
}

func newWorld(t *testing.T) *world {
	w := &world{t, new(state.Machine), state.NewOverlay(nil)}
	Register(w.machine)
	return w
}

func (w *world) do(op state.Op, req, resp any) error {
	w.t.Helper()
	var reply state.Reply
	if w.machine.IsQuery(op) {
		reply = w.machine.Answer(w.store, state.Command{Op: op, Body: state.Marshal(req)})
	} else {
		reply = w.machine.Apply(w.store, state.Command{Op: op, Time: 1, Body: state.Marshal(req)})
	}
	if err := reply.Err(); err != nil || resp == nil {
		return err
	}
	if err := state.Unmarshal(reply.Body, resp); err != nil {
		w.t.Fatal(err)
	}
	return nil
}

func (w *world) must(op state.Op, req, resp any) {
	w.t.Helper()
	if err := w.do(op, req, resp); err != nil {
		w.t.Fatalf("operation %#04x of %+v: %v", op, req, err)
	}
}

func (w *world) now() Map {
	var m Map
	w.must(OpMap, Since{}, &m)
	return m
}

var code42 = chunk.Code{K: 4, M: 2}

// begun is a cluster with n stores on one machine.
func begun(t *testing.T, n int) *world {
	w := newWorld(t)
	w.must(OpInit, Init{Cluster: ClusterID{1}, Code: code42}, nil)
	w.must(OpPutNode, Node{Name: "a", Zone: "z", Addr: "h:1", Labels: map[string]string{"k": "v"}}, nil)
	for i := range n {
		w.must(OpPutStore, Store{Node: "a", Ordinal: uint16(i), Path: fmt.Sprint("chunk/", i), Incarnation: 7}, nil)
	}
	return w
}

func TestInit(t *testing.T) {
	w := newWorld(t)
	if err := w.do(OpPutStore, Store{Node: "a"}, nil); !errors.Is(err, meta.NotExist) {
		t.Errorf("PutStore before Init = %v, want NotExist", err)
	}
	if m := w.now(); !reflect.DeepEqual(m, Map{}) {
		t.Errorf("Map before Init = %+v", m)
	}
	for _, test := range []struct {
		req  Init
		want error
	}{
		{Init{Code: code42}, meta.Invalid},
		{Init{Cluster: ClusterID{1}}, meta.Invalid},
		{Init{Cluster: ClusterID{1}, Code: chunk.Code{K: 200, M: 2}}, meta.Invalid},
		{Init{Cluster: ClusterID{1}, Code: chunk.Code{K: 4}}, meta.Invalid},
		{Init{Cluster: ClusterID{1}, Code: code42}, nil},
		{Init{Cluster: ClusterID{1}, Code: code42}, nil},
		{Init{Cluster: ClusterID{2}, Code: code42}, meta.Conflict},
		{Init{Cluster: ClusterID{1}, Code: chunk.Code{K: 2, M: 2}}, meta.Conflict},
	} {
		if err := w.do(OpInit, test.req, nil); !errors.Is(err, test.want) {
			t.Errorf("Init(%+v) = %v, want %v", test.req, err, test.want)
		}
	}
}

func TestStores(t *testing.T) {
	w := begun(t, 3)
	var s Store
	w.must(OpPutStore, Store{Node: "a", Ordinal: 1, Incarnation: 8}, &s)
	if s.ID != 2 || s.Incarnation != 8 {
		t.Errorf("the store that is there already = %+v, want 2", s)
	}
	if err := w.do(OpPutStore, Store{ID: 9, Node: "a", Ordinal: 1}, nil); !errors.Is(err, meta.Exist) {
		t.Errorf("another store in its place = %v, want Exist", err)
	}
	if err := w.do(OpPutStore, Store{ID: 9}, nil); !errors.Is(err, meta.Invalid) {
		t.Errorf("a store of no machine = %v, want Invalid", err)
	}
	w.must(OpPutStore, Store{ID: 9, Node: "b"}, &s)
	w.must(OpRemoveStore, Numbered{ID: 9}, nil)
	w.must(OpRemoveStore, Numbered{ID: 9}, nil)
	w.must(OpPutStore, Store{Node: "b", Ordinal: 1}, &s)
	if s.ID != 10 {
		t.Errorf("a new store is %d, want 10: no ID is given twice", s.ID)
	}
	if err := w.do(OpRemoveNode, Named{Name: "a"}, nil); !errors.Is(err, meta.Busy) {
		t.Errorf("RemoveNode with stores = %v, want Busy", err)
	}
	w.must(OpPutNode, Node{Name: "c"}, nil)
	w.must(OpRemoveNode, Named{Name: "c"}, nil)
	w.must(OpRemoveNode, Named{Name: "c"}, nil)
	if err := w.do(OpPutNode, Node{Name: strings.Repeat("x", TextMax+1)}, nil); !errors.Is(err, meta.Invalid) {
		t.Errorf("PutNode with a long name = %v, want Invalid", err)
	}
	if err := w.do(OpPutNode, Node{Name: "d", Roles: make([]string, RolesMax+1)}, nil); !errors.Is(err, meta.Invalid) {
		t.Errorf("PutNode with too many roles = %v, want Invalid", err)
	}
	m := w.now()
	if len(m.Nodes) != 1 || len(m.Stores) != 4 || m.Stores[3].ID != 10 {
		t.Errorf("Map = %+v", m)
	}
}

func TestLimits(t *testing.T) {
	w := begun(t, 0)
	for i := range StoresMax {
		w.store.Set(storeKey(chunk.StoreID(i+1)), state.Marshal(Store{ID: chunk.StoreID(i + 1), Node: "n", Ordinal: uint16(i)}))
	}
	c, _ := get[cluster](w.store, clusterKey())
	c.Stores, c.Last, c.Nodes = StoresMax, StoresMax, NodesMax
	w.store.Set(clusterKey(), state.Marshal(c))
	if err := w.do(OpPutStore, Store{Node: "one more"}, nil); !errors.Is(err, meta.Quota) {
		t.Errorf("one more than %d stores = %v, want Quota", StoresMax, err)
	}
	if err := w.do(OpPutNode, Node{Name: "one more"}, nil); !errors.Is(err, meta.Quota) {
		t.Errorf("one more than %d machines = %v, want Quota", NodesMax, err)
	}
	w.must(OpPutNode, Node{Name: "a", Zone: "other"}, nil)
}

// The epoch moves with every change and with nothing else.
func TestEpoch(t *testing.T) {
	w := begun(t, 6)
	epoch := w.now().Epoch
	for _, step := range []struct {
		op    state.Op
		req   any
		moves bool
	}{
		{OpPutNode, Node{Name: "a", Zone: "z", Addr: "h:1", Labels: map[string]string{"k": "v"}}, false},
		{OpPutStore, Store{ID: 1, Node: "a", Path: "chunk/0", Incarnation: 7}, false},
		{OpInit, Init{Cluster: ClusterID{1}, Code: code42}, false},
		{OpPutNode, Node{Name: "a", Zone: "y"}, true},
		{OpPutStore, Store{ID: 1, Node: "a", Path: "chunk/0", Incarnation: 8}, true},
		{OpPutStore, Store{ID: 1, Node: "a", Path: "chunk/0", Incarnation: 8, Capacity: 9}, true},
		{OpDrain, Drain{Store: 1}, false},
		{OpRemoveStore, Numbered{ID: 77}, false},
		{OpRemoveStore, Numbered{ID: 6}, true},
	} {
		w.must(step.op, step.req, nil)
		var got Changed
		w.must(OpEpoch, struct{}{}, &got)
		if moved := got.Epoch > epoch; moved != step.moves || got.Epoch < epoch {
			t.Errorf("after %#04x of %+v the epoch went from %d to %d", step.op, step.req, epoch, got.Epoch)
		}
		epoch = got.Epoch
	}
}

func TestSetGroups(t *testing.T) {
	w := begun(t, 6)
	m := w.now()
	rows := Place(m.Code, m.Stores, m.Nodes)
	edit := func(fn func(rows []Row) []Row) []Row {
		copied := slices.Clone(rows)
		return fn(copied)
	}
	for name, test := range map[string]struct {
		req  SetGroups
		want error
	}{
		"old epoch":   {SetGroups{m.Epoch - 1, rows}, meta.Conflict},
		"not all":     {SetGroups{m.Epoch, rows[1:]}, meta.Invalid},
		"order":       {SetGroups{m.Epoch, edit(func(r []Row) []Row { r[3], r[4] = r[4], r[3]; return r })}, meta.Invalid},
		"range":       {SetGroups{m.Epoch, edit(func(r []Row) []Row { r[1023].Group = 1024; return r })}, meta.Invalid},
		"no members":  {SetGroups{m.Epoch, edit(func(r []Row) []Row { r[5].Members = nil; return r })}, meta.Invalid},
		"twice":       {SetGroups{m.Epoch, edit(func(r []Row) []Row { r[5].Members = []chunk.StoreID{1, 1}; return r })}, meta.Invalid},
		"unknown":     {SetGroups{m.Epoch, edit(func(r []Row) []Row { r[5].Members = []chunk.StoreID{1, 99}; return r })}, meta.Invalid},
		"too many":    {SetGroups{m.Epoch, edit(func(r []Row) []Row { r[5].Members = make([]chunk.StoreID, 9); return r })}, meta.Invalid},
		"nothing yet": {SetGroups{m.Epoch, nil}, meta.Invalid},
	} {
		if err := w.do(OpSetGroups, test.req, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if now := w.now(); now.Epoch != m.Epoch || now.Groups != nil {
			t.Fatalf("%s: the map changed", name)
		}
	}
	var made Changed
	w.must(OpSetGroups, SetGroups{m.Epoch, rows}, &made)
	now := w.now()
	if made.Epoch != now.Epoch || len(now.Groups) != chunk.Groups {
		t.Fatalf("after SetGroups: epoch %d and %d, %d groups", made.Epoch, now.Epoch, len(now.Groups))
	}
	w.must(OpSetGroups, SetGroups{now.Epoch, rows}, &made)
	if made.Epoch != now.Epoch {
		t.Errorf("the same groups again moved the epoch from %d to %d", now.Epoch, made.Epoch)
	}
	other := slices.Clone(rows[3].Members)
	slices.Reverse(other)
	w.must(OpSetGroups, SetGroups{now.Epoch, []Row{{3, other}}}, &made)
	later := w.now()
	for i, g := range later.Groups {
		want := now.Groups[i]
		if i == 3 {
			want = chunk.Group{Epoch: later.Epoch, Members: other}
		}
		if !reflect.DeepEqual(g, want) {
			t.Errorf("group %d = %+v, want %+v", i, g, want)
		}
	}
	if err := w.do(OpRemoveStore, Numbered{ID: 6}, nil); !errors.Is(err, meta.Busy) {
		t.Errorf("RemoveStore of a member = %v, want Busy", err)
	}
}

// A change here is a change of format: fields may be added, none changed.
func TestGolden(t *testing.T) {
	w := begun(t, 1)
	rows := make([]Row, chunk.Groups)
	for i := range rows {
		rows[i] = Row{uint16(i), []chunk.StoreID{1}}
	}
	w.must(OpSetGroups, SetGroups{w.now().Epoch, rows}, nil)
	w.must(OpPutNode, Node{Name: "b", Roles: []string{RoleMeta, "chunk"}, Member: "b/1"}, nil)
	want := []string{
		"3363 a6015001000000000000000000000000000000" + "02a20104020203050401050106" + "02",
		"33670000 a20104028101",
		"336e61 a401616102617a0363683a3104a1616b6176",
		"336e62 a301616205" + "82646d657461656368756e6b" + "0663622f31",
		"337300000001 a401010261610467" + "6368756e6b2f300507",
	}
	var got []string
	for key, val := range w.store.Scan([]byte("3"), []byte("4")) {
		if !strings.HasPrefix(string(key), "3g") || string(key) == "3g\x00\x00" {
			got = append(got, hex.EncodeToString(key)+" "+hex.EncodeToString(val))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("rows are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// disks makes n machines of each zone with each so many stores.
func disks(zones, nodes, each int) (stores []Store, list []Node) {
	for z := range zones {
		for n := range nodes {
			name := fmt.Sprintf("%d-%d", z, n)
			list = append(list, Node{Name: name, Zone: fmt.Sprint("zone", z)})
			for range each {
				stores = append(stores, Store{ID: chunk.StoreID(len(stores) + 1), Node: name, Ordinal: uint16(len(stores))})
			}
		}
	}
	return stores, list
}

func TestPlace(t *testing.T) {
	for _, test := range []struct {
		zones, nodes, each int
		distinct           string // what the members of a row must not share
		even               bool   // all stores are alike
	}{
		{1, 1, 6, "store", true}, // embedded
		{1, 1, 3, "store", true}, // too few
		{1, 1, 9, "store", true},
		{1, 6, 1, "node", true},
		{1, 8, 2, "node", true},
		{3, 2, 2, "node", true},
		{3, 4, 3, "node", true},
		{6, 1, 1, "zone", true},
		{7, 2, 3, "zone", true},
	} {
		name := fmt.Sprintf("%d zones of %d machines with %d stores", test.zones, test.nodes, test.each)
		stores, nodes := disks(test.zones, test.nodes, test.each)
		rows := Place(code42, stores, nodes)
		if len(rows) != chunk.Groups {
			t.Fatalf("%s: %d rows", name, len(rows))
		}
		zone := make(map[string]string)
		for _, n := range nodes {
			zone[n.Name] = n.Zone
		}
		load := make(map[chunk.StoreID]int)
		data := make(map[chunk.StoreID]int)
		want := min(len(stores), code42.Shards())
		for i, row := range rows {
			if int(row.Group) != i || len(row.Members) != min(len(stores), code42.Shards()+Spares) {
				t.Fatalf("%s: row %d = %+v", name, i, row)
			}
			seen := make(map[string]bool)
			for j, id := range row.Members {
				s := stores[id-1]
				what := map[string]string{"store": fmt.Sprint(id), "node": s.Node, "zone": zone[s.Node]}[test.distinct]
				if j < want && seen[what] {
					t.Errorf("%s: row %d has the %s %s twice: %v", name, i, test.distinct, what, row.Members)
				}
				seen[what] = true
				if slices.Contains(row.Members[:j], id) {
					t.Errorf("%s: row %d has store %d twice", name, i, id)
				}
				if j < want {
					load[id]++
				}
				if j < int(code42.K) {
					data[id]++
				}
			}
		}
		checkEven(t, name+": members", load, len(stores))
		checkEven(t, name+": data shards", data, len(stores))
	}
}

func checkEven(t *testing.T, name string, load map[chunk.StoreID]int, stores int) {
	t.Helper()
	total, low, high := 0, chunk.Groups, 0
	for id := range chunk.StoreID(stores) {
		n := load[id+1]
		total, low, high = total+n, min(low, n), max(high, n)
	}
	mean := float64(total) / float64(stores)
	if float64(low) < 0.9*mean || float64(high) > 1.1*mean {
		t.Errorf("%s: between %d and %d rows a store, %.1f on average", name, low, high, mean)
	}
}

// The table follows from the stores, not from the order they come in.
func TestPlaceIsPure(t *testing.T) {
	stores, nodes := disks(3, 3, 3)
	want := Place(code42, stores, nodes)
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 1))
		rng.Shuffle(len(stores), func(i, j int) { stores[i], stores[j] = stores[j], stores[i] })
		rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		if got := Place(code42, stores, nodes); !reflect.DeepEqual(got, want) {
			t.Errorf("seed %d: the table depends on the order of its arguments", seed)
		}
	}
}

// A store that is out or draining gets nothing new, and without stores there is
// no table.
func TestPlaceOut(t *testing.T) {
	stores, nodes := disks(1, 3, 3)
	stores[2].Out, stores[3].Drain, nodes[2].Drain = true, true, true
	for _, row := range Place(code42, stores, nodes) {
		if slices.Contains(row.Members, 3) || slices.ContainsFunc(row.Members, func(id chunk.StoreID) bool { return id == 4 || id > 6 }) {
			t.Fatalf("row %+v has a store that is out or draining", row)
		}
	}
	if rows := Place(code42, nil, nil); rows != nil {
		t.Errorf("without stores there are %d rows", len(rows))
	}
}

func FuzzCommands(f *testing.F) {
	f.Add(uint16(OpPutStore), state.Marshal(Store{Node: "a"}))
	f.Add(uint16(OpSetGroups), state.Marshal(SetGroups{Epoch: 1, Rows: []Row{{0, []chunk.StoreID{1}}}}))
	f.Add(uint16(OpInit), []byte{0xff})
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		w := newWorld(t)
		w.must(OpInit, Init{Cluster: ClusterID{1}, Code: code42}, nil)
		if w.machine.IsCommand(state.Op(op)) {
			w.machine.Apply(w.store, state.Command{Op: state.Op(op), Body: body})
		}
		w.machine.Answer(w.store, state.Command{Op: state.Op(op), Body: body})
		w.now()
	})
}
