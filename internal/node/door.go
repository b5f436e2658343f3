package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"dos/internal/admin"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/state"
)

// executor is admin.Meta over a Sender: requests are state.Command, replies carried.
type executor struct{ client.Sender }

// carried is a reply, or why there is none.
type carried struct {
	Reply state.Reply `cbor:"1,keyasint,omitempty"`
	Kind  meta.Kind   `cbor:"2,keyasint,omitempty"`
	Text  string      `cbor:"3,keyasint,omitempty"`
}

func (e executor) Execute(ctx context.Context, request []byte) ([]byte, error) {
	var cmd state.Command
	if err := state.Unmarshal(request, &cmd); err != nil {
		return nil, fmt.Errorf("the request does not decode: %w", meta.Invalid)
	}
	var c carried
	var err error
	if c.Reply, err = e.Do(ctx, cmd); err != nil {
		if !errors.As(err, &c.Kind) {
			return nil, err
		}
		c.Text = err.Error()
	}
	return state.Marshal(c), nil
}

// door is a Sender to the dos behind a socket.
type door struct{ *admin.Client }

func (d door) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	answer, err := d.Execute(ctx, state.Marshal(cmd))
	if err != nil {
		return state.Reply{}, err
	}
	var c carried
	if err := state.Unmarshal(answer, &c); err != nil {
		return state.Reply{}, fmt.Errorf("the answer does not decode: %w", meta.Invalid)
	}
	if c.Kind != 0 {
		return state.Reply{}, fmt.Errorf("%s: %w", c.Text, c.Kind)
	}
	return c.Reply, nil
}

// A Guest is a session with a dos without a mount, kept until it is closed.
type Guest struct {
	*client.Visit
	leave func() // ends the keeping
	close func()
}

// Visit opens a session with the dos that runs on the directory data or, if that is
// empty, with a cluster. Whoever calls it closes it.
func Visit(ctx context.Context, data string, cluster []string, identity string) (*Guest, error) {
	g := &Guest{close: func() {}}
	var sender client.Sender
	if data != "" {
		sock, err := Socket(ctx, data)
		if err != nil {
			return nil, err
		}
		sender = door{admin.Dial(sock)}
	} else {
		_, service, err := dialAs(identity, cluster)
		if err != nil {
			return nil, err
		}
		sender, g.close = service.Client, service.close
	}
	host, err := os.Hostname()
	if err == nil {
		g.Visit, err = client.NewVisit(ctx, sender, "dosctl", host)
	}
	if err != nil {
		g.close()
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		_ = g.Run(running, func() {}) // what is asked after the session's end fails
		close(done)
	}()
	g.leave = func() { stop(); <-done }
	return g, nil
}

// Close ends the session.
func (g *Guest) Close(ctx context.Context) error {
	defer g.close()
	g.leave()
	return g.End(ctx)
}
