package node

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"dos/chunk"
	"dos/internal/admin"
	"dos/internal/disk"
)

// A data directory:
//
//	format    text, below; made last, so that a directory with it is whole
//	lock      flock(2) while a process uses the directory
//	sock      the administration's socket, mode 0600, while one runs
//	restored  empty: meta/ was made from a dump and not used since
//	meta/     of meta/node
//	chunk/N/  of chunk/node, one a store, from 0
//	identity  of a machine of a cluster: its certificate and key, mode 0600
//	addr      of a machine of a cluster: where it was started last
//	mounts    where the stores' file systems are mounted, see there
//	peers     of a machine of a cluster: a line an address of others
//	removed   empty: the machine was turned out of its cluster
//
// The format file is lines of "key value":
//
//	dos-data 2
//	cluster 32 hexadecimal digits
//	code 4+2
//	node NAME
//
// Version 1 is an embedded cluster's, and has no node. Version 2 is a machine's of
// a cluster; one that joined has no code, which is the cluster's. A reader refuses
// a version it does not know.
const (
	embeddedVersion = 1
	machineVersion  = 2
)

const restoredName = "restored"

// ErrNotRunning says that no dos runs on a data directory.
var ErrNotRunning = errors.New("no dos runs")

// dataDir is a data directory that this process has for itself.
type dataDir struct {
	path    string
	lock    *os.File
	cluster [16]byte // the cluster's identity
	code    chunk.Code
	node    string // the machine's name; empty for an embedded cluster
}

// openData takes the data directory of an embedded cluster, and makes it if
// create is set and it is missing or empty. want is the code of a new one and
// must be that of an old one, unless it is zero. Nothing is touched when it fails.
func openData(path string, want chunk.Code, create bool) (_ *dataDir, err error) {
	d, fresh, err := takeData(path, create, func(d *dataDir) error {
		if d.node != "" {
			return fmt.Errorf("%s belongs to machine %s of a cluster: dosd runs it", path, d.node)
		}
		return d.agrees(want)
	})
	if err != nil || !fresh {
		return d, err
	}
	if d.code = want; want == (chunk.Code{}) {
		d.code = defaultCode
	}
	rand.Read(d.cluster[:]) //nolint:errcheck // it does not fail
	if err := d.write(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// defaultCode is that of a new cluster.
var defaultCode = chunk.Code{K: 4, M: 2}

// agrees says whether a directory may be opened with --ec want.
func (d *dataDir) agrees(want chunk.Code) error {
	if want != (chunk.Code{}) && want != d.code {
		return fmt.Errorf("%s was made with --ec %v, not %v; leave --ec out or say %v", d.path, d.code, want, d.code)
	}
	return nil
}

// takeData takes a data directory that is one already and that fit agrees to,
// or, if create is set, one that is missing or empty: then it is fresh, and
// whoever took it writes its format.
func takeData(path string, create bool, fit func(*dataDir) error) (_ *dataDir, fresh bool, err error) {
	text, err := os.ReadFile(filepath.Join(path, "format"))
	fresh = errors.Is(err, os.ErrNotExist)
	switch {
	case fresh && !create:
		return nil, false, fmt.Errorf("%s is not a data directory of dos", path)
	case fresh:
		if err := mayMake(path); err != nil {
			return nil, false, err
		}
		if err := hasRoom(path); err != nil {
			return nil, false, err
		}
	case err != nil:
		return nil, false, err
	}
	d := &dataDir{path: path}
	if !fresh {
		if err := d.parse(string(text)); err != nil {
			return nil, false, fmt.Errorf("%s: %w", filepath.Join(path, "format"), err)
		}
		if err := fit(d); err != nil {
			return nil, false, err
		}
	} else if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, false, err
	}
	if d.lock, err = os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600); err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, false, fmt.Errorf("%s is in use by another dos (%s)", path, holder(d.lock))
		}
		return nil, false, fmt.Errorf("lock %s: %w", path, err)
	}
	return d, fresh, noteHolder(d.lock, "")
}

// mayMake says whether path can become a data directory: it is missing, or
// holds nothing but what a start that was cut short, or a log, left there.
func mayMake(path string) error {
	list, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		switch e.Name() {
		case "lock", "format.new", "dosmount.log", "lost+found", "identity", "peers", "peers.new", "addr", "addr.new":
		default:
			return fmt.Errorf("%s is neither empty nor a data directory of dos (it has %q)", path, e.Name())
		}
	}
	return nil
}

// newNeeds is how much must be free for a new data directory, in bytes: what is
// kept back for removing files on a full disk (see meta/replica and chunk/disk,
// together some 400 MiB on a small one) and as much again as makes it worth while.
const newNeeds = 640 << 20

// hasRoom says whether the disk is large enough for a new data directory at path.
func hasRoom(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	space, err := disk.Real{}.Space(path)
	for errors.Is(err, os.ErrNotExist) && path != "/" {
		path = filepath.Dir(path)
		space, err = disk.Real{}.Space(path)
	}
	if err == nil && space.Free < newNeeds {
		err = fmt.Errorf("%d MiB are free in %s and a new data directory needs %d MiB: make room, or choose another with --data", space.Free>>20, path, newNeeds>>20)
	}
	return err
}

func (d *dataDir) parse(text string) error {
	var version int
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		key, val, _ := strings.Cut(lines.Text(), " ")
		switch key {
		case "dos-data":
			if _, err := fmt.Sscanf(val, "%d", &version); err != nil || version < 1 {
				return fmt.Errorf("bad version %q", val)
			}
			if version > machineVersion {
				return fmt.Errorf("format %d is newer than this program's, %d; use a newer dos", version, machineVersion)
			}
		case "cluster":
			id, err := hex.DecodeString(val)
			if err != nil || len(id) != len(d.cluster) {
				return fmt.Errorf("bad cluster %q", val)
			}
			copy(d.cluster[:], id)
		case "code":
			if n, _ := fmt.Sscanf(val, "%d+%d", &d.code.K, &d.code.M); n != 2 || d.code.K < 1 || d.code.M < 1 || d.code.Shards() > chunk.MaxShards {
				return fmt.Errorf("bad code %q", val)
			}
		case "node":
			if d.node = val; val == "" || version < machineVersion {
				return fmt.Errorf("bad node %q", val)
			}
		default:
			return fmt.Errorf("unknown line %q", lines.Text())
		}
	}
	named := version >= machineVersion
	if version == 0 || !named && d.code.K == 0 || named != (d.node != "") || d.cluster == ([16]byte{}) {
		return errors.New("is not whole")
	}
	return nil
}

// write makes the format file, whole or not at all.
func (d *dataDir) write() error {
	version := embeddedVersion
	if d.node != "" {
		version = machineVersion
	}
	text := fmt.Sprintf("dos-data %d\ncluster %x\n", version, d.cluster)
	if d.code.K != 0 {
		text += fmt.Sprintf("code %v\n", d.code)
	}
	if d.node != "" {
		text += fmt.Sprintf("node %s\n", d.node)
	}
	return replaceFile(filepath.Join(d.path, "format"), text)
}

// replaceFile has a file hold text, all of it or what it held before.
func replaceFile(name, text string) error {
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes the names in a folder durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// noteRestored notes that the metadata may be older than what the stores hold.
func (d *dataDir) noteRestored() error {
	f, err := os.OpenFile(filepath.Join(d.path, restoredName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(d.path))
}

func (d *dataDir) wasRestored() (bool, error) {
	_, err := os.Stat(filepath.Join(d.path, restoredName))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// forgetRestored ends noteRestored. If it fails or a crash undoes it, what was
// done about it is done again, which does no harm.
func (d *dataDir) forgetRestored() error {
	return os.Remove(filepath.Join(d.path, restoredName))
}

// Close gives the directory up.
func (d *dataDir) Close() error { return d.lock.Close() }

// meta is the folder of the metadata member.
func (d *dataDir) meta() string { return filepath.Join(d.path, "meta") }

// store is the folder of the i-th chunk store.
func (d *dataDir) store(i int) string { return filepath.Join(d.path, "chunk", fmt.Sprint(i)) }

// sock is the path of the administration's socket.
func (d *dataDir) sock() string { return filepath.Join(d.path, "sock") }

// listen opens the administration's socket. One that a crash left is replaced:
// whoever holds the directory's lock is the only one who may listen.
func (d *dataDir) listen() (net.Listener, error) {
	name := d.sock()
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := admin.Listen(name)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
