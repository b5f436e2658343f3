package tasks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// fake is the service and the host, in memory: what is submitted stays as it is until a
// test says otherwise.
type fake struct {
	list   []task.Task
	specs  map[task.ID]task.Spec
	queues []task.Queue
	events []task.Event
	did    []string // controls
	mu     sync.Mutex
	data   map[string][]byte // guarded by mu
	ended  map[string]bool   // guarded by mu
	cwd    string
	wrong  error         // what Settle says
	moved  chan struct{} // Follow waits for it
	bulks  []int         // how many specs each Submit had
}

func newFake() *fake {
	return &fake{
		specs: make(map[task.ID]task.Spec), data: make(map[string][]byte), ended: make(map[string]bool),
		queues: []task.Queue{{Name: ""}}, moved: make(chan struct{}, 1),
	}
}

func (f *fake) Submit(_ context.Context, owner task.Owner, specs ...task.Spec) (ids []task.ID, err error) {
	f.bulks = append(f.bulks, len(specs))
	for _, s := range specs {
		id := task.ID{Job: uint64(len(f.list) + 1)}
		f.list = append(f.list, task.Task{ID: id, Version: 1, Owner: owner, Name: s.Name, Queue: s.Queue, State: task.Pending, Reason: "resources", Need: s.Need})
		f.specs[id] = s
		ids = append(ids, id)
	}
	return ids, nil
}

func (f *fake) at(id task.ID) *task.Task {
	for i := range f.list {
		if f.list[i].ID == id {
			return &f.list[i]
		}
	}
	return nil
}

func (f *fake) Task(_ context.Context, id task.ID) (task.Task, error) {
	if t := f.at(id); t != nil {
		return *t, nil
	}
	return task.Task{}, meta.NotExist
}

func (f *fake) Follow(ctx context.Context, id task.ID, seen uint64) (task.Task, error) {
	t, err := f.Task(ctx, id)
	if err != nil || t.Version != seen {
		return t, err
	}
	select {
	case <-f.moved:
		return f.Task(ctx, id)
	case <-ctx.Done():
		return t, ctx.Err()
	}
}

func (f *fake) Spec(_ context.Context, id task.ID) (task.Spec, error) {
	s, ok := f.specs[id]
	if !ok {
		return s, meta.NotExist
	}
	return s, nil
}

func (f *fake) List(_ context.Context, req task.List) (out task.Listed, err error) {
	for _, t := range f.list {
		switch {
		case t.ID.Compare(req.After) <= 0,
			req.State != 0 && t.State != req.State,
			req.Node != "" && (t.Node != req.Node || t.State != task.Running),
			req.Name != "" && t.Name != req.Name,
			req.UID != nil && t.Owner.UID != *req.UID:
			continue
		}
		out.Tasks = append(out.Tasks, t)
		out.Last = t.ID
		if len(out.Tasks) == req.Limit {
			break
		}
	}
	return out, nil
}

func (f *fake) Each(ctx context.Context, req task.List, fn func(task.Task) error) error {
	out, _ := f.List(ctx, req)
	for _, t := range out.Tasks {
		if err := fn(t); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Control(_ context.Context, req task.Control) error {
	f.did = append(f.did, fmt.Sprintf("%v %v %d by %d", req.ID, req.Verb, req.Number, req.UID))
	return nil
}

func (f *fake) Forget(_ context.Context, id task.ID, uid uint32) error {
	t := f.at(id)
	switch {
	case t == nil:
		return meta.NotExist
	case !t.State.Ended():
		return meta.Busy
	case uid != 0 && uid != t.Owner.UID:
		return meta.Permission
	}
	f.list = slices.DeleteFunc(f.list, func(t task.Task) bool { return t.ID == id })
	return nil
}

func (f *fake) Events(_ context.Context, after uint64, limit int) (out task.Events, err error) {
	for _, e := range f.events {
		if out.Last = e.Seq; e.Seq > after && len(out.List) < limit {
			out.List = append(out.List, e)
		}
	}
	return out, nil
}

func (f *fake) Status(context.Context) (out task.Status, err error) {
	out.Counts = make([]int64, task.Lost+1)
	for _, t := range f.list {
		out.Counts[t.State]++
	}
	out.Nodes = []task.NodeStatus{{Offer: task.Offer{Node: "n1", Have: task.Resources{CPU: 2000, Mem: 4 << 30}, Slots: 8}, Used: task.Resources{CPU: 500}, Tasks: 1}}
	return out, nil
}

func (f *fake) Queue(_ context.Context, name string) (task.Queue, error) {
	for _, q := range f.queues {
		if q.Name == name {
			return q, nil
		}
	}
	return task.Queue{}, meta.NotExist
}

func (f *fake) Queues(context.Context) ([]task.Queue, error) { return f.queues, nil }

func (f *fake) MakeQueue(_ context.Context, req task.MakeQueue) error {
	f.queues = append(f.queues, task.Queue{Name: req.Name, UID: req.UID, GID: req.GID, Mode: req.Mode})
	return nil
}

func (f *fake) SetQueue(_ context.Context, req task.SetQueue) error {
	for i := range f.queues {
		if f.queues[i].Name == req.Name && req.Rules != nil {
			f.queues[i].Rules = *req.Rules
		}
	}
	return nil
}

func (f *fake) RemoveQueue(_ context.Context, name string) error {
	f.queues = slices.DeleteFunc(f.queues, func(q task.Queue) bool { return q.Name == name })
	return nil
}

func (f *fake) Owner(by procfs.Caller) (task.Owner, string, error) {
	return task.Owner{UID: by.UID, GID: by.GID, Groups: []uint32{4, 5}, Umask: 0o27}, f.cwd, nil
}

func (f *fake) Settle(_ context.Context, _ task.Owner, s *task.Spec) error {
	s.Cwd = strings.TrimPrefix(s.Cwd, "/dos")
	if s.Near != "" {
		s.Prefer = []string{"n1"}
	}
	return f.wrong
}

func key(id task.ID, s Stream) string { return fmt.Sprint(id, s) }

func (f *fake) Stat(_ context.Context, id task.ID, s Stream) (int64, meta.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.data[key(id, s)])), 0, nil
}

func (f *fake) Open(_ context.Context, id task.ID, s Stream, _ task.Owner, _ procfs.Open) (procfs.Handle, error) {
	return &memory{f, key(id, s)}, nil
}

func (f *fake) End(_ context.Context, id task.ID, s Stream, _ task.Owner) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended[key(id, s)] = true
	return nil
}

func (f *fake) Ended(_ context.Context, id task.ID, s Stream) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended[key(id, s)], nil
}

// memory is a stream.
type memory struct {
	f   *fake
	key string
}

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	return bytes.NewReader(m.f.data[m.key]).ReadAt(p, off)
}

func (m *memory) WriteAt(_ context.Context, p []byte, _ int64) (int, error) {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	m.f.data[m.key] = append(m.f.data[m.key], p...)
	return len(p), nil
}

func (m *memory) Close(context.Context) error { return nil }

// find follows a path.
func find(t *testing.T, d procfs.Dir, path string) procfs.Node {
	t.Helper()
	n := procfs.Node(d)
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if n, err = n.(procfs.Dir).Lookup(t.Context(), name); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return n
}

func open(t *testing.T, d procfs.Dir, path string, how procfs.Open) procfs.Handle {
	t.Helper()
	h, err := find(t, d, path).(procfs.File).Open(t.Context(), how)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return h
}

func readAll(t *testing.T, h procfs.Handle) string {
	t.Helper()
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := h.ReadAt(t.Context(), buf, int64(len(all)))
		if n == 0 && err == nil {
			t.Fatal("a read of nothing without an end")
		}
		all = append(all, buf[:n]...)
		if err == io.EOF {
			return string(all)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, d procfs.Dir, path string) string {
	t.Helper()
	h := open(t, d, path, procfs.Open{Read: true, Caller: procfs.Caller{UID: 7}})
	defer h.Close(t.Context())
	return readAll(t, h)
}

func names(t *testing.T, d procfs.Dir) []string {
	t.Helper()
	var list []string
	for info, err := range d.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, info.Name)
	}
	return list
}
