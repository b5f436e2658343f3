package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"dos/meta"
)

// Meta executes a request to the metadata service, as whoever serves the socket. What
// the bytes are is for those at both ends to know.
type Meta interface {
	Execute(ctx context.Context, request []byte) (reply []byte, err error)
}

// metaMax bounds a request and a reply, in bytes: more than an entry of the log and
// than the largest answer.
const metaMax = 4 << 20

func (h handler) meta(s Meta) {
	h.on("POST /meta", func(w http.ResponseWriter, r *http.Request) {
		request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, metaMax))
		if err != nil {
			refuse(w, fmt.Errorf("request: %v: %w", err, meta.TooLarge))
			return
		}
		answer, err := s.Execute(r.Context(), request)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, err = w.Write(answer)
		reply(err)
	})
}

// Execute has a request to the metadata service executed; see Meta.
func (c *Client) Execute(ctx context.Context, request []byte) ([]byte, error) {
	body, err := c.send(ctx, http.MethodPost, "meta", url.Values{}, request)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	answer, err := io.ReadAll(io.LimitReader(body, metaMax+1))
	if err == nil && len(answer) > metaMax {
		err = fmt.Errorf("an answer of more than %d bytes: %w", metaMax, meta.TooLarge)
	}
	return answer, err
}
