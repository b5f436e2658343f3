// Package calls is the door for programs that call services without a mount: over HTTP
// (Handler) and over gRPC (GRPC).
//
// Who calls is who they say, a user by number or by name of a user of this machine, else
// root: whoever shows a certificate to change files at all may do so as any user, as with
// a mount.
package calls

import (
	"context"
	"fmt"
	"time"

	"dos/internal/access"
	"dos/meta"
	"dos/meta/call"
	"dos/meta/client"
)

// Calls is what this room needs of a client (client.Dialer).
type Calls interface {
	Status(ctx context.Context, service string) (call.Status, error)
	Open(ctx context.Context, service string, data []byte, last bool, size int64, how client.Calling) (*client.Conversation, error)
}

// Named says who somebody is that says to be a user of such a name, or nothing (access.Named).
type Named func(name string) (access.User, error)

// calling is how somebody calls a service who may: user and timeout are as they say, by is
// what shows who it is.
func calling(ctx context.Context, c Calls, named Named, service, user, timeout, by string) (how client.Calling, err error) {
	who, err := named(user)
	if err != nil {
		return how, err
	}
	how = client.Calling{Fresh: true, By: fmt.Sprintf("uid %d by %s", who.UID, by)}
	if timeout != "" {
		if how.Timeout, err = time.ParseDuration(timeout); err != nil || how.Timeout <= 0 {
			return how, fmt.Errorf("timeout %.80q is not one such as 5s: %w", timeout, meta.Invalid)
		}
	}
	st, err := c.Status(ctx, service)
	if err != nil {
		return how, err
	}
	if err := client.May(st.Service, who.UID, who.GID, 1); err != nil {
		return how, fmt.Errorf("service %q is not for user %d: %w", service, who.UID, err)
	}
	return how, nil
}
