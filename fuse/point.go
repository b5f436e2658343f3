package fuse

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A point is a mount point that was found fit.
type point struct {
	path string   // absolute, without symbolic links
	made []string // directories that were missing and that we made, outermost first
}

// preparePoint checks that path can be mounted on, makes it if it is missing,
// and clears away a dead mount of ours that a crash left there. Every refusal
// is one line that says what to do.
func preparePoint(path string, o Options, log *slog.Logger) (point, error) {
	if err := canMount(o); err != nil {
		return point{}, err
	}
	abs, err := resolve(path)
	if err != nil {
		return point{}, fmt.Errorf("mount point %s: %w", path, plainly(err))
	}
	if err := clearStale(abs, log); err != nil {
		return point{}, err
	}
	p := point{path: abs}
	if p.made, err = makeMissing(abs); err != nil {
		return point{}, fmt.Errorf("mount point %s: cannot be made: %w", path, plainly(err))
	}
	if err := fit(abs); err != nil {
		p.remove()
		return point{}, fmt.Errorf("mount point %s: %w", path, err)
	}
	return p, nil
}

// remove removes the directories that preparePoint made, if they are empty.
func (p point) remove() {
	for i := len(p.made) - 1; i >= 0; i-- {
		if os.Remove(p.made[i]) != nil {
			return // somebody uses it; then its parents stay too
		}
	}
}

// resolve makes path absolute and follows its symbolic links as far as it
// exists. It does not look into the last component, which may be a dead mount
// (then even stat fails); a symbolic link there is followed.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if target, err := os.Readlink(abs); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(abs), target)
		}
		return filepath.EvalSymlinks(target)
	}
	dir, rest := filepath.Dir(abs), filepath.Base(abs)
	if abs == "/" {
		return abs, nil
	}
	for {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			return "", err
		}
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
}

// clearStale looks at what is mounted at path. Nothing is fine; a mount of
// dos whose server is dead is taken away; anything else is refused.
func clearStale(path string, log *slog.Logger) error {
	for {
		m, ok, err := mountedAt(path)
		if err != nil {
			return fmt.Errorf("reading the mount table: %w", err)
		}
		if !ok {
			return nil
		}
		// A dead FUSE mount answers ENOTCONN to all that must ask its server, as
		// statfs does; stat it may answer from what the kernel remembers.
		err = unix.Statfs(path, new(unix.Statfs_t))
		switch dead := errors.Is(err, syscall.ENOTCONN); {
		case !dead:
			return fmt.Errorf("mount point %s: already mounted (%s, type %s); unmount it first: umount %s", path, m.source, m.fstype, path)
		case m.fstype != Type:
			return fmt.Errorf("mount point %s: holds a dead mount of another file system (type %s); clear it first: umount -l %s", path, m.fstype, path)
		}
		if err := detach(path); err != nil {
			return fmt.Errorf("mount point %s: holds a dead mount of dos that cannot be cleared: %w; try as root: umount -l %s", path, err, path)
		}
		log.Info("fuse: cleared a dead mount that an earlier run left", "path", path)
	}
}

// makeMissing makes path and what it lies in, and returns what it made, outermost first.
func makeMissing(path string) ([]string, error) {
	var missing []string
	for dir := path; ; dir = filepath.Dir(dir) {
		_, err := os.Lstat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		missing = append([]string{dir}, missing...)
	}
	for i, dir := range missing {
		// The process runs with umask 0.
		if err := os.Mkdir(dir, 0o755); err != nil {
			point{made: missing[:i]}.remove()
			return nil, err
		}
	}
	return missing, nil
}

// fit says whether the directory at path can be mounted on.
func fit(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return plainly(err)
	}
	if !info.IsDir() {
		return errors.New("is not a directory")
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot be read: %w", plainly(err))
	}
	names, err := dir.Readdirnames(1)
	dir.Close()
	if len(names) > 0 {
		return fmt.Errorf("is not empty (it holds %q); mounting would hide what is there", names[0])
	}
	if err != io.EOF {
		return fmt.Errorf("cannot be read: %w", plainly(err))
	}
	if os.Geteuid() != 0 {
		if err := unix.Access(path, unix.W_OK); err != nil {
			return errors.New("is not yours to write in, so you may not mount there")
		}
	}
	return nil
}

// canMount says whether this process can mount a FUSE file system at all.
func canMount(o Options) error {
	if err := checkDevice(devicePath); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := helperPath(); err != nil {
		return errors.New("ordinary users mount through fusermount3, which is missing: install the package fuse3 (apt install fuse3, dnf install fuse3), or mount as root")
	}
	if o.AllowOther && !userAllowOther("/etc/fuse.conf") {
		return errors.New("allow_other for ordinary users needs the line user_allow_other in /etc/fuse.conf")
	}
	return nil
}

func userAllowOther(conf string) bool {
	file, err := os.Open(conf)
	if err != nil {
		return false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if strings.TrimSpace(lines.Text()) == "user_allow_other" {
			return true
		}
	}
	return false
}

func helperPath() (string, error) {
	path, err := exec.LookPath("fusermount3")
	if err != nil {
		path, err = exec.LookPath("/bin/fusermount3") // PATH may be empty
	}
	return path, err
}

// unmount takes the mount at path away; EBUSY if it is in use.
func unmount(path string) error { return takeAway(path, unix.UMOUNT_NOFOLLOW, "-u") }

// detach takes the mount at path away also while it is in use.
func detach(path string) error {
	return takeAway(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH, "-uz")
}

func takeAway(path string, flags int, helperFlag string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(path, flags)
	}
	helper, err := helperPath()
	if err != nil {
		return err
	}
	out, err := exec.Command(helper, helperFlag, "--", path).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if strings.Contains(text, "busy") { // it has one exit status for everything
		return unix.EBUSY
	}
	return fmt.Errorf("%s: %w", text, err)
}

// plainly cuts an error of package os down to what went wrong: our messages
// name the path themselves.
func plainly(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
