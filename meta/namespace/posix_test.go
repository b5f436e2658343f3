package namespace_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dos/meta"
	"dos/meta/namespace"
	"dos/meta/session"
	"dos/meta/state"
)

// TestPOSIX plays the conversations in testdata/posix.txt. A case begins with a
// comment that names it. Each line is a command and its arguments; " => "
// says which error is wanted; " ! " which times the command changed, and that it
// changed no others: m and c for mtime and ctime, in the order of the paths.
func TestPOSIX(t *testing.T) {
	text, err := os.ReadFile("testdata/posix.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(text), "\n\n") {
		name, lines, _ := strings.Cut(strings.TrimSpace(block), "\n")
		t.Run(strings.TrimPrefix(name, "# "), func(t *testing.T) {
			p := &player{world: newWorld(t), inos: map[string]meta.Ino{}}
			for line := range strings.Lines(lines) {
				if !p.play(strings.TrimSpace(line)) {
					return
				}
			}
		})
	}
}

type player struct {
	*world
	inos map[string]meta.Ino // of open files, by the path they were opened at
}

func (p *player) play(line string) bool {
	line, touched, touches := strings.Cut(line, " ! ")
	cmd, wanted, _ := strings.Cut(line, " => ")
	said, err := p.run(strings.Fields(cmd))
	got := said
	if err != nil {
		got = ""
		for _, k := range meta.Kinds() {
			if kindOf(err) == k {
				got = k.Error()
			}
		}
	}
	if got != wanted {
		p.t.Errorf("%s: got %q (%v), want %q", cmd, got, err, wanted)
		return false
	}
	if touches {
		if got := p.touched(meta.Root, "."); strings.Join(got, " ") != touched {
			p.t.Errorf("%s: changed the times of %q, want %q", cmd, strings.Join(got, " "), touched)
			return false
		}
	}
	p.check()
	return !p.t.Failed()
}

func kindOf(err error) meta.Kind {
	for _, k := range meta.Kinds() {
		if is(err, k) {
			return k
		}
	}
	return 0
}

// walk returns the directory and last name of a path.
func (p *player) walk(path string) (meta.Ino, string, error) {
	dir := meta.Root
	parts := strings.Split(path, "/")
	for _, name := range parts[:len(parts)-1] {
		a, err := try[meta.Attr](p.world, namespace.OpLookup, namespace.Name{Parent: dir, Name: name})
		if err != nil {
			return 0, "", err
		}
		dir = a.Ino
	}
	return dir, parts[len(parts)-1], nil
}

// find returns the attributes of what a path leads to; "@path" is what was
// opened there.
func (p *player) find(path string) (meta.Attr, error) {
	if path == "." {
		return p.attr(meta.Root), nil
	}
	if open, ok := strings.CutPrefix(path, "@"); ok {
		return try[meta.Attr](p.world, namespace.OpAttr, namespace.Inode{Ino: p.inos[open]})
	}
	dir, name, err := p.walk(path)
	if err != nil {
		return meta.Attr{}, err
	}
	return try[meta.Attr](p.world, namespace.OpLookup, namespace.Name{Parent: dir, Name: name})
}

// touched lists what below dir has times of the last command.
func (p *player) touched(dir meta.Ino, path string) (list []string) {
	mark := func(a meta.Attr, path string) {
		s := ""
		if a.Mtime == p.at() {
			s += "m"
		}
		if a.Ctime == p.at() {
			s += "c"
		}
		if s != "" {
			list = append(list, path+":"+s)
		}
	}
	if path == "." {
		mark(p.attr(dir), ".")
	}
	for _, e := range must[namespace.EntriesReply](p.world, namespace.OpEntries, namespace.Entries{Dir: dir, Limit: 100, Attrs: true}).Entries {
		sub := strings.TrimPrefix(path+"/"+e.Name, "./")
		mark(*e.Attr, sub)
		if e.Attr.IsDir() {
			list = append(list, p.touched(e.Ino, sub)...)
		}
	}
	return list
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (p *player) run(f []string) (said string, err error) {
	verb, args := f[0], f[1:]
	flag := func(name string) bool {
		i := slices.Index(args, name)
		if i >= 0 {
			args = slices.Delete(args, i, i+1)
		}
		return i >= 0
	}
	keep, kill := flag("keep"), flag("kill")
	var flags meta.RenameFlags
	if flag("noreplace") {
		flags |= meta.RenameNoReplace
	}
	if flag("exchange") {
		flags |= meta.RenameExchange
	}
	var at meta.Attr // of the first path
	if len(args) > 0 {
		at, err = p.find(args[0])
	}
	var held meta.Ino
	switch makes := strings.HasPrefix(verb, "mk") || verb == "symlink"; {
	case makes, verb == "unlink", verb == "rmdir", verb == "rename":
		err = nil // they report it themselves
		if keep && verb != "rename" {
			held = at.Ino
			p.inos[args[0]] = held
		}
	case err != nil:
		return "", err
	}
	switch verb {
	case "mkdir", "mkfile", "mkfifo", "mkdev", "mknothing", "symlink":
		node := meta.Node{UID: 7, GID: 8, Mode: map[string]uint32{
			"mkdir": meta.TypeDir | 0o755, "mkfile": meta.TypeFile | 0o644, "mkfifo": meta.TypeFIFO | 0o600,
			"mkdev": meta.TypeChar | 0o600, "symlink": meta.TypeSymlink,
		}[verb]}
		if verb == "mkdev" {
			node.Rdev = 0x103
		}
		if verb == "symlink" {
			node.Target = strings.Repeat(args[1], max(1, len(args)-1))
			if len(args) > 2 {
				node.Target = strings.Repeat(args[1], int(number(args[2])))
			}
		}
		dir, name, err := p.walk(args[0])
		if err != nil {
			return "", err
		}
		if rest, ok := strings.CutPrefix(name, "long"); ok {
			name = strings.Repeat("n", int(number(rest)))
		}
		_, err = try[meta.Attr](p.world, namespace.OpCreate, namespace.Create{Parent: dir, Name: name, Node: node})
		return "", err
	case "link":
		dir, name, err := p.walk(args[1])
		if err != nil {
			return "", err
		}
		_, err = try[meta.Attr](p.world, namespace.OpLink, namespace.Link{Ino: at.Ino, Parent: dir, Name: name})
		return "", err
	case "unlink", "rmdir":
		dir, name, err := p.walk(args[0])
		if err != nil {
			return "", err
		}
		_, err = try[meta.Attr](p.world, map[string]state.Op{"unlink": namespace.OpUnlink, "rmdir": namespace.OpRmdir}[verb], namespace.Unlink{Parent: dir, Name: name, Keep: held})
		return "", err
	case "rename":
		if keep {
			a, err := p.find(args[1])
			if err != nil {
				return "", err
			}
			held = a.Ino
			p.inos[args[1]] = held
		}
		dir, name, err := p.walk(args[0])
		if err != nil {
			return "", err
		}
		to, newName, err := p.walk(args[1])
		if err != nil {
			return "", err
		}
		_, err = try[struct{}](p.world, namespace.OpRename, namespace.Rename{Parent: dir, Name: name, NewParent: to, NewName: newName, Flags: flags, Keep: held})
		return "", err
	case "open":
		p.inos[args[0]] = at.Ino
	case "inside": // make something in an open directory
		_, err := try[meta.Attr](p.world, namespace.OpCreate, namespace.Create{Parent: at.Ino, Name: "x", Node: meta.Node{Mode: meta.TypeFile}})
		return "", err
	case "drop":
		_, err := try[struct{}](p.world, namespace.OpDrop, namespace.Drop{Inos: []meta.Ino{at.Ino}})
		return "", err
	case "end":
		id := p.me
		p.me = 0
		reply, err := try[session.Ended](p.world, session.OpEnd, session.End{ID: id})
		return fmt.Sprint(reply.More), err
	case "ls":
		reply, err := try[namespace.EntriesReply](p.world, namespace.OpEntries, namespace.Entries{Dir: at.Ino, Limit: 100})
		var names []string
		for _, e := range reply.Entries {
			names = append(names, e.Name)
		}
		return strings.Join(names, " "), err
	case "parent":
		reply, err := try[namespace.Inode](p.world, namespace.OpParent, namespace.Inode{Ino: at.Ino})
		return fmt.Sprint(reply.Ino), err
	case "readlink":
		reply, err := try[namespace.Target](p.world, namespace.OpReadlink, namespace.Inode{Ino: at.Ino})
		return reply.Target, err
	case "stat":
		var words []string
		for _, what := range args[1:] {
			words = append(words, map[string]string{
				"ino": fmt.Sprint(at.Ino), "mode": fmt.Sprintf("%o", at.Mode), "nlink": fmt.Sprint(at.Nlink), "uid": fmt.Sprint(at.UID),
				"gid": fmt.Sprint(at.GID), "size": fmt.Sprint(at.Size), "rdev": fmt.Sprintf("%#x", at.Rdev), "bytes": fmt.Sprint(at.Bytes),
			}[what])
		}
		return strings.Join(words, " "), nil
	case "usage":
		u, err := try[meta.Usage](p.world, namespace.OpUsage, struct{}{})
		return fmt.Sprint(u.Inodes, u.Bytes), err
	case "write": // at, bytes
		_, err := p.write(meta.Write{Ino: at.Ino, Extents: []meta.Extent{{Off: number(args[1]), Len: int64(len(args[2])), Inline: []byte(args[2])}}, Mtime: p.at() + 1e9, KillPriv: kill})
		return "", err
	case "read":
		l, err := try[meta.Layout](p.world, namespace.OpLayout, namespace.Layout{Ino: at.Ino, Size: at.Size})
		text := []byte(strings.Repeat(".", int(at.Size)))
		for _, e := range l.Extents {
			copy(text[e.Off:], e.Inline)
		}
		return string(text), err
	default:
		return p.set(verb, at.Ino, args[1:], kill)
	}
	return "", nil
}

// set runs the verbs that change attributes.
func (p *player) set(verb string, ino meta.Ino, args []string, kill bool) (string, error) {
	set := meta.SetAttr{KillPriv: kill}
	switch verb {
	case "chmod":
		mode := uint32(number(args[0]))
		set.Mode = &mode
	case "chown":
		uid, gid := uint32(number(args[0])), uint32(number(args[1]))
		set.UID, set.GID = &uid, &gid
	case "truncate":
		size := number(args[0])
		set.Size = &size
	case "utimes":
		t := meta.Time(number(args[0]))
		set.Atime, set.Mtime = &t, &t
	case "nothing":
	case "setxattr":
		flags := uint32(0)
		if len(args) > 2 {
			flags = uint32(number(args[2]))
		}
		_, err := try[struct{}](p.world, namespace.OpSetXattr, namespace.SetXattr{Ino: ino, Name: args[0], Val: []byte(args[1]), Flags: flags})
		return "", err
	case "rmxattr":
		_, err := try[struct{}](p.world, namespace.OpRemoveXattr, namespace.XattrName{Ino: ino, Name: args[0]})
		return "", err
	case "xattr":
		reply, err := try[namespace.XattrValue](p.world, namespace.OpXattr, namespace.XattrName{Ino: ino, Name: args[0]})
		return string(reply.Val), err
	case "xattrs":
		reply, err := try[namespace.XattrNames](p.world, namespace.OpXattrs, namespace.Inode{Ino: ino})
		return strings.Join(reply.Names, " "), err
	default:
		p.t.Fatalf("unknown command %s", verb)
	}
	_, err := try[meta.Attr](p.world, namespace.OpSetAttr, namespace.SetAttr{Ino: ino, Set: set})
	return "", err
}
