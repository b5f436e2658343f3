package namespace

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"dos/meta"
	"dos/meta/state"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// Numbers of operations are never reused: this list only grows.
func TestGoldenOps(t *testing.T) {
	m := new(state.Machine)
	Register(m)
	golden(t, "testdata/ops.golden", []byte(strings.Join(m.Ops(), "\n")+"\n"))
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
	golden(t, "testdata/rows.golden", b.Bytes())
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
