// Package admin is how dosctl speaks to a running dos: HTTP with JSON bodies
// over the Unix socket DIR/sock, which only its owner may open, or over a
// connection to a machine of a cluster. It knows what can be asked, not how it
// is done.
//
//	GET  /status          one JSON object: a Status
//	GET  /events?after=N  a JSON list: the events with numbers above N, as in /dos/cluster/log
//	POST /fsck?data=BOOL  a stream of JSON objects, one a line: Events; the last has Done set
//	POST /scrub           likewise
//	GET  /dump            the metadata, in the format of meta/replica
//	POST /replace?store=N gives up what a lost store had; no body in the answer
//
// A request that fails before it has begun to answer gets status 400 or above
// and the sentence as its body.
package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"
)

// A Service is what can be asked of a running dos.
type Service interface {
	// Status returns something that marshals to JSON: the facts that
	// /dos/cluster/status shows.
	Status(ctx context.Context) (any, error)
	// Events returns something that marshals to a JSON list: the events with
	// numbers above after.
	Events(ctx context.Context, after uint64) (any, error)
	// Fsck checks everything and says what it found, a line at a time. With
	// data it reads and verifies every shard too.
	Fsck(ctx context.Context, data bool, say func(line string)) (problems int, err error)
	// Scrub reads every record of every store, and returns how many were bad
	// once they are rebuilt or cannot be.
	Scrub(ctx context.Context, say func(line string)) (problems int, err error)
	// Replace gives up what a lost store had, so that it starts empty.
	Replace(ctx context.Context, store uint32) error
	// Dump writes the metadata as of one moment.
	Dump(ctx context.Context, w io.Writer) error
}

// An Event is one line of what a long request says.
type Event struct {
	Line     string `json:"line,omitempty"`
	Done     bool   `json:"done,omitempty"`
	Problems int    `json:"problems,omitempty"` // with Done
	Error    string `json:"error,omitempty"`    // with Done
}

// Handler serves s.
func Handler(s Service) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		status, err := s.Status(r.Context())
		answer(w, status, err)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		after, err := strconv.ParseUint(r.FormValue("after"), 10, 64)
		if err != nil {
			http.Error(w, "after must be a number", http.StatusBadRequest)
			return
		}
		events, err := s.Events(r.Context(), after)
		answer(w, events, err)
	})
	mux.HandleFunc("POST /fsck", func(w http.ResponseWriter, r *http.Request) {
		data, err := strconv.ParseBool(r.FormValue("data"))
		if err != nil {
			http.Error(w, "data must be true or false", http.StatusBadRequest)
			return
		}
		stream(w, func(say func(string)) (int, error) { return s.Fsck(r.Context(), data, say) })
	})
	mux.HandleFunc("POST /scrub", func(w http.ResponseWriter, r *http.Request) {
		stream(w, func(say func(string)) (int, error) { return s.Scrub(r.Context(), say) })
	})
	mux.HandleFunc("POST /replace", func(w http.ResponseWriter, r *http.Request) {
		store, err := strconv.ParseUint(r.FormValue("store"), 10, 32)
		if err == nil {
			err = s.Replace(r.Context(), uint32(store))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("GET /dump", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := s.Dump(r.Context(), w); err != nil {
			slog.Error("admin: dump", "err", err)
			panic(http.ErrAbortHandler) // the client sees a broken stream, not a short dump
		}
	})
	return mux
}

// answer sends one JSON value.
func answer(w http.ResponseWriter, value any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	reply(json.NewEncoder(w).Encode(value))
}

// stream sends what run says as it says it.
func stream(w http.ResponseWriter, run func(say func(string)) (int, error)) {
	w.Header().Set("Content-Type", "application/jsonl")
	out := json.NewEncoder(w)
	control := http.NewResponseController(w)
	send := func(e Event) {
		reply(out.Encode(e))
		reply(control.Flush())
	}
	problems, err := run(func(line string) { send(Event{Line: line}) })
	last := Event{Done: true, Problems: problems}
	if err != nil {
		last.Error = err.Error()
	}
	send(last)
}

// reply notes that a client went away before it had its answer.
func reply(err error) {
	if err != nil {
		slog.Debug("admin: reply", "err", err)
	}
}
