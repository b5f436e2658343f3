package namespace

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"dos/meta"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// Numbers of operations are never reused: this list only grows.
func TestGoldenOps(t *testing.T) {
	m := new(state.Machine)
	Register(m)
	statetest.Golden(t, "testdata/ops.golden", strings.Join(m.Ops(), "\n")+"\n")
}

// A change here is a change of format: what is written must be read for ever.
func TestGoldenRows(t *testing.T) {
	s, _, _, _ := full(t)
	var b bytes.Buffer
	many := 0
	for k, v := range s.Scan([]byte("3"), nil) {
		if k[0] == 'x' && v[0] == 0xa1 {
			if many++; many > 3 {
				continue // they are all alike
			}
		}
		fmt.Fprintf(&b, "%s %x %x\n", k[:1], k[1:], v)
	}
	statetest.Golden(t, "testdata/rows.golden", b.String())
}

// The rows say what the commands did.
func TestRows(t *testing.T) {
	s, dir, file, _ := full(t)
	in, ok := load[inode](s, inodeKey(file))
	if !ok || in.Attr.Ino != file || in.Extents != 2 || in.Inline != 3 || in.Stripes != 1 || in.Xattrs != 1 || in.Attr.Bytes != 1003 {
		t.Errorf("inode %+v", in)
	}
	if d, ok := load[dentry](s, dentryKey(dir, "f")); !ok || d != (dentry{file, meta.TypeFile}) {
		t.Errorf("dentry %+v", d)
	}
}
