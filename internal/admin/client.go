package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// A Client asks one running dos.
type Client struct{ http http.Client }

// Dial returns a client of the socket at path. Nothing is sent yet.
func Dial(path string) *Client {
	return DialWith(func(ctx context.Context) (net.Conn, error) { return connect(ctx, path) })
}

// DialWith returns a client that makes a connection of its own for each request.
func DialWith(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true,
	}}}
}

// Status decodes the status into into.
func (c *Client) Status(ctx context.Context, into any) error {
	body, err := c.do(ctx, http.MethodGet, "status", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(into)
}

// Events decodes the events after one, by its number, into into.
func (c *Client) Events(ctx context.Context, after uint64, into any) error {
	body, err := c.do(ctx, http.MethodGet, "events", url.Values{"after": {strconv.FormatUint(after, 10)}})
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(into)
}

// Fsck runs a check; see Service.
func (c *Client) Fsck(ctx context.Context, data bool, say func(line string)) (problems int, err error) {
	return c.events(ctx, "fsck", url.Values{"data": {strconv.FormatBool(data)}}, say)
}

// Scrub runs a scrub; see Service.
func (c *Client) Scrub(ctx context.Context, say func(line string)) (problems int, err error) {
	return c.events(ctx, "scrub", nil, say)
}

// Replace gives up what a lost store had; see Service.
func (c *Client) Replace(ctx context.Context, store string) error {
	body, err := c.do(ctx, http.MethodPost, "replace", url.Values{"store": {store}})
	if err != nil {
		return err
	}
	return body.Close()
}

// Dump copies the metadata to w.
func (c *Client) Dump(ctx context.Context, w io.Writer) error {
	body, err := c.do(ctx, http.MethodGet, "dump", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	return err
}

func (c *Client) events(ctx context.Context, verb string, args url.Values, say func(string)) (int, error) {
	body, err := c.do(ctx, http.MethodPost, verb, args)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	for dec := json.NewDecoder(bufio.NewReader(body)); ; {
		var e Event
		switch err := dec.Decode(&e); {
		case err != nil:
			return 0, fmt.Errorf("%s: the connection ended before the answer did: %w", verb, err)
		case e.Error != "":
			return e.Problems, errors.New(e.Error)
		case e.Done:
			return e.Problems, nil
		}
		say(e.Line)
	}
}

func (c *Client) do(ctx context.Context, method, verb string, args url.Values) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "dos", Path: "/" + verb, RawQuery: args.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return resp.Body, nil
}
