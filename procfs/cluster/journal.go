package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dos/meta"
)

// An Event is something that a person may want to know of afterwards.
type Event struct {
	Seq  uint64    `json:"seq"` // from 1, without gaps
	Time meta.Time `json:"time"`
	Text string    `json:"text"`
}

// Line is the event as a line: its number, its time and what happened.
func (e Event) Line() string {
	return fmt.Sprintf("%d %s %s\n", e.Seq, stamp(e.Time), oneLine(e.Text))
}

// journalMax is how many events a Journal keeps: a day of a busy cluster, and
// some hundred kilobytes.
const journalMax = 1000

// A Journal keeps the last events in memory and wakes those who wait for the
// next. Its zero value is empty; its methods may be called concurrently.
type Journal struct {
	mu   sync.Mutex
	kept []Event       // the last journalMax; guarded by mu
	last uint64        // guarded by mu
	news chan struct{} // closed by the next event, if somebody waits; guarded by mu
}

// Add notes what happened now.
func (j *Journal) Add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	if len(j.kept) >= 2*journalMax { // cut in steps, so that adding stays cheap
		j.kept = append(j.kept[:0], j.kept[len(j.kept)-journalMax+1:]...)
	}
	j.kept = append(j.kept, Event{Seq: j.last, Time: meta.At(time.Now()), Text: fmt.Sprintf(format, args...)})
	if j.news != nil {
		close(j.news)
		j.news = nil
	}
}

// Last returns the number of the last event; 0 if there was none.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// Log returns the events that are kept, the oldest first.
func (j *Journal) Log() []Event { return j.After(0) }

// After returns the events that are kept with a number above after.
func (j *Journal) After(after uint64) []Event {
	events, _ := j.since(after)
	return events
}

// Since returns the events that are kept with a number above after. It waits
// until there is one or ctx ends.
func (j *Journal) Since(ctx context.Context, after uint64) ([]Event, error) {
	for {
		events, news := j.since(after)
		if len(events) > 0 {
			return events, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (j *Journal) since(after uint64) ([]Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.news == nil {
		j.news = make(chan struct{})
	}
	wanted := uint64(0)
	if after < j.last {
		wanted = min(j.last-after, journalMax, uint64(len(j.kept)))
	}
	return slices.Clone(j.kept[uint64(len(j.kept))-wanted:]), j.news
}

// LastError keeps the sentence behind the last error that a session was given:
// a program sees no more than its number. Its zero value holds none.
type LastError struct {
	mu   sync.Mutex
	text string // guarded by mu
}

// Record keeps err as the last error, which op met.
func (l *LastError) Record(op string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = stamp(meta.At(time.Now())) + " " + op + ": " + strings.TrimSpace(err.Error())
}

// Text returns the last error as a line; nothing if there was none.
func (l *LastError) Text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text == "" {
		return ""
	}
	return oneLine(l.text) + "\n"
}
