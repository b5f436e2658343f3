package calls

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/exchange"
)

// Handler serves calls to whoever gets here: whether a peer may is decided before.
//
//	POST /rpc/SVC        the body is the request, the body of the answer the reply
//
// with the header Dos-Timeout: 5s, or less, for another timeout than the service's, and
// ?user=UID or ?user=NAME for who calls.
//
// A failure before the reply has begun is a status and a sentence, with the kind in the
// header Dos-Kind: 404 no such service, 403 not for that user, 503 nobody serves it, 504
// nothing came for the timeout, 502 who served failed or was lost. After that the
// connection breaks, so that a reply that is cut does not look whole.
func Handler(c Calls, named Named) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /rpc/{service}", func(w http.ResponseWriter, r *http.Request) {
		if err := answer(w, r, c, named); err != nil {
			fail(w, err)
		}
	})
	return mux
}

// statuses are those of kinds; what is not there is 502.
var statuses = map[meta.Kind]int{
	meta.NotExist:    http.StatusNotFound,
	meta.Invalid:     http.StatusBadRequest,
	meta.NameTooLong: http.StatusBadRequest,
	meta.Permission:  http.StatusForbidden,
	meta.Refused:     http.StatusServiceUnavailable,
	meta.Unavailable: http.StatusServiceUnavailable,
	meta.TimedOut:    http.StatusGatewayTimeout,
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusBadGateway
	var kind meta.Kind
	if errors.As(err, &kind) {
		w.Header().Set("Dos-Kind", strconv.Itoa(int(kind)))
		if s, ok := statuses[kind]; ok {
			status = s
		}
	}
	http.Error(w, err.Error(), status)
}

// answer makes the call. An error is of before the reply has begun.
func answer(w http.ResponseWriter, r *http.Request, c Calls, named Named) error {
	service := r.PathValue("service")
	how, err := calling(r.Context(), c, named, service, r.URL.Query().Get("user"), r.Header.Get("Dos-Timeout"), "http from "+r.RemoteAddr)
	if err != nil {
		return err
	}
	first := make([]byte, exchange.FirstMax)
	n, err := io.ReadFull(r.Body, first)
	last := err == io.EOF || err == io.ErrUnexpectedEOF || err == nil && r.ContentLength == int64(n)
	if err != nil && !last {
		return fmt.Errorf("the request's body: %w: %v", meta.Invalid, err)
	}
	talk, err := c.Open(r.Context(), service, first[:n], last, r.ContentLength, how)
	if err != nil {
		return err
	}
	defer talk.Close()
	sent := make(chan struct{})
	if last {
		close(sent)
	} else {
		// A server may reply before it has read all.
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/1.1 alone needs it
		go func() {
			defer close(sent)
			send(r, talk)
		}()
	}
	defer func() { talk.Abort(); <-sent }()
	return reply(w, r, talk)
}

// send sends the rest of the body. If that breaks, so does the call.
func send(r *http.Request, talk *client.Conversation) {
	buffer := make([]byte, exchange.FirstMax)
	for {
		n, err := r.Body.Read(buffer)
		if err != nil && err != io.EOF {
			talk.Abort()
			return
		}
		if _, e := talk.Write(r.Context(), buffer[:n], err == io.EOF); e != nil || err == io.EOF {
			return
		}
	}
}

// reply passes the reply on as it comes.
func reply(w http.ResponseWriter, r *http.Request, talk *client.Conversation) error {
	buffer := make([]byte, exchange.FirstMax)
	n, err := talk.Read(r.Context(), buffer)
	if err != nil && err != io.EOF {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	out := http.NewResponseController(w)
	for err == nil {
		if _, err := w.Write(buffer[:n]); err != nil {
			return nil // who called is gone
		}
		_ = out.Flush() // what is there is seen, if the writer can
		n, err = talk.Read(r.Context(), buffer)
	}
	if err != io.EOF {
		panic(http.ErrAbortHandler) // the status is out: it must not look whole
	}
	return nil
}
