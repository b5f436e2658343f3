// Package admin is how dosctl speaks to a running dos: HTTP with JSON bodies
// over the Unix socket DIR/sock, which only its owner may open, or over a
// connection to a machine of a cluster. It knows what can be asked, not how it
// is done.
//
//	GET  /status             one JSON object: a Status
//	GET  /nodes              a JSON list: the machines, as in /dos/nodes
//	GET  /events?after=N     a JSON list: the events with numbers above N, as in /dos/cluster/log
//	POST /fsck?data=BOOL     a stream of JSON objects, one a line: Events; the last has Done set
//	POST /scrub              likewise
//	GET  /dump               the metadata, in the format of meta/replica
//	POST /meta               one request to the metadata service and its reply, as bytes
//	POST /replace?store=N    gives up what a lost store had; no body in the answer
//
// and of a cluster of machines
//
//	POST /drain?node=NAME&on=BOOL     whether a machine is to be emptied
//	POST /remove?node=NAME            forgets a machine that is empty
//	POST /token?…                     a JSON string: the text of a new token
//	GET  /tokens                      a JSON list: Tokens
//	POST /untoken?hash=HASH           takes a token back
//	GET  /identities                  a JSON list: Identities
//	POST /revoke?node=BOOL&name=NAME  turns a machine or a client out
//	POST /rotate                      has a new authority sign from now on
//	POST /retire                      ends that now, whoever has not renewed
//	GET  /rotation                    a JSON object: a Rotation
//
// A request that fails before it has begun to answer gets status 400 or above
// and the sentence as its body, with the number of its meta.Kind, if it has one, in the
// header Dos-Kind. One with the header Dos-Here is about what the
// machine that is asked has and knows itself: it is not passed on.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"dos/meta"
)

// Services are what can be asked of a dos. What is nil cannot be.
type Services struct {
	Data     Data
	Meta     Meta
	Machines Machines
	Access   Access
}

// Handler serves s to whoever gets here: who may is decided before.
func Handler(s Services) http.Handler {
	h := handler{http.NewServeMux()}
	if s.Data != nil {
		h.data(s.Data)
	}
	if s.Meta != nil {
		h.meta(s.Meta)
	}
	if s.Machines != nil {
		h.machines(s.Machines)
	}
	if s.Access != nil {
		h.access(s.Access)
	}
	return h.mux
}

type handler struct{ mux *http.ServeMux }

// kindHeader is what kind of error an answer is.
const kindHeader = "Dos-Kind"

// hereHeader marks a request that is not to be passed on.
const hereHeader = "Dos-Here"

type hereKey struct{}

// Here reports whether a request is about the machine that is asked alone.
func Here(ctx context.Context) bool { return ctx.Value(hereKey{}) != nil }

// on serves requests of a pattern of http.ServeMux.
func (h handler) on(pattern string, serve http.HandlerFunc) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(hereHeader) != "" {
			r = r.WithContext(context.WithValue(r.Context(), hereKey{}, true))
		}
		serve(w, r)
	})
}

// does serves requests whose answer is that they were done.
func (h handler) does(pattern string, do func(r *http.Request) error) {
	h.on(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := do(r); err != nil {
			refuse(w, err)
		}
	})
}

// tells serves requests whose answer is one JSON value.
func (h handler) tells(pattern string, of func(r *http.Request) (any, error)) {
	h.on(pattern, func(w http.ResponseWriter, r *http.Request) {
		value, err := of(r)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		reply(json.NewEncoder(w).Encode(value))
	})
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	var kind meta.Kind
	if errors.As(err, &kind) {
		w.Header().Set(kindHeader, strconv.Itoa(int(kind)))
	}
	if errors.As(err, &kind) && kind != meta.Unavailable && kind != meta.TimedOut {
		status = http.StatusBadRequest
	}
	http.Error(w, err.Error(), status)
}

// reply notes that a client went away before it had its answer.
func reply(err error) {
	if err != nil {
		slog.Debug("admin: reply", "err", err)
	}
}
