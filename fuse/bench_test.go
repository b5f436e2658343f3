package fuse

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkMount says what crossing into this process costs, over services in
// memory, in system calls of one thread.
func BenchmarkMount(b *testing.B) {
	m := mountHere(b, nil)
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	serial := 0
	create := func() string {
		serial++
		path := fmt.Sprintf("%s/f%08d", m.dir, serial)
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL, 0o600)
		check(err)
		check(unix.Close(fd))
		return path
	}
	b.Run("create+close", func(b *testing.B) {
		for b.Loop() {
			create()
		}
	})
	b.Run("create+4KiB+close", func(b *testing.B) {
		buf := make([]byte, 4096)
		for b.Loop() {
			serial++
			fd, err := unix.Open(fmt.Sprintf("%s/f%08d", m.dir, serial), unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL, 0o600)
			check(err)
			_, err = unix.Write(fd, buf)
			check(err)
			check(unix.Close(fd))
		}
	})
	path := create()
	var st unix.Stat_t
	b.Run("stat/cached", func(b *testing.B) {
		for b.Loop() {
			check(unix.Stat(path, &st))
		}
	})
	b.Run("stat/asked", func(b *testing.B) {
		var sx unix.Statx_t
		for b.Loop() {
			check(unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &sx))
		}
	})
	b.Run("absent/cached", func(b *testing.B) {
		for b.Loop() {
			if err := unix.Stat(m.dir+"/nothing", &st); err != unix.ENOENT {
				b.Fatal(err)
			}
		}
	})
	b.Run("open+close", func(b *testing.B) {
		for b.Loop() {
			fd, err := unix.Open(path, unix.O_RDONLY, 0)
			check(err)
			check(unix.Close(fd))
		}
	})
	b.Run("unlink+create", func(b *testing.B) {
		for b.Loop() {
			check(unix.Unlink(path))
			fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL, 0o600)
			check(err)
			check(unix.Close(fd))
		}
	})
	b.Run("rename", func(b *testing.B) {
		for b.Loop() {
			check(unix.Rename(path, path+"x"))
			check(unix.Rename(path+"x", path))
		}
	})
	const size = 64 << 20
	for _, block := range []int{4 << 10, 1 << 20} {
		buf := make([]byte, block)
		b.Run(fmt.Sprintf("write/%dKiB", block>>10), func(b *testing.B) {
			fd, err := unix.Open(path, unix.O_WRONLY, 0)
			check(err)
			b.SetBytes(int64(block))
			for i := 0; b.Loop(); i++ {
				_, err := unix.Pwrite(fd, buf, int64(i*block%size))
				check(err)
			}
			check(unix.Close(fd))
		})
	}
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	check(err)
	defer unix.Close(fd)
	check(unix.Fallocate(fd, 0, 0, size))
	for i := range size >> 20 {
		_, err := unix.Pwrite(fd, make([]byte, 1<<20), int64(i)<<20)
		check(err)
	}
	for _, block := range []int{4 << 10, 1 << 20} {
		buf := make([]byte, block)
		read := func(b *testing.B, fd int) {
			b.SetBytes(int64(block))
			for i := 0; b.Loop(); i++ {
				_, err := unix.Pread(fd, buf, int64(i*block%size))
				check(err)
			}
		}
		b.Run(fmt.Sprintf("read/warm/%dKiB", block>>10), func(b *testing.B) { read(b, fd) })
		b.Run(fmt.Sprintf("read/asked/%dKiB", block>>10), func(b *testing.B) { // past the kernel's cache
			mem, err := unix.Mmap(-1, 0, block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			check(err)
			defer unix.Munmap(mem)
			direct, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT, 0)
			check(err)
			defer unix.Close(direct)
			buf = mem
			read(b, direct)
		})
	}
}
