// Package http is the door for who speaks HTTP: calls of services.
//
//	POST /rpc/SVC        the body is the request, the body of the answer the reply
//
// with the header Dos-Timeout: 5s, or less, for another timeout than the service's. Who
// calls is who the query says, ?user=UID or ?user=NAME of a user of this machine, else root:
// whoever shows a certificate to change files at all may do so as any user, as with a mount.
//
// A failure before the reply has begun is a status and a sentence, with the kind in the
// header Dos-Kind: 404 no such service, 403 not for that user, 503 nobody serves it, 504
// nothing came for the timeout, 502 who served failed or was lost. After that the
// connection breaks, so that a reply that is cut does not look whole.
package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"dos/internal/access"
	"dos/meta"
	"dos/meta/call"
	"dos/meta/client"
	"dos/meta/exchange"
)

// Calls is what this room needs of a client (client.Dialer).
type Calls interface {
	Status(ctx context.Context, service string) (call.Status, error)
	Open(ctx context.Context, service string, data []byte, last bool, size int64, how client.Calling) (*client.Conversation, error)
}

// Named says who somebody is that says to be a user of such a name, or nothing (access.Named).
type Named func(name string) (access.User, error)

// Handler serves calls to whoever gets here: whether a peer may is decided before.
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
	who, err := named(r.URL.Query().Get("user"))
	if err != nil {
		return err
	}
	service := r.PathValue("service")
	how := client.Calling{Fresh: true, By: fmt.Sprintf("uid %d by http from %s", who.UID, r.RemoteAddr)}
	if text := r.Header.Get("Dos-Timeout"); text != "" {
		if how.Timeout, err = time.ParseDuration(text); err != nil || how.Timeout <= 0 {
			return fmt.Errorf("timeout %.80q is not one such as 5s: %w", text, meta.Invalid)
		}
	}
	st, err := c.Status(r.Context(), service)
	if err != nil {
		return err
	}
	if err := client.May(st.Service, who.UID, who.GID, 1); err != nil {
		return fmt.Errorf("service %q is not for user %d: %w", service, who.UID, err)
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
