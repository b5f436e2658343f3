package fuse

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"dos/meta"
	"dos/procfs"
)

// A memRoom is a special directory with a file of each class, all in memory. Any
// other name in it is a whole-file object.
type memRoom struct {
	mu      sync.Mutex
	said    []string             // the commands of ctl; guarded by mu
	queue   []string             // what pop takes; guarded by mu
	pushed  chan struct{}        // closed when something comes; guarded by mu
	popping int                  // who waits in pop; guarded by mu
	values  map[string]*memValue // guarded by mu
	version uint64               // guarded by mu
	locked  chan struct{}        // holds one element while somebody has the lock
	blocked chan struct{}        // gets one for each `block` that begins
}

type memValue struct {
	data     []byte
	version  uint64
	mode     uint32
	uid, gid uint32
	ttl      string
	dir      bool
}

func newMemRoom() *memRoom {
	return &memRoom{values: make(map[string]*memValue), pushed: make(chan struct{}), locked: make(chan struct{}, 1), blocked: make(chan struct{}, 64)}
}

func (r *memRoom) push(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, text)
	r.wake()
}

// unpop puts what was taken back to the head.
func (r *memRoom) unpop(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append([]string{text}, r.queue...)
	r.wake()
}

func (r *memRoom) wake() {
	close(r.pushed)
	r.pushed = make(chan struct{})
}

func (r *memRoom) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.popping
}

func (r *memRoom) queued() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.queue)
}

func (r *memRoom) commands() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.said
	r.said = nil
	return said
}

func (r *memRoom) pop(ctx context.Context, wait bool) (procfs.Taken, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.popping++
	defer func() { r.popping-- }()
	for {
		if err := ctx.Err(); err != nil {
			return procfs.Taken{}, err
		}
		if len(r.queue) > 0 {
			text := r.queue[0]
			r.queue = r.queue[1:]
			return procfs.Taken{Data: text, End: func(_ context.Context, had bool) error {
				if !had {
					r.unpop(text)
				}
				return nil
			}}, nil
		}
		if !wait {
			return procfs.Taken{}, meta.WouldWait
		}
		pushed := r.pushed
		r.mu.Unlock()
		select {
		case <-pushed:
		case <-ctx.Done():
		}
		r.mu.Lock()
	}
}

func (r *memRoom) say(ctx context.Context, line string) error {
	switch line {
	case "bad":
		return fmt.Errorf("there is no verb %q: %w", line, meta.Invalid)
	case "block":
		r.blocked <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, line)
	return nil
}

func (r *memRoom) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "kv", Mode: meta.TypeDir | 0o777}, nil
}

type roomFile struct {
	*memRoom
	kind string
}

type roomControl struct{ roomFile }

func (roomControl) Blocks() {}

type roomValue struct {
	*memRoom
	name string
}

func (r *memRoom) Lookup(_ context.Context, name string) (procfs.Node, error) {
	base, _, err := procfs.Patience(name)
	switch {
	case err != nil:
		return nil, err
	case name == "ctl":
		return roomControl{roomFile{r, name}}, nil
	case base == "pop", name == "ask", name == "lock":
		return roomFile{r, name}, nil
	case name == "help":
		return procfs.Help{About: "a room"}.File(), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.values[name] == nil {
		return nil, meta.NotExist
	}
	return roomValue{r, name}, nil
}

func (r *memRoom) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		r.mu.Lock()
		names := append([]string{"ctl", "ask", "help"}, slices.Sorted(maps.Keys(r.values))...)
		r.mu.Unlock()
		for _, name := range names {
			n, err := r.Lookup(ctx, name)
			if err != nil {
				continue
			}
			info, err := n.Stat(ctx)
			info.Name = name
			if !yield(info, err) {
				return
			}
		}
	}
}

func (f roomFile) Stat(context.Context) (procfs.Info, error) {
	info := procfs.Info{Name: f.kind, Mode: meta.TypeFile | 0o666}
	if f.kind == "ctl" {
		info.Size = int64(len("max 3\n"))
	}
	return info, nil
}

func (f roomFile) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	base, patience, err := procfs.Patience(f.kind)
	if err != nil {
		return nil, err
	}
	switch base {
	case "ctl":
		return procfs.Control{Settings: func(context.Context) (string, error) { return "max 3\n", nil }, Do: f.say}.Open(ctx, how)
	case "ask":
		return procfs.Transaction{Say: func(_ context.Context, line string) (string, error) {
			n, err := strconv.Atoi(line)
			if err != nil {
				return "", fmt.Errorf("%q is not a number: %w", line, meta.Invalid)
			}
			return fmt.Sprintln(n + 1), nil
		}}.Open(ctx, how)
	case "lock":
		h, err := procfs.OpenText(procfs.Open{}, "state\n")
		return &roomLock{Handle: h, room: f.memRoom}, err
	}
	return procfs.Take{Take: f.pop, Patience: patience}.Open(ctx, how)
}

// A roomLock knows exclusive locks only.
type roomLock struct {
	procfs.Handle
	room *memRoom
	mine bool
}

func (h *roomLock) Lock(ctx context.Context, mode meta.LockMode, wait bool) error {
	if mode == meta.Unlocked || h.mine {
		return h.Close(ctx)
	}
	select {
	case h.room.locked <- struct{}{}:
		h.mine = true
		return nil
	default:
	}
	if !wait {
		return meta.Busy
	}
	select {
	case h.room.locked <- struct{}{}:
		h.mine = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *roomLock) Close(context.Context) error {
	if h.mine {
		<-h.room.locked
		h.mine = false
	}
	return nil
}

func (v roomValue) value() (*memValue, error) {
	if val := v.values[v.name]; val != nil {
		return val, nil
	}
	return nil, meta.NotExist
}

func (v roomValue) Stat(context.Context) (procfs.Info, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	val, err := v.value()
	if err != nil {
		return procfs.Info{}, err
	}
	if val.dir {
		return procfs.Info{Name: v.name, Mode: val.mode, UID: val.uid, GID: val.gid}, nil
	}
	return procfs.Info{Name: v.name, Mode: val.mode, UID: val.uid, GID: val.gid, Size: int64(len(val.data)), Mtime: meta.Time(val.version) * 1e9}, nil
}

func (v roomValue) Truncatable() {}

func (v roomValue) object(mode uint32, by procfs.Caller) procfs.Object {
	return procfs.Object{Value: valueOf{v, mode, by}, Max: 1 << 20}
}

func (v roomValue) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	return v.object(meta.TypeFile|0o644, how.Caller).Open(ctx, how)
}

// valueOf is a value, and what it is to be when it is made.
type valueOf struct {
	roomValue
	mode uint32
	by   procfs.Caller
}

func (v valueOf) Load(context.Context) ([]byte, uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	val, err := v.value()
	if err != nil {
		return nil, 0, err
	}
	return val.data, val.version, nil
}

func (v valueOf) Check(_ context.Context, size int, only *uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.check(size, only)
}

func (v valueOf) check(size int, only *uint64) error {
	version := uint64(0)
	if val := v.values[v.name]; val != nil {
		version = val.version
	}
	switch {
	case size == 13:
		return fmt.Errorf("13 bytes are too many: %w", meta.Quota)
	case only != nil && *only != version:
		return meta.Conflict
	}
	return nil
}

func (v valueOf) Store(_ context.Context, data []byte, only *uint64) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.check(len(data), only); err != nil {
		return 0, err
	}
	val := v.values[v.name]
	if val == nil {
		val = &memValue{mode: v.mode, uid: v.by.UID, gid: v.by.GID}
		v.values[v.name] = val
	}
	v.version++
	val.data, val.version = bytes.Clone(data), v.version
	return val.version, nil
}

func (v valueOf) Remove(_ context.Context, version uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.check(0, &version); err != nil {
		return err
	}
	delete(v.values, v.name)
	return nil
}

func (r *memRoom) Make(ctx context.Context, name string, mode uint32, how procfs.Open) (procfs.Node, procfs.MadeHandle, error) {
	v := roomValue{r, name}
	info := procfs.Info{Name: name, Mode: mode, UID: how.Caller.UID, GID: how.Caller.GID}
	h, err := v.object(mode, how.Caller).Make(ctx, how, info)
	return v, h, err
}

func (r *memRoom) Create(_ context.Context, name string, mode uint32, by procfs.Caller) (procfs.Node, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.values[name] != nil {
		return nil, meta.Exist
	}
	r.values[name] = &memValue{mode: mode, uid: by.UID, gid: by.GID, dir: true}
	return roomValue{r, name}, nil
}

func (r *memRoom) fixed(name string) bool {
	return slices.Contains([]string{"ctl", "pop", "ask", "lock", "help"}, name)
}

func (r *memRoom) Remove(_ context.Context, name string, _ procfs.Caller) error {
	if r.fixed(name) {
		return meta.Fixed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.values, name)
	return nil
}

func (r *memRoom) Movable(name string) bool { return !r.fixed(name) }

func (r *memRoom) Rename(_ context.Context, name string, to procfs.Node, newName string, noReplace bool, _ procfs.Caller) error {
	if to != procfs.Node(r) || r.fixed(newName) {
		return meta.Fixed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if noReplace && r.values[newName] != nil {
		return meta.Exist
	}
	r.values[newName] = r.values[name]
	delete(r.values, name)
	return nil
}

func (v roomValue) Set(_ context.Context, c procfs.Change, _ procfs.Caller) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	val, err := v.value()
	if err != nil {
		return err
	}
	if c.Mode != nil {
		val.mode = val.mode&meta.TypeMask | *c.Mode
	}
	if c.UID != nil {
		val.uid = *c.UID
	}
	if c.GID != nil {
		val.gid = *c.GID
	}
	if c.Touch {
		val.ttl = "renewed"
	}
	return nil
}

func (v roomValue) Xattrs(context.Context) (map[string]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	val, err := v.value()
	if err != nil {
		return nil, err
	}
	return map[string]string{"version": fmt.Sprint(val.version), "ttl": val.ttl}, nil
}

func (v roomValue) SetXattr(_ context.Context, name string, text *string, _ procfs.Caller) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	val, err := v.value()
	switch {
	case err != nil:
		return err
	case name != "ttl":
		return meta.Fixed
	case text == nil:
		val.ttl = ""
	case strings.Contains(*text, "x"):
		return meta.Invalid
	default:
		val.ttl = *text
	}
	return nil
}
