// Package passwords is who comes in at a port where nobody shows a certificate: programs of
// this machine as long as there are no passwords, and whoever knows one. Which passwords
// there are is kept elsewhere, and what comes over the port is for others to know.
package passwords

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"dos/internal/trust"
	"dos/meta"
)

const (
	// RecheckEvery is how soon it is noticed that a password is not good any more.
	RecheckEvery = 5 * time.Second
	// FailWait is the pause after a wrong password.
	FailWait = 100 * time.Millisecond
	// lookEvery is how soon it is noticed that there are passwords now.
	lookEvery = time.Second
)

// Records are the passwords that there are.
type Records interface {
	// Any says whether there are passwords at all.
	Any(ctx context.Context) (bool, error)
	// Check says what the password with a hash (trust.HashSecret) is good for.
	Check(ctx context.Context, hash string) (trust.Rights, error)
}

// A Door is that of one port. Its methods may be called concurrently.
type Door struct {
	port    string
	records Records
	local   bool        // only this machine reaches it
	locked  atomic.Bool // there are passwords
}

// New returns the Door of a port at addr, which the flag of this name asked for. A nil
// records has no passwords. Without one a port that others than this machine reach is
// meta.Permission.
func New(ctx context.Context, flag string, addr net.Addr, records Records) (*Door, error) {
	tcp, _ := addr.(*net.TCPAddr)
	d := &Door{port: fmt.Sprintf("%s %s", flag, addr), records: records, local: tcp != nil && tcp.IP.IsLoopback()}
	if err := d.look(ctx); err != nil {
		return nil, err
	}
	if !d.local && !d.locked.Load() {
		return nil, fmt.Errorf("%s: without a password only an address of this machine alone (127.0.0.1); dosctl token create --password makes one: %w", d.port, meta.Permission)
	}
	return d, nil
}

// look notes whether there are passwords.
func (d *Door) look(ctx context.Context) error {
	if d.records == nil {
		return nil
	}
	any, err := d.records.Any(ctx)
	if err == nil {
		d.locked.Store(any)
	}
	return err
}

// Needed says whether nobody gets in without a password: so it stays, on an address that
// others reach, when the last one is deleted.
func (d *Door) Needed() bool { return !d.local || d.locked.Load() }

// Possible says whether there can be passwords at all.
func (d *Door) Possible() bool { return d.records != nil }

// Check says what the password with a hash (trust.HashSecret) is good for now; trust.None:
// there is no such password.
func (d *Door) Check(ctx context.Context, hash string) (trust.Rights, error) {
	if d.records == nil {
		return trust.None, nil
	}
	return d.records.Check(ctx, hash)
}

// Run looks whether there are passwords until ctx ends.
func (d *Door) Run(ctx context.Context) error {
	for {
		pause := time.NewTimer(lookEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
		if err := d.look(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, meta.Unavailable) {
			slog.Warn("passwords: whether there are any is not known", "port", d.port, "err", err)
		}
	}
}
