package services

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A file is an open file by its system calls, each as it is: package os would
// repeat what was done in part, and wait in its own way.
type file int

func open(path string, flags int) (file, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o666)
		if err != syscall.EINTR {
			return file(fd), err
		}
	}
}

func (f file) close() error { return unix.Close(int(f)) }

// read returns what one read gives.
func (f file) read(p []byte) (string, error) {
	for {
		n, err := unix.Read(int(f), p)
		if err != syscall.EINTR {
			return string(p[:max(n, 0)]), err
		}
	}
}

// write writes all of it, and says how much that was.
func (f file) write(text string) (done int, err error) {
	for done < len(text) {
		n, err := unix.Write(int(f), []byte(text[done:]))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// say writes a request and returns the reply, which fits p.
func (f file) say(p []byte, text string) (string, error) {
	if _, err := f.write(text); err != nil {
		return "", err
	}
	return f.read(p)
}

// flock returns how often it was interrupted: whoever comes back at once has kept
// his place.
func (f file) flock(how int) (interrupted int, err error) {
	for {
		if err := unix.Flock(int(f), how); err != syscall.EINTR {
			return interrupted, err
		}
		interrupted++
	}
}

// unsure reports whether nobody knows if it was done.
func unsure(err error) bool {
	for _, e := range []syscall.Errno{syscall.EIO, syscall.ETIMEDOUT, syscall.EHOSTDOWN, syscall.ENOTCONN, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// value is the word behind a key in lines of both.
func value(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			return v
		}
	}
	return ""
}

// A desk keeps a program's files open.
type desk map[string]file

// at opens a file, if it is not open already.
func (d desk) at(path string, flags int) (file, error) {
	if f, ok := d[path]; ok {
		return f, nil
	}
	f, err := open(path, flags)
	if err == nil {
		d[path] = f
	}
	return f, err
}

// drop closes a file.
func (d desk) drop(path string) error {
	f, ok := d[path]
	if !ok {
		return nil
	}
	delete(d, path)
	return f.close()
}

// clear closes those in a directory.
func (d desk) clear(dir string) {
	for path, f := range d {
		if within, _ := filepath.Rel(dir, path); !strings.HasPrefix(within, "..") {
			_ = f.close() // what it had is lost
			delete(d, path)
		}
	}
}
