package vfs

// Dirty is how many bytes of memory data takes that is not stored yet.
func (fs *FS) Dirty() int64 {
	used, _ := fs.mem.taken()
	return used
}
