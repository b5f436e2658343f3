package admin

import (
	"context"
	"net/http"
)

// Machines is what can be done with the machines of a cluster. Which there are
// and how they do is part of the status.
type Machines interface {
	// Drain says whether a machine is to be emptied.
	Drain(ctx context.Context, name string, on bool) error
	// Remove forgets a machine that has nothing any more.
	Remove(ctx context.Context, name string) error
}

func (h handler) machines(s Machines) {
	h.does("POST /drain", func(r *http.Request) error {
		on, err := boolean(r, "on")
		if err != nil {
			return err
		}
		return s.Drain(r.Context(), r.FormValue("node"), on)
	})
	h.does("POST /remove", func(r *http.Request) error { return s.Remove(r.Context(), r.FormValue("node")) })
}
