// Package web is the door of plain HTTP, where nobody shows a certificate: who comes in, and
// as whom. What is behind it is for others to know.
//
// With a password, as that of HTTP's Basic authentication (RFC 7617; whatever the user's name
// there), somebody has the rights that it was made with. Without one, where none is needed,
// programs of this machine have the rights rw. Whoever has not the rights admin is one and the
// same user, a stranger. Who should have shown a password gets 401.
//
// Browsers are programs of this machine too, and do what pages of others say. So what comes
// without a password must call the machine by its address or localhost, which a name that was
// made to point here is not; requests that would change something must not come from the pages
// of another site; and what pages are shown from here run nothing.
package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"dos/internal/gateway/passwords"
	"dos/internal/rights"
	"dos/internal/trust"
)

const (
	// knownMax bounds how many passwords are kept with what they are good for; more are asked
	// for again.
	knownMax = 1024
	// refusedWait bounds how long who is refused goes on sending.
	refusedWait = 2 * time.Second
)

// Door says who comes in (passwords.Door).
type Door interface {
	Needed() bool
	Check(ctx context.Context, hash string) (trust.Rights, error)
}

type handler struct {
	sites     *http.CrossOriginProtection
	door      Door
	need      rights.Methods
	all       http.Handler // for who has the rights admin
	strangers http.Handler // for the others

	mu    sync.Mutex
	known map[string]known // by the hash of a password; guarded by mu
}

// known is what a password was good for when it was asked for last.
type known struct {
	rights trust.Rights
	asked  time.Time
}

// Handler has all answer those with the rights admin, and strangers the others, as far as
// their rights are those that are needed.
func Handler(door Door, need rights.Methods, all, strangers http.Handler) http.Handler {
	return &handler{sites: http.NewCrossOriginProtection(), door: door, need: need, all: all, strangers: strangers, known: make(map[string]known)}
}

var (
	errNoPassword = errors.New("a password is needed: dosctl token create --password makes one")
	errWrong      = errors.New("the password is not good, or not any more")
	errHost       = errors.New("without a password this machine is called by its address, as 127.0.0.1, or localhost")
)

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", "sandbox")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	have, err := h.admit(r)
	status := http.StatusForbidden
	switch {
	case errors.Is(err, errNoPassword), errors.Is(err, errWrong):
		w.Header().Set("WWW-Authenticate", `Basic realm="dos", charset="UTF-8"`)
		status = http.StatusUnauthorized
	case err != nil && !errors.Is(err, errHost):
		err = fmt.Errorf("whether the password is good cannot be asked: %w", err)
		status = http.StatusServiceUnavailable
	case err == nil:
		if err = h.sites.Check(r); err == nil {
			err = h.need.Permit(r, have, "who has "+have.String()+" here")
		}
	}
	switch {
	case err != nil:
		// The server reads what is left of the body, and that may never come.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedWait))
		http.Error(w, err.Error(), status)
	case have >= trust.Admin:
		h.all.ServeHTTP(w, r)
	default:
		h.strangers.ServeHTTP(w, r)
	}
}

// admit says what rights somebody has.
func (h *handler) admit(r *http.Request) (trust.Rights, error) {
	_, password, given := r.BasicAuth()
	switch {
	case given:
		return h.check(r.Context(), trust.HashSecret(password))
	case r.Header.Get("Authorization") != "": // of another kind
		return trust.None, errNoPassword
	case h.door.Needed():
		return trust.None, errNoPassword
	case !local(r.Host):
		return trust.None, errHost
	}
	return trust.ReadWrite, nil
}

// check says what a password is good for. When nobody can be asked what was known counts.
func (h *handler) check(ctx context.Context, hash string) (trust.Rights, error) {
	h.mu.Lock()
	was, ok := h.known[hash]
	h.mu.Unlock()
	if ok && time.Since(was.asked) < passwords.RecheckEvery {
		return was.rights, nil
	}
	asked := time.Now()
	have, err := h.door.Check(ctx, hash)
	switch {
	case err != nil && ok:
		return was.rights, nil
	case err != nil:
		return trust.None, err
	}
	h.mu.Lock()
	if have == trust.None {
		delete(h.known, hash)
	} else {
		if len(h.known) >= knownMax {
			clear(h.known)
		}
		h.known[hash] = known{have, asked}
	}
	h.mu.Unlock()
	if have == trust.None {
		pause := time.NewTimer(passwords.FailWait)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		return trust.None, errWrong
	}
	return have, nil
}

// local says whether a Host header calls this machine by an address of its own, or localhost.
func local(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if name == "localhost" {
		return true
	}
	if len(name) > 1 && name[0] == '[' {
		name = name[1 : len(name)-1]
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}
