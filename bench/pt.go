package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ptFlag makes this program the server of the pass-through mount, which is a
// process of its own, as dosmount is.
const ptFlag = "--pt"

// servePT mounts source at point and serves until ctx ends or somebody unmounts.
func servePT(ctx context.Context, source, point string, out io.Writer) error {
	root, err := fs.NewLoopbackRoot(source)
	if err != nil {
		return err
	}
	unix.Umask(0) // the kernel has applied the caller's
	timeout := time.Second
	server, err := fs.Mount(point, root, &fs.Options{
		EntryTimeout:    &timeout,
		AttrTimeout:     &timeout,
		NullPermissions: true,
		MountOptions: fuse.MountOptions{
			FsName:      source,
			Name:        "pt",
			AllowOther:  os.Geteuid() == 0,
			DirectMount: os.Geteuid() == 0,
			MaxWrite:    1 << 20,
			Options:     []string{"default_permissions"},
			// Each byte is to cross this process, as it crosses ours.
			DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		},
	})
	if err != nil {
		return fmt.Errorf("mounting the pass-through: %w", err)
	}
	fmt.Fprintln(out, "mounted")
	ended := make(chan struct{})
	go func() {
		server.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	if err := server.Unmount(); err != nil { // tried several times
		return errors.Join(err, detach(point))
	}
	<-ended
	return nil
}
