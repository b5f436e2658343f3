package admin

import (
	"bufio"
	"bytes"
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

	"dos/meta"
)

// A Client asks one running dos.
type Client struct {
	http *http.Client
	here bool
}

// Dial returns a client of the socket at path. Nothing is sent yet.
func Dial(path string) *Client {
	return DialWith(func(ctx context.Context) (net.Conn, error) { return connect(ctx, path) })
}

// DialWith returns a client that makes a connection of its own for each request.
func DialWith(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true,
	}}}
}

// Here returns a client whose requests are about the machine that is asked alone.
func (c *Client) Here() *Client { return &Client{c.http, true} }

// Status decodes the status into into.
func (c *Client) Status(ctx context.Context, into any) error { return c.ask(ctx, "status", nil, into) }

// Nodes decodes the machines into into.
func (c *Client) Nodes(ctx context.Context, into any) error { return c.ask(ctx, "nodes", nil, into) }

// Events decodes the events after one, by its number, into into.
func (c *Client) Events(ctx context.Context, after uint64, into any) error {
	return c.ask(ctx, "events", url.Values{"after": {strconv.FormatUint(after, 10)}}, into)
}

// Fsck runs a check; see Data.
func (c *Client) Fsck(ctx context.Context, data bool, to Report) (problems int, err error) {
	return c.follow(ctx, "fsck", flag("data", data), to)
}

// Scrub runs a scrub; see Data.
func (c *Client) Scrub(ctx context.Context, to Report) (problems int, err error) {
	return c.follow(ctx, "scrub", nil, to)
}

// Replace gives up what a lost store had; see Data.
func (c *Client) Replace(ctx context.Context, store string) error {
	return c.tell(ctx, "replace", url.Values{"store": {store}}, nil)
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

// Drain says whether a machine is to be emptied; see Machines.
func (c *Client) Drain(ctx context.Context, name string, on bool) error {
	args := flag("on", on)
	args.Set("node", name)
	return c.tell(ctx, "drain", args, nil)
}

// Remove forgets a machine; see Machines.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.tell(ctx, "remove", url.Values{"node": {name}}, nil)
}

// CreateToken makes a token; this and what follows: see Access.
func (c *Client) CreateToken(ctx context.Context, w Wish) (token string, err error) {
	args := flag("node", w.Node)
	if w.Password {
		args.Set("password", "true")
	}
	args.Set("name", w.Name)
	args.Set("rights", w.Rights)
	args.Set("life", w.Life.String())
	err = c.tell(ctx, "token", args, &token)
	return token, err
}

func (c *Client) Tokens(ctx context.Context) (list []Token, err error) {
	err = c.ask(ctx, "tokens", nil, &list)
	return list, err
}

func (c *Client) DeleteToken(ctx context.Context, hash string) error {
	return c.tell(ctx, "untoken", url.Values{"hash": {hash}}, nil)
}

func (c *Client) Identities(ctx context.Context) (list []Identity, err error) {
	err = c.ask(ctx, "identities", nil, &list)
	return list, err
}

func (c *Client) Revoke(ctx context.Context, node bool, name string) error {
	args := flag("node", node)
	args.Set("name", name)
	return c.tell(ctx, "revoke", args, nil)
}

func (c *Client) Rotate(ctx context.Context) error { return c.tell(ctx, "rotate", nil, nil) }

func (c *Client) Retire(ctx context.Context) error { return c.tell(ctx, "retire", nil, nil) }

func (c *Client) Rotation(ctx context.Context) (r Rotation, err error) {
	err = c.ask(ctx, "rotation", nil, &r)
	return r, err
}

func flag(name string, value bool) url.Values {
	return url.Values{name: {strconv.FormatBool(value)}}
}

// ask decodes the answer to a GET into into.
func (c *Client) ask(ctx context.Context, verb string, args url.Values, into any) error {
	return c.answer(ctx, http.MethodGet, verb, args, into)
}

// tell decodes the answer to a POST into into, unless that is nil.
func (c *Client) tell(ctx context.Context, verb string, args url.Values, into any) error {
	return c.answer(ctx, http.MethodPost, verb, args, into)
}

func (c *Client) answer(ctx context.Context, method, verb string, args url.Values, into any) error {
	body, err := c.do(ctx, method, verb, args)
	if err != nil {
		return err
	}
	defer body.Close()
	if into == nil {
		return nil
	}
	return json.NewDecoder(body).Decode(into)
}

// follow reads what a long request says.
func (c *Client) follow(ctx context.Context, verb string, args url.Values, to Report) (int, error) {
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
		case e.Of > 0:
			to.At(e.At, e.Of)
		default:
			to.Say(e.Line)
		}
	}
}

func (c *Client) do(ctx context.Context, method, verb string, args url.Values) (io.ReadCloser, error) {
	return c.send(ctx, method, verb, args, nil)
}

// send is do with a body.
func (c *Client) send(ctx context.Context, method, verb string, args url.Values, request []byte) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "dos", Path: "/" + verb, RawQuery: args.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	if c.here {
		req.Header.Set(hereHeader, "1")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var wrap *url.Error // its text is about an address that nobody knows
		if errors.As(err, &wrap) {
			err = wrap.Err
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s: not with this dos: it is an embedded one, or older than this dosctl", verb)
	}
	no := &refusal{text: strings.TrimSpace(string(text))}
	if n, err := strconv.ParseUint(resp.Header.Get(kindHeader), 10, 8); err == nil {
		no.kind = meta.Kind(n)
	} else if resp.StatusCode == http.StatusForbidden {
		no.kind = meta.Permission
	}
	return nil, no
}

// A refusal is an error of who was asked: its text, which names its kind already.
type refusal struct {
	text string
	kind meta.Kind // zero: of none
}

func (r *refusal) Error() string { return r.text }

func (r *refusal) Unwrap() error {
	if r.kind == 0 {
		return nil
	}
	return r.kind
}
