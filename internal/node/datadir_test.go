package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dos/chunk"
)

func TestDataDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	if _, err := openData(path, chunk.Code{}, false); err == nil {
		t.Error("opened what is not there")
	}
	d, err := openData(path, chunk.Code{K: 2, M: 1}, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openData(path, chunk.Code{}, true); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		want chunk.Code
		fail string
	}{
		{chunk.Code{}, ""},
		{chunk.Code{K: 2, M: 1}, ""},
		{chunk.Code{K: 4, M: 2}, "made with --ec 2+1"},
	} {
		again, err := openData(path, test.want, true)
		if test.fail != "" {
			if err == nil || !strings.Contains(err.Error(), test.fail) {
				t.Errorf("open with %v: %v, want %q", test.want, err, test.fail)
			}
			continue
		}
		if err != nil {
			t.Fatalf("open with %v: %v", test.want, err)
		}
		if again.cluster != d.cluster || again.code != d.code {
			t.Errorf("reopened as %x %v, was %x %v", again.cluster, again.code, d.cluster, d.code)
		}
		again.Close()
	}
}

// What is not ours, damaged or of a newer format is refused and not touched.
func TestForeignDataDir(t *testing.T) {
	const whole = "dos-data 1\ncluster 00112233445566778899aabbccddeeff\ncode 4+2\n"
	for _, test := range []struct{ name, file, text, want string }{
		{"foreign", "holiday.jpg", "x", "neither empty nor"},
		{"newer", "format", strings.Replace(whole, "dos-data 1", "dos-data 3", 1), "newer"},
		{"machine's", "format", strings.Replace(whole, "dos-data 1", "dos-data 2", 1) + "node a\n", "dosd runs it"},
		{"nameless", "format", strings.Replace(whole, "dos-data 1", "dos-data 2", 1), "not whole"},
		{"named", "format", whole + "node a\n", "bad node"},
		{"cut", "format", whole[:20], "bad cluster"},
		{"long", "format", strings.Replace(whole, "cluster ", "cluster 00", 1), "bad cluster"},
		{"empty", "format", "", "not whole"},
		{"code", "format", strings.Replace(whole, "4+2", "400+2", 1), "bad code"},
		{"line", "format", whole + "color blue\n", "unknown line"},
	} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, test.file), []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := openData(path, chunk.Code{}, true)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		if list, _ := os.ReadDir(path); len(list) != 1 {
			t.Errorf("%s: left %v behind", test.name, list)
		}
	}
}

func FuzzFormat(f *testing.F) {
	f.Add("dos-data 1\ncluster 00112233445566778899aabbccddeeff\ncode 4+2\n")
	f.Add("code 4+\n")
	f.Add("dos-data 2\ncluster 00112233445566778899aabbccddeeff\nnode a\n")
	f.Add("cluster 0000000000000000000000000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		var d dataDir
		if d.parse(text) == nil && (d.code.K == 0 && d.node == "" || d.code.Shards() > chunk.MaxShards) {
			t.Errorf("accepted %q as %+v", text, d)
		}
	})
}
