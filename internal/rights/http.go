package rights

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"

	"dos/internal/trust"
)

// Admin are the paths of package admin. A dump has the authority's key in it: it is
// made on the machine itself.
var Admin = Methods{
	"/status":  trust.ReadOnly,
	"/nodes":   trust.ReadOnly,
	"/events":  trust.ReadOnly,
	"/fsck":    trust.Admin,
	"/scrub":   trust.Admin,
	"/replace": trust.Admin,
	"/dump":    never,
	"/meta":    never, // with an identity it is asked for itself

	"/drain":      trust.Admin,
	"/remove":     trust.Admin,
	"/token":      trust.Admin,
	"/tokens":     trust.Admin,
	"/untoken":    trust.Admin,
	"/identities": trust.Admin,
	"/revoke":     trust.Admin,
	"/rotate":     trust.Admin,
	"/retire":     trust.Admin,
	"/rotation":   trust.Admin,
}

// Calls are the paths of package gateway/calls: whoever changes files calls.
var Calls = Methods{
	"/rpc/": trust.ReadWrite,
}

// Files are the paths of package gateway/files, of which some may be read by who may not
// change them.
var Files = Methods{
	"GET /fs/":       trust.ReadOnly,
	"HEAD /fs/":      trust.ReadOnly,
	"/fs/":           trust.ReadWrite,
	"GET /webhdfs/":  trust.ReadOnly,
	"HEAD /webhdfs/": trust.ReadOnly,
	"/webhdfs/":      trust.ReadWrite,
}

// Port are the paths of a machine's port: all of those.
var Port = union(Admin, Calls, Files)

func union(tables ...Methods) Methods {
	all := make(Methods)
	for _, t := range tables {
		maps.Copy(all, t)
	}
	return all
}

// Permit says why a request is not for somebody with such rights; nil: it is. A path that
// is not in the table is for nobody. The error is for people.
func (need Methods) Permit(r *http.Request, have trust.Rights, who string) error {
	right, ok := need[r.URL.Path]
	if dir, _, below := cutDir(r.URL.Path); below {
		if right, ok = need[r.Method+" "+dir]; !ok {
			right, ok = need[dir]
		}
	}
	switch {
	case !ok || right == never:
		return errors.New("this is asked for on the machine itself")
	case have < right:
		return fmt.Errorf("this is for %v, not for %s", right, who)
	}
	return nil
}

// cutDir returns the first directory of a path, with its slashes.
func cutDir(path string) (dir, rest string, below bool) {
	name, rest, below := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return "/" + name + "/", rest, below
}

type connKey struct{}

// Conn is the http.Server.ConnContext of a server whose handler is one of HTTP.
func Conn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// HTTP returns a handler that does what h does for those who have the rights.
func HTTP(h http.Handler, need Methods, keys *trust.Keyring) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _ := r.Context().Value(connKey{}).(interface{ ConnectionState() tls.ConnectionState })
		if conn == nil {
			http.Error(w, "not over a connection that was admitted", http.StatusForbidden)
			return
		}
		peer, err := keys.Admitted(conn.ConnectionState())
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		if err := need.Permit(r, peer.Rights, peer.Identity.String()); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
