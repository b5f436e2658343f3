package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"dos/fuse/vfs"
	"dos/fuse/vfs/vfstest"
	"dos/internal/access"
	"dos/meta"
)

// A site is a tree and a server for it.
type site struct {
	t       *testing.T
	fs      *vfs.FS
	url     string
	changed []string
	client  http.Client
}

func newSite(t *testing.T) *site {
	s := &site{t: t, fs: vfstest.New(t, 1, 0o755).Mounts[0].FS}
	web := httptest.NewServer(Handler(Config{
		Scheme: "http", Named: access.Named, Tree: func(context.Context) (*vfs.FS, error) { return s.fs, nil },
		Changed: func(_ meta.Ino, name string, _ meta.Ino) { s.changed = append(s.changed, name) },
	}))
	t.Cleanup(web.Close)
	s.url = web.URL
	return s
}

// ask sends a request, follows where it is sent, and returns the status and the body.
func (s *site) ask(method, path string, body io.Reader, header ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(text)
}

type turn struct {
	ask    string // the method and the path
	body   string
	status int
	want   string // the beginning of the answer
}

func (s *site) talk(turns ...turn) {
	s.t.Helper()
	for _, c := range turns {
		method, path, _ := strings.Cut(c.ask, " ")
		resp, got := s.ask(method, path, strings.NewReader(c.body))
		if resp.StatusCode != c.status || !strings.HasPrefix(got, c.want) {
			s.t.Errorf("%s %.20q: %s %q; want %d %q", c.ask, c.body, resp.Status, got, c.status, c.want)
		}
	}
}

func TestFiles(t *testing.T) {
	s := newSite(t)
	s.talk(
		turn{"GET /fs/a", "", 404, "/a: does not exist"},
		turn{"PUT /fs/d/a", "x", 404, ""},
		turn{"PUT /fs/d/e/", "", 201, ""},
		turn{"PUT /fs/d/e/", "", 201, ""},
		turn{"PUT /fs/d/a%20b", "hello\n", 201, ""},
		turn{"GET /fs/d/a%20b", "", 200, "hello\n"},
		turn{"PUT /fs/d/a%20b", "again\n", 204, ""},
		turn{"GET /fs/d/a%20b", "", 200, "again\n"},
		turn{"GET /fs/d", "", 200, "a b\ne/\n"},
		turn{"GET /fs/d/?format=json", "", 200, `[{"name":"a b","type":"file","size":6,"mode":"0644","uid":0,"gid":0,"mtime":"20`},
		turn{"GET /fs/d/a%20b/", "", 409, ""},
		turn{"GET /fs/d/a%20b/c", "", 409, ""},
		turn{"PUT /fs/d/a%20b/c", "x", 409, ""},
		turn{"PUT /fs/d/a%20b/", "", 409, ""},
		turn{"PUT /fs/d/e", "x", 409, ""},
		turn{"PUT /fs/" + strings.Repeat("n", 256), "x", 400, ""},
		turn{"PUT /fs/tasks", "x", 400, ""},
		turn{"GET /fs/queues/", "", 400, ""},
		turn{"DELETE /fs/d", "", 409, ""},
		turn{"DELETE /fs/", "", 409, ""},
		turn{"DELETE /fs/d/e", "", 204, ""},
		turn{"DELETE /fs/d/e", "", 404, ""},
		turn{"PATCH /fs/d/e", "", 405, ""},
		turn{"DELETE /fs/d?recursive=true", "", 204, ""},
		turn{"GET /fs/", "", 200, ""},
		turn{"GET /fs/?user=no-such-user", "", 403, ""},
	)
	if _, got := s.ask("GET", "/fs/", nil); got != "" {
		t.Errorf("left: %q", got)
	}
}

// What is large comes whole and in parts, and conditions are heeded.
func TestContents(t *testing.T) {
	s := newSite(t)
	large := bytes.Repeat([]byte("0123456789abcde\n"), 9<<16) // 9 MiB, more than two stripes
	if resp, text := s.ask("PUT", "/fs/large", io.MultiReader(bytes.NewReader(large))); resp.StatusCode != 201 {
		t.Fatalf("%s %s", resp.Status, text)
	}
	if _, got := s.ask("GET", "/fs/large", nil); got != string(large) {
		t.Errorf("%d bytes of %d", len(got), len(large))
	}
	const from, to = 4<<20 - 5, 4<<20 + 300<<10
	resp, got := s.ask("GET", "/fs/large", nil, "Range", "bytes=4194299-4501503")
	if resp.StatusCode != 206 || got != string(large[from:to]) {
		t.Errorf("a range: %s, %d bytes", resp.Status, len(got))
	}
	if resp, _ := s.ask("GET", "/fs/large", nil, "Range", "bytes=99999999-"); resp.StatusCode != 416 {
		t.Errorf("a range behind the end: %s", resp.Status)
	}
	resp, got = s.ask("HEAD", "/fs/large", nil)
	tag := resp.Header.Get("ETag")
	if resp.ContentLength != int64(len(large)) || got != "" || tag == "" {
		t.Errorf("HEAD: %v %q", resp.Header, got)
	}
	if resp, _ = s.ask("GET", "/fs/large", nil, "If-None-Match", tag); resp.StatusCode != 304 {
		t.Errorf("what is known: %s", resp.Status)
	}
	for header, want := range map[string]int{"If-None-Match: *": 409, "If-Match: " + tag: 501, "Content-Range: bytes 0-0/1": 501} {
		name, value, _ := strings.Cut(header, ": ")
		if resp, _ = s.ask("PUT", "/fs/large", strings.NewReader("x"), name, value); resp.StatusCode != want {
			t.Errorf("PUT with %s: %s, want %d", header, resp.Status, want)
		}
	}
	if resp, _ = s.ask("GET", "/fs/large", nil, "If-None-Match", tag); resp.StatusCode != 304 {
		t.Errorf("it was changed: %s", resp.Status)
	}
	if resp, _ = s.ask("PUT", "/fs/large", strings.NewReader("x")); resp.StatusCode != 204 {
		t.Errorf("PUT: %s", resp.Status)
	}
	if resp, got = s.ask("GET", "/fs/large", nil, "If-None-Match", tag); resp.StatusCode != 200 || got != "x" {
		t.Errorf("what has changed: %s %q", resp.Status, got)
	}
}

// A body that is cut changes nothing and leaves nothing.
func TestCut(t *testing.T) {
	s := newSite(t)
	s.talk(turn{"PUT /fs/f", "old", 201, ""})
	cut := errors.New("cut")
	for _, path := range []string{"/fs/f", "/fs/g", "/webhdfs/v1/f?op=CREATE&overwrite=true&data=true"} {
		req, err := http.NewRequestWithContext(t.Context(), "PUT", s.url+path, io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), broken{cut}))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); !errors.Is(err, cut) {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	for { // the server may still be at it
		_, got := s.ask("GET", "/fs/", nil)
		if got == "f\n" {
			break
		}
		if !strings.Contains(got, ".put-") {
			t.Fatalf("there is %q", got)
		}
	}
	s.talk(turn{"GET /fs/f", "", 200, "old"})
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// Who asks as a user may do what that user may.
func TestUsers(t *testing.T) {
	s := newSite(t)
	s.talk(
		turn{"PUT /webhdfs/v1/open?op=MKDIRS&permission=1777", "", 200, ""},
		turn{"PUT /webhdfs/v1/shut?op=MKDIRS&permission=700", "", 200, ""},
		turn{"PUT /fs/shut/f", "secret", 201, ""},
		turn{"PUT /fs/open/root", "root's", 201, ""},
		turn{"PUT /fs/new?user=77", "x", 403, ""},
		turn{"PUT /fs/new/?user=77", "", 403, ""},
		turn{"GET /fs/shut/f?user=77", "", 403, ""},
		turn{"GET /fs/shut/?user=77", "", 403, ""},
		turn{"PUT /fs/open/mine?user=77", "mine", 201, ""},
		turn{"GET /fs/open/mine?user=78", "", 200, "mine"},
		turn{"PUT /fs/open/mine?user=78", "x", 403, ""},
		turn{"DELETE /fs/open/mine?user=78", "", 403, ""},
		turn{"DELETE /fs/open/root?user=77", "", 403, ""},
		turn{"PUT /webhdfs/v1/open/mine?op=RENAME&destination=/open/yours&user.name=78", "", 403, ""},
		turn{"POST /webhdfs/v1/open/mine?op=APPEND&data=true&user.name=78", "x", 403, ""},
		turn{"PUT /webhdfs/v1/open/mine?op=RENAME&destination=/mine&user.name=77", "", 403, ""},
		turn{"DELETE /fs/open?recursive=true&user=77", "", 403, ""},
		turn{"PUT /fs/open/mine", "as root", 204, ""},
		turn{"GET /fs/open/?format=json", "", 200, `[{"name":"mine","type":"file","size":7,"mode":"0644","uid":77,"gid":77,`},
		turn{"DELETE /fs/open/mine?user=77", "", 204, ""},
	)
}

// A file that is replaced keeps its mode and attributes.
func TestInherit(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	s.talk(turn{"PUT /webhdfs/v1/f?op=CREATE&data=true&permission=640", "one", 201, ""})
	a, err := s.fs.Lookup(ctx, meta.Root, "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.fs.SetXattr(ctx, a.Ino, "user.colour", []byte("blue"), 0); err != nil {
		t.Fatal(err)
	}
	s.talk(turn{"PUT /fs/f", "two", 204, ""})
	b, err := s.fs.Lookup(ctx, meta.Root, "f")
	val, xerr := s.fs.Xattr(ctx, b.Ino, "user.colour")
	if err != nil || xerr != nil || b.Mode != meta.TypeFile|0o640 || string(val) != "blue" || b.Ino == a.Ino {
		t.Errorf("%o %q, %v, %v", b.Mode, val, err, xerr)
	}
	want := []string{"f", "f"}
	got := s.changed[:0]
	for _, name := range s.changed {
		if !strings.HasPrefix(name, ".put-") {
			got = append(got, name)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("told of changes of %q, want %q", got, want)
	}
}

// Symbolic links lead where they do in a mount.
func TestLinks(t *testing.T) {
	s := newSite(t)
	for name, target := range map[string]string{"l": "d/f", "abs": "/dos/d", "out": "/etc"} {
		if _, err := s.fs.Create(t.Context(), meta.Root, name, meta.Node{Mode: meta.TypeSymlink | 0o777, Target: target}); err != nil {
			t.Fatal(err)
		}
	}
	s.talk(
		turn{"PUT /fs/d/", "", 201, ""},
		turn{"PUT /fs/l", "through", 201, ""},
		turn{"GET /fs/d/f", "", 200, "through"},
		turn{"GET /fs/abs/f", "", 200, "through"},
		turn{"GET /fs/out/passwd", "", 400, ""},
		turn{"DELETE /fs/l", "", 204, ""},
		turn{"GET /fs/d/f", "", 200, "through"},
	)
	if _, got := s.ask("GET", "/webhdfs/v1/?op=LISTSTATUS", nil); !strings.Contains(got, `"pathSuffix":"out","permission":"777","replication":0,"symlink":"/etc","type":"SYMLINK"`) {
		t.Error(got)
	}
}

func TestWebHDFS(t *testing.T) {
	s := newSite(t)
	const v = "/webhdfs/v1"
	no := func(class string) string { return `{"RemoteException":{"exception":"` + class + `"` }
	s.talk(
		turn{"GET " + v + "/a?op=GETFILESTATUS", "", 404, no("FileNotFoundException")},
		turn{"PUT " + v + "/a/b?op=MKDIRS", "", 200, `{"boolean":true}`},
		turn{"PUT " + v + "/a/b?op=MKDIRS", "", 200, `{"boolean":true}`},
		turn{"PUT " + v + "/a/b/f?op=CREATE", "one", 201, ""}, // by way of a 307
		turn{"PUT " + v + "/a/b/f?op=CREATE", "two", 403, no("FileAlreadyExistsException")},
		turn{"PUT " + v + "/a/b?op=CREATE&overwrite=true", "two", 403, no("FileAlreadyExistsException")},
		turn{"PUT " + v + "/a/b/f/g?op=CREATE", "two", 403, no("ParentNotDirectoryException")},
		turn{"PUT " + v + "/a/b/f?op=MKDIRS", "", 403, no("FileAlreadyExistsException")},
		turn{"PUT " + v + "/a/b/f?op=CREATE&overwrite=true", "three", 201, ""},
		turn{"POST " + v + "/a/b/f?op=APPEND", " and four", 200, ""},
		turn{"POST " + v + "/a/b/none?op=APPEND", "x", 404, no("FileNotFoundException")},
		turn{"GET " + v + "/a/b/f?op=OPEN", "", 200, "three and four"},
		turn{"GET " + v + "/a/b/f?op=open&offset=6&length=3", "", 200, "and"},
		turn{"GET " + v + "/a/b/f?op=OPEN&offset=14", "", 200, ""},
		turn{"GET " + v + "/a/b/f?op=OPEN&offset=15", "", 403, no("IOException")},
		turn{"GET " + v + "/a/b/f?op=OPEN&offset=-1", "", 400, no("IllegalArgumentException")},
		turn{"GET " + v + "/a/b?op=OPEN", "", 404, no("FileNotFoundException")},
		turn{"GET " + v + "/a/b?op=LISTSTATUS", "", 200, `{"FileStatuses":{"FileStatus":[{"accessTime":`},
		turn{"GET " + v + "/?op=CREATE", "", 400, no("IllegalArgumentException")},
		turn{"GET " + v + "/", "", 400, no("IllegalArgumentException")},
		turn{"PUT " + v + "/x?op=CREATE&permission=888", "", 400, no("IllegalArgumentException")},
		turn{"PUT " + v + "/x?op=CREATE&overwrite=maybe", "", 400, no("IllegalArgumentException")},
		turn{"GET " + v + "/?op=LISTSTATUS&user.name=no-such-user", "", 403, no("AccessControlException")},

		turn{"PUT " + v + "/a/b/f?op=RENAME&destination=/a/g", "", 200, `{"boolean":true}`},
		turn{"PUT " + v + "/a/b/f?op=RENAME&destination=/a/g", "", 200, `{"boolean":false}`},
		turn{"PUT " + v + "/a/g?op=RENAME&destination=/a/b", "", 200, `{"boolean":true}`}, // into it
		turn{"GET " + v + "/a/b/g?op=OPEN", "", 200, "three and four"},
		turn{"PUT " + v + "/deep/er/h?op=CREATE", "h", 201, ""},
		turn{"PUT " + v + "/deep/er/h?op=RENAME&destination=/a/b/g", "", 200, `{"boolean":false}`},
		turn{"PUT " + v + "/deep/er/h?op=RENAME&destination=/a/b/g&renameoptions=NONE", "", 403, no("FileAlreadyExistsException")},
		turn{"PUT " + v + "/deep/er/h?op=RENAME&destination=/a/b/g&renameoptions=OVERWRITE", "", 200, ""},
		turn{"GET " + v + "/a/b/g?op=OPEN", "", 200, "h"},
		turn{"PUT " + v + "/a?op=RENAME&destination=/a/b/c", "", 400, no("IllegalArgumentException")},
		turn{"PUT " + v + "/a?op=RENAME&destination=b", "", 400, no("IllegalArgumentException")},

		turn{"DELETE " + v + "/a?op=DELETE", "", 403, no("PathIsNotEmptyDirectoryException")},
		turn{"DELETE " + v + "/a?op=DELETE&recursive=true", "", 200, `{"boolean":true}`},
		turn{"DELETE " + v + "/a?op=DELETE&recursive=true", "", 200, `{"boolean":false}`},
	)
	resp, text := s.ask("PUT", v+"/s%20p?op=CREATE&noredirect=true", nil)
	var to struct{ Location string }
	if err := json.Unmarshal([]byte(text), &to); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s %s %v", resp.Status, text, err)
	}
	s.talk(turn{"PUT " + strings.TrimPrefix(to.Location, s.url), "there", 201, ""}, turn{"GET /fs/s%20p", "", 200, "there"})
	var status struct{ FileStatus fileStatus }
	_, text = s.ask("GET", v+"/s%20p?op=GETFILESTATUS", nil)
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		t.Fatal(err)
	}
	a, err := s.fs.Lookup(t.Context(), meta.Root, "s p")
	if err != nil {
		t.Fatal(err)
	}
	at := a.Mtime.Std().UnixMilli()
	want := fileStatus{AccessTime: a.Atime.Std().UnixMilli(), BlockSize: 128 << 20, FileID: uint64(a.Ino), Group: "root", Length: 5, ModificationTime: at, Owner: "root", Permission: "644", Replication: 1, Type: "FILE"}
	if status.FileStatus != want {
		t.Errorf("%+v, want %+v", status.FileStatus, want)
	}
}

// What Hadoop clients change besides the contents, and who may.
func TestAttributes(t *testing.T) {
	s := newSite(t)
	const v = "/webhdfs/v1"
	no := func(class string) string { return `{"RemoteException":{"exception":"` + class + `"` }
	s.talk(
		turn{"PUT " + v + "/d/f?op=CREATE", "twelve bytes", 201, ""},
		turn{"PUT " + v + "/d/e/g?op=CREATE&permission=600", "one", 201, ""},
		turn{"GET " + v + "/d?op=GETCONTENTSUMMARY", "", 200, `{"ContentSummary":{"directoryCount":2,"fileCount":2,"length":15,"quota":-1,"spaceConsumed":15,"spaceQuota":-1}}`},
		turn{"GET " + v + "/d/f?op=GETCONTENTSUMMARY", "", 200, `{"ContentSummary":{"directoryCount":0,"fileCount":1,"length":12,`},
		turn{"GET " + v + "/none?op=GETCONTENTSUMMARY", "", 404, no("FileNotFoundException")},
		turn{"GET " + v + "/?op=GETHOMEDIRECTORY", "", 200, `{"Path":"/user/root"}`},
		turn{"GET " + v + "/?op=GETHOMEDIRECTORY&user.name=4242", "", 200, `{"Path":"/user/4242"}`},

		turn{"PUT " + v + "/d/f?op=SETPERMISSION&permission=640", "", 200, ""},
		turn{"PUT " + v + "/d/f?op=SETPERMISSION&permission=9", "", 400, no("IllegalArgumentException")},
		turn{"PUT " + v + "/d/none?op=SETPERMISSION&permission=640", "", 404, no("FileNotFoundException")},
		turn{"PUT " + v + "/d/f?op=SETPERMISSION&permission=777&user.name=4242", "", 403, no("AccessControlException")},
		turn{"PUT " + v + "/d/f?op=SETOWNER&owner=4242&user.name=4242", "", 403, no("AccessControlException")},
		turn{"PUT " + v + "/d/f?op=SETOWNER", "", 400, no("IllegalArgumentException")},
		turn{"PUT " + v + "/d/f?op=SETOWNER&owner=no-such-user", "", 400, no("IllegalArgumentException")},
		turn{"PUT " + v + "/d/f?op=SETOWNER&group=no-such-group", "", 400, no("IllegalArgumentException")},
		turn{"PUT " + v + "/d/f?op=SETOWNER&owner=4242&group=4242", "", 200, ""},
		turn{"PUT " + v + "/d/f?op=SETOWNER&owner=0&user.name=4242", "", 403, no("AccessControlException")},
		turn{"PUT " + v + "/d/f?op=SETOWNER&group=0&user.name=4242", "", 403, no("AccessControlException")},
		turn{"PUT " + v + "/d/f?op=SETOWNER&owner=4242&group=4242&user.name=4242", "", 200, ""},
		turn{"PUT " + v + "/d/f?op=SETPERMISSION&permission=400&user.name=4242", "", 200, ""},
		turn{"POST " + v + "/d/f?op=TRUNCATE&newlength=6&user.name=4242", "", 403, no("AccessControlException")},
		turn{"PUT " + v + "/d/f?op=SETTIMES&modificationtime=1000000000123&accesstime=-1", "", 200, ""},
		turn{"PUT " + v + "/d/f?op=SETTIMES&modificationtime=9223372036854775807", "", 400, no("IllegalArgumentException")},
		turn{"PUT " + v + "/d/f?op=SETTIMES&modificationtime=1&user.name=4243", "", 403, no("AccessControlException")},
	)
	a, err := s.fs.Lookup(t.Context(), meta.Root, "d")
	if err == nil {
		a, err = s.fs.Lookup(t.Context(), a.Ino, "f")
	}
	if err != nil || a.Mode != meta.TypeFile|0o400 || a.UID != 4242 || a.GID != 4242 || a.Mtime.Std().UnixMilli() != 1000000000123 {
		t.Errorf("%+v, %v", a, err)
	}
	if a.Atime.Std().Year() < 2020 {
		t.Errorf("the time of access is %v", a.Atime.Std())
	}
	s.talk(
		turn{"POST " + v + "/d/f?op=TRUNCATE&newlength=13", "", 400, no("IllegalArgumentException")},
		turn{"POST " + v + "/d/f?op=TRUNCATE", "", 400, no("IllegalArgumentException")},
		turn{"POST " + v + "/d?op=TRUNCATE&newlength=0", "", 404, no("FileNotFoundException")},
		turn{"POST " + v + "/d/f?op=TRUNCATE&newlength=6", "", 200, `{"boolean":true}`},
		turn{"GET " + v + "/d/f?op=OPEN", "", 200, "twelve"},
		turn{"POST " + v + "/d/f?op=CONCAT&sources=/d/e/g", "", 400, no("IllegalArgumentException")},
	)
	if _, text := s.ask("GET", v+"/d/f?op=OPEN", nil); text != "twelve" {
		t.Errorf("after TRUNCATE: %q", text)
	}
	if _, text := s.ask("GET", v+"/?op=GETCONTENTSUMMARY&user.name=4242", nil); !strings.Contains(text, `"fileCount":2`) {
		t.Errorf("what all may list: %s", text)
	}
	s.talk(turn{"PUT " + v + "/d/e?op=SETPERMISSION&permission=700", "", 200, ""},
		turn{"GET " + v + "/?op=GETCONTENTSUMMARY&user.name=4242", "", 403, no("AccessControlException")})
}

// A directory of more names than are looked at at once.
func TestMany(t *testing.T) {
	s := newSite(t)
	var want strings.Builder
	for i := range 2*lookBatch + 1 {
		name := "f" + strings.Repeat("x", i%3) + string(rune('a'+i%26)) + strings.Repeat("y", i/26)
		if _, err := s.fs.Create(t.Context(), meta.Root, name, meta.Node{Mode: meta.TypeFile | 0o600}); err != nil {
			t.Fatal(err)
		}
		want.WriteString(name)
	}
	_, text := s.ask("GET", "/webhdfs/v1/?op=LISTSTATUS", nil)
	var list struct {
		FileStatuses struct{ FileStatus []fileStatus }
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.FileStatuses.FileStatus) != 2*lookBatch+1 {
		t.Fatalf("%d, %v", len(list.FileStatuses.FileStatus), err)
	}
	for _, f := range list.FileStatuses.FileStatus {
		if !strings.Contains(want.String(), f.PathSuffix) || f.Permission != "600" {
			t.Errorf("%+v", f)
		}
	}
}

// Each kind that a tree answers with has a word of both languages' own.
func TestKinds(t *testing.T) {
	for kind := range statuses {
		if kind.Error() == "" || status(kind) == http.StatusInternalServerError {
			t.Errorf("%v is status %d", kind, status(kind))
		}
		w := httptest.NewRecorder()
		except(w, "/p", kind)
		var e struct {
			RemoteException struct{ Exception, JavaClassName, Message string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || !strings.HasSuffix(e.RemoteException.JavaClassName, "."+e.RemoteException.Exception) || !strings.Contains(e.RemoteException.Message, "/p") {
			t.Errorf("%v: %s, %v", kind, w.Body, err)
		}
	}
	if status(meta.NoSpace) != 507 || status(meta.TooLarge) != 413 || status(io.EOF) != 500 {
		t.Error("507, 413, 500")
	}
}
