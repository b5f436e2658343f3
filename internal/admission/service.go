package admission

import (
	"context"
	"errors"
	"fmt"

	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta"
)

// ServiceName is the service that an Office answers connections with. A call's
// header and its answer's are CBOR: the request of the method, and an answer.
const ServiceName = "dos.trust"

// The requests and answers of the methods.
type (
	renewRequest struct {
		CSR []byte `cbor:"1,keyasint,omitempty"`
	}
	grantAnswer struct {
		Cert        []byte   `cbor:"1,keyasint,omitempty"`
		Authorities []byte   `cbor:"2,keyasint,omitempty"`
		Members     []string `cbor:"3,keyasint,omitempty"`
	}
	confirmRequest struct {
		Serial string `cbor:"1,keyasint,omitempty"`
	}
	tokenAnswer struct {
		Token string `cbor:"1,keyasint,omitempty"`
	}
	revokeRequest struct {
		Node bool   `cbor:"1,keyasint,omitempty"`
		Name string `cbor:"2,keyasint,omitempty"`
	}
)

// answer is the header of every answer.
type answer struct {
	Kind meta.Kind `cbor:"1,keyasint,omitempty"` // zero on success
	Text string    `cbor:"2,keyasint,omitempty"` // of the error
	Body []byte    `cbor:"3,keyasint,omitempty"` // the method's answer
}

// textMax bounds the text of an error in bytes.
const textMax = 4 << 10

// Service lets peers renew and confirm their own certificates, and administrators
// do the rest.
func (o *Office) Service() rpc.Service {
	return rpc.Service{Name: ServiceName, Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
		"Renew": method(o, trust.ReadOnly, func(ctx context.Context, p trust.Peer, req renewRequest) (grantAnswer, error) {
			g, err := o.Renew(ctx, p, req.CSR)
			return grantAnswer(g), err
		}),
		"Confirm": method(o, trust.ReadOnly, func(ctx context.Context, p trust.Peer, req confirmRequest) (struct{}, error) {
			return struct{}{}, o.Confirm(ctx, p, req.Serial)
		}),
		"CreateToken": method(o, trust.Admin, func(ctx context.Context, _ trust.Peer, req TokenWish) (tokenAnswer, error) {
			text, err := o.CreateToken(ctx, req)
			return tokenAnswer{text}, err
		}),
		"Revoke": method(o, trust.Admin, func(ctx context.Context, _ trust.Peer, req revokeRequest) (struct{}, error) {
			return struct{}{}, o.Revoke(ctx, req.Node, req.Name)
		}),
		"Rotate": method(o, trust.Admin, func(ctx context.Context, _ trust.Peer, _ struct{}) (struct{}, error) {
			return struct{}{}, o.Rotate(ctx)
		}),
		"FinishRotation": method(o, trust.Admin, func(ctx context.Context, _ trust.Peer, _ struct{}) (struct{}, error) {
			return struct{}{}, o.FinishRotation(ctx)
		}),
		"Rotation": method(o, trust.ReadOnly, func(ctx context.Context, _ trust.Peer, _ struct{}) (Rotation, error) {
			return o.Rotation(ctx)
		}),
	}}
}

// method checks that the peer has the rights and answers with what do says.
func method[Req, Resp any](o *Office, need trust.Rights, do func(context.Context, trust.Peer, Req) (Resp, error)) func(context.Context, *rpc.Frame) (*rpc.Frame, error) {
	return func(ctx context.Context, frame *rpc.Frame) (*rpc.Frame, error) {
		resp, err := func() (resp Resp, err error) {
			cs, _ := rpc.PeerState(ctx)
			peer, err := o.cfg.Keys.Admitted(cs)
			if err != nil {
				return resp, fmt.Errorf("%w: %w", err, meta.Permission)
			}
			if peer.Rights < need {
				return resp, fmt.Errorf("%v may not do this, %v is needed: %w", peer.Identity, need, meta.Permission)
			}
			var req Req
			if err := rpc.Decode(frame.Header, &req); err != nil {
				return resp, fmt.Errorf("%w: %w", err, meta.Invalid)
			}
			return do(ctx, peer, req)
		}()
		if err == nil {
			return &rpc.Frame{Header: rpc.Encode(answer{Body: rpc.Encode(resp)})}, nil
		}
		a := answer{Text: err.Error()}
		a.Text = a.Text[:min(len(a.Text), textMax)]
		switch {
		case errors.Is(err, trust.ErrRefused):
			a.Kind = meta.Permission
		case !errors.As(err, &a.Kind):
			a.Kind = meta.Unavailable
		}
		return &rpc.Frame{Header: rpc.Encode(a)}, nil
	}
}

// A Client asks the Offices of a cluster: the members in turn, until one can
// answer. It is a Renewer. Its methods may be called concurrently.
type Client struct{ members func() []*rpc.Client }

// NewClient returns a client of machines with a metadata member: those that members
// returns at the time. They are the caller's to close.
func NewClient(members func() []*rpc.Client) *Client { return &Client{members} }

func (c *Client) call(ctx context.Context, method string, req, resp any) error {
	last := fmt.Errorf("no machine is known that could: %w", meta.Unavailable)
	for _, m := range c.members() {
		var frame rpc.Frame
		err := m.Call(ctx, ServiceName, method, &rpc.Frame{Header: rpc.Encode(req)}, &frame)
		if err != nil {
			last = fmt.Errorf("%w: %w", err, meta.Unavailable)
			continue
		}
		var a answer
		err = rpc.Decode(frame.Header, &a)
		frame.Free()
		switch {
		case err != nil:
			return err
		case a.Kind == meta.Unavailable: // the next may lead
			last = told{a.Kind, a.Text}
			continue
		case a.Kind != 0:
			return told{a.Kind, a.Text}
		}
		return rpc.Decode(a.Body, resp)
	}
	return last
}

// told is an error that came in an answer.
type told struct {
	kind meta.Kind
	text string
}

func (e told) Error() string { return e.text }
func (e told) Unwrap() error { return e.kind }

// Renew gives the caller another certificate for a new key.
func (c *Client) Renew(ctx context.Context, csr []byte) (trust.Grant, error) {
	var g grantAnswer
	err := c.call(ctx, "Renew", renewRequest{csr}, &g)
	return trust.Grant(g), err
}

// Confirm says that the caller has kept the certificate of a serial number.
func (c *Client) Confirm(ctx context.Context, serial string) error {
	return c.call(ctx, "Confirm", confirmRequest{serial}, new(struct{}))
}

// CreateToken makes a token and returns its text.
func (c *Client) CreateToken(ctx context.Context, w TokenWish) (string, error) {
	var t tokenAnswer
	err := c.call(ctx, "CreateToken", w, &t)
	return t.Token, err
}

// Revoke turns a machine or a client out.
func (c *Client) Revoke(ctx context.Context, node bool, name string) error {
	return c.call(ctx, "Revoke", revokeRequest{node, name}, new(struct{}))
}

// Rotate lets a new authority sign from now on.
func (c *Client) Rotate(ctx context.Context) error {
	return c.call(ctx, "Rotate", struct{}{}, new(struct{}))
}

// FinishRotation removes the old authority now.
func (c *Client) FinishRotation(ctx context.Context) error {
	return c.call(ctx, "FinishRotation", struct{}{}, new(struct{}))
}

// Rotation says how far the replacement of the authority is.
func (c *Client) Rotation(ctx context.Context) (r Rotation, err error) {
	err = c.call(ctx, "Rotation", struct{}{}, &r)
	return r, err
}
