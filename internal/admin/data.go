package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"dos/meta"
)

// Data is what can be asked about what is stored.
type Data interface {
	// Status returns something that marshals to JSON: the facts that
	// /dos/cluster/status shows.
	Status(ctx context.Context) (any, error)
	// Nodes returns something that marshals to a JSON list: the machines, as /dos/nodes
	// shows them.
	Nodes(ctx context.Context) (any, error)
	// Events returns something that marshals to a JSON list: the events with
	// numbers above after.
	Events(ctx context.Context, after uint64) (any, error)
	// Fsck checks everything and says what it found. With data it reads and
	// verifies every shard too.
	Fsck(ctx context.Context, data bool, to Report) (problems int, err error)
	// Scrub reads every record of every store, and returns how many were bad
	// once they are rebuilt or cannot be.
	Scrub(ctx context.Context, to Report) (problems int, err error)
	// Replace gives up what a lost store had, so that it starts empty.
	Replace(ctx context.Context, store uint32) error
	// Dump writes the metadata as of one moment.
	Dump(ctx context.Context, w io.Writer) error
}

// A Report is where a long request tells how it goes. Both functions are set;
// they are not called concurrently.
type Report struct {
	Say func(line string)
	At  func(done, of int64) // how much of the work is done
}

// An Event is one line of what a long request says.
type Event struct {
	Line     string `json:"line,omitempty"`
	At       int64  `json:"at,omitempty"` // of Of parts of the work
	Of       int64  `json:"of,omitempty"`
	Done     bool   `json:"done,omitempty"`
	Problems int    `json:"problems,omitempty"` // with Done
	Error    string `json:"error,omitempty"`    // with Done
}

func (h handler) data(s Data) {
	h.tells("GET /status", func(r *http.Request) (any, error) { return s.Status(r.Context()) })
	h.tells("GET /nodes", func(r *http.Request) (any, error) { return s.Nodes(r.Context()) })
	h.tells("GET /events", func(r *http.Request) (any, error) {
		after, err := strconv.ParseUint(r.FormValue("after"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("after must be a number: %w", meta.Invalid)
		}
		return s.Events(r.Context(), after)
	})
	h.on("POST /fsck", func(w http.ResponseWriter, r *http.Request) {
		data, err := boolean(r, "data")
		if err != nil {
			refuse(w, err)
			return
		}
		stream(w, func(to Report) (int, error) { return s.Fsck(r.Context(), data, to) })
	})
	h.on("POST /scrub", func(w http.ResponseWriter, r *http.Request) {
		stream(w, func(to Report) (int, error) { return s.Scrub(r.Context(), to) })
	})
	h.does("POST /replace", func(r *http.Request) error {
		store, err := strconv.ParseUint(r.FormValue("store"), 10, 32)
		if err != nil {
			return fmt.Errorf("store %q: a number is needed, as dosctl status shows it: %w", r.FormValue("store"), meta.Invalid)
		}
		return s.Replace(r.Context(), uint32(store))
	})
	h.on("GET /dump", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := s.Dump(r.Context(), w); err != nil {
			slog.Error("admin: dump", "err", err)
			panic(http.ErrAbortHandler) // the client sees a broken stream, not a short dump
		}
	})
}

func boolean(r *http.Request, name string) (bool, error) {
	value, err := strconv.ParseBool(r.FormValue(name))
	if err != nil {
		return false, fmt.Errorf("%s must be true or false: %w", name, meta.Invalid)
	}
	return value, nil
}

// stream sends what run says as it says it.
func stream(w http.ResponseWriter, run func(Report) (int, error)) {
	w.Header().Set("Content-Type", "application/jsonl")
	out := json.NewEncoder(w)
	control := http.NewResponseController(w)
	send := func(e Event) {
		reply(out.Encode(e))
		reply(control.Flush())
	}
	problems, err := run(Report{
		Say: func(line string) { send(Event{Line: line}) },
		At:  func(done, of int64) { send(Event{At: done, Of: of}) },
	})
	last := Event{Done: true, Problems: problems}
	if err != nil {
		last.Error = err.Error()
	}
	send(last)
}
