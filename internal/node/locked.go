package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dos/meta/client"
	"dos/meta/named"
	"dos/procfs/locks"
)

// Locked runs do with a named lock of a cluster held, in a session of its own.
func Locked(ctx context.Context, addrs []string, identity, lock string, shared bool, do func(ctx context.Context, token uint64) error) error {
	_, service, err := dialAs(identity, addrs)
	if err != nil {
		return err
	}
	defer service.close()
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	how := client.How{Shared: shared, Who: named.Who{Node: host, PID: uint32(os.Getpid()), UID: uint32(os.Getuid()), Cmd: filepath.Base(os.Args[0])}}
	return client.Locked(ctx, service, host, lock, how, do)
}

// LockStatus says who has a named lock of a cluster, as its file in /dos/locks does.
func LockStatus(ctx context.Context, addrs []string, identity, lock string) (string, error) {
	_, service, err := dialAs(identity, addrs)
	if err != nil {
		return "", err
	}
	defer service.close()
	visit, err := client.NewVisit(ctx, service, "lock status", "")
	if err != nil {
		return "", err
	}
	info, err := client.NewNamed(visit).Status(ctx, lock)
	if err == nil {
		err = visit.End(ctx)
	}
	return locks.Render(info, time.Now()), err
}

// MountPoint returns where the dos that runs on a data directory is mounted.
func MountPoint(data string) (string, error) {
	lock, err := os.Open(filepath.Join(data, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	_, point, mounted := strings.Cut(holder(lock), " at ")
	if !mounted {
		return "", fmt.Errorf("the dos on %s is not mounted", data)
	}
	return point, nil
}
