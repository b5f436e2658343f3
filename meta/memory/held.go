package memory

import (
	"time"

	"dos/meta/queue"
	"dos/meta/state"
)

// awaitMax is how long an answer is held back (package node does likewise).
const awaitMax = 2 * time.Second

// A holdBack says what one query waits for.
type holdBack struct {
	key  func(req []byte) []byte       // the row with which its answer changes; nil if the request is none
	news func(req, answer []byte) bool // whether it is to be answered now
}

// heldBack are the queries whose answers are held back until there is news.
var heldBack = map[state.Op]holdBack{
	queue.OpAwait: {
		func(body []byte) []byte { return rowOf(body, queue.AwaitKey) },
		func(_, answer []byte) bool { return is(answer, func(now queue.Waiting) bool { return !now.Still }) },
	},
	queue.OpRoom: {
		func(body []byte) []byte { return rowOf(body, queue.RoomKey) },
		func(_, answer []byte) bool { return is(answer, func(now queue.Space) bool { return now.Fits }) },
	},
}

func rowOf[Req any](body []byte, key func(Req) []byte) []byte {
	var req Req
	if state.Unmarshal(body, &req) != nil {
		return nil
	}
	return key(req)
}

func is[Resp any](answer []byte, news func(Resp) bool) bool {
	var resp Resp
	return state.Unmarshal(answer, &resp) != nil || news(resp)
}
