package fuse

import "log/slog"

// CheckPoint says whether a mount would succeed, before its tree is opened. It
// clears away a dead mount of ours, and leaves nothing behind.
func CheckPoint(path string, o Options, log *slog.Logger) error {
	p, err := preparePoint(path, o, log)
	if err != nil {
		return err
	}
	p.remove()
	return nil
}
