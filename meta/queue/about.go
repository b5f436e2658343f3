package queue

import "dos/meta/state"

// A subject is a request about one queue: it says its name or its number.
type subject interface{ about() (string, uint64) }

func (r Named) about() (string, uint64)   { return r.Name, 0 }
func (r Set) about() (string, uint64)     { return r.Name, 0 }
func (r Push) about() (string, uint64)    { return r.Name, 0 }
func (r Take) about() (string, uint64)    { return r.Name, 0 }
func (r Pass) about() (string, uint64)    { return r.Name, 0 }
func (r Leave) about() (string, uint64)   { return r.Name, 0 }
func (r Grouped) about() (string, uint64) { return r.Name, 0 }
func (r Seek) about() (string, uint64)    { return r.Name, 0 }
func (r Bury) about() (string, uint64)    { return r.Name, 0 }
func (r Read) about() (string, uint64)    { return r.Name, 0 }
func (r Flights) about() (string, uint64) { return r.Name, 0 }
func (r Dead) about() (string, uint64)    { return r.Name, 0 }
func (r Await) about() (string, uint64)   { return "", r.Queue }
func (r Fit) about() (string, uint64)     { return "", r.Queue }

// What is settled at once is of one queue.
func (r Settles) about() (string, uint64) {
	if len(r.List) == 0 {
		return "", 0
	}
	return r.List[0].Name, 0
}

// About says which queue a request is about that the holder of a queue in memory
// executes: its name or else its number. ok is false of any other request.
func About(op state.Op, req any) (name string, id uint64, ok bool) {
	if _, held := abouts[op]; !held {
		return "", 0, false
	}
	s, ok := req.(subject)
	if !ok {
		return "", 0, false
	}
	name, id = s.about()
	return name, id, true
}

// AboutBody is About of a request that is encoded.
func AboutBody(op state.Op, body []byte) (name string, id uint64, ok bool) {
	of, held := abouts[op]
	if !held {
		return "", 0, false
	}
	s, ok := of(body)
	if !ok {
		return "", 0, false
	}
	name, id = s.about()
	return name, id, true
}

// abouts are the operations that the holder of a queue in memory executes. Most have
// the name in the same place.
var abouts = map[state.Op]func(body []byte) (subject, bool){
	OpRemove:      decoded[Named],
	OpSet:         decoded[Named],
	OpPush:        decoded[Named],
	OpTake:        decoded[Named],
	OpPass:        decoded[Named],
	OpSettle:      decoded[Settles],
	OpLeave:       decoded[Named],
	OpMakeGroup:   decoded[Named],
	OpRemoveGroup: decoded[Named],
	OpSeek:        decoded[Named],
	OpPurge:       decoded[Named],
	OpBury:        decoded[Named],
	OpStatus:      decoded[Named],
	OpAwait:       decoded[Await],
	OpRoom:        decoded[Fit],
	OpRead:        decoded[Named],
	OpFlights:     decoded[Named],
	OpDead:        decoded[Named],
}

func decoded[Req subject](body []byte) (subject, bool) {
	var req Req
	err := state.Unmarshal(body, &req)
	return req, err == nil
}
