package admin

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"dos/meta"
)

// Access is what can be asked about who may take part.
type Access interface {
	// CreateToken makes a token, whose text nobody can read again.
	CreateToken(ctx context.Context, w Wish) (token string, err error)
	Tokens(ctx context.Context) ([]Token, error)
	// DeleteToken takes a token back that was not used, by its hash.
	DeleteToken(ctx context.Context, hash string) error
	Identities(ctx context.Context) ([]Identity, error)
	// Revoke turns a machine or a client out.
	Revoke(ctx context.Context, node bool, name string) error
	// Rotate has a new authority sign from now on, Rotation says how far that is,
	// and Retire ends it, whoever has not renewed.
	Rotate(ctx context.Context) error
	Rotation(ctx context.Context) (Rotation, error)
	Retire(ctx context.Context) error
}

// A Wish says whom a token is to admit.
type Wish struct {
	Node   bool          // a machine, else a client
	Name   string        // that it must have; empty: any
	Rights string        // of a client: ro, rw or admin
	Life   time.Duration // zero: what is usual
	// Password wishes for one that lets programs use the ports of other protocols.
	Password bool
}

// A Token admits somebody once.
type Token struct {
	Hash    string    `json:"hash"` // of its secret, which nobody knows
	Kind    string    `json:"kind"` // machine, client or password
	Rights  string    `json:"rights"`
	Name    string    `json:"name,omitempty"`
	Expires meta.Time `json:"expires"`
	Used    meta.Time `json:"used,omitempty"`
	By      string    `json:"by,omitempty"`
}

// An Identity is a machine or a client that was admitted.
type Identity struct {
	Kind   string    `json:"kind"` // machine or client
	Name   string    `json:"name"`
	Rights string    `json:"rights"`
	Serial string    `json:"serial"` // of the certificate in use
	Until  meta.Time `json:"until"`  // when that is over, if it is not renewed
}

// A Rotation says how far the replacement of the authority is.
type Rotation struct {
	Underway bool     `json:"underway"`
	Waiting  []string `json:"waiting"` // for whom, at most a hundred
	More     int      `json:"more"`    // how many more
}

func (h handler) access(s Access) {
	h.tells("POST /token", func(r *http.Request) (any, error) {
		node, err := boolean(r, "node")
		if err != nil {
			return nil, err
		}
		life, err := time.ParseDuration(r.FormValue("life"))
		if err != nil {
			return nil, fmt.Errorf("life %q: %w", r.FormValue("life"), meta.Invalid)
		}
		password := r.FormValue("password") == "true"
		return s.CreateToken(r.Context(), Wish{Node: node, Password: password, Name: r.FormValue("name"), Rights: r.FormValue("rights"), Life: life})
	})
	h.tells("GET /tokens", func(r *http.Request) (any, error) { return s.Tokens(r.Context()) })
	h.does("POST /untoken", func(r *http.Request) error { return s.DeleteToken(r.Context(), r.FormValue("hash")) })
	h.tells("GET /identities", func(r *http.Request) (any, error) { return s.Identities(r.Context()) })
	h.does("POST /revoke", func(r *http.Request) error {
		node, err := boolean(r, "node")
		if err != nil {
			return err
		}
		return s.Revoke(r.Context(), node, r.FormValue("name"))
	})
	h.does("POST /rotate", func(r *http.Request) error { return s.Rotate(r.Context()) })
	h.does("POST /retire", func(r *http.Request) error { return s.Retire(r.Context()) })
	h.tells("GET /rotation", func(r *http.Request) (any, error) { return s.Rotation(r.Context()) })
}
