package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"dos/internal/admin"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/session"
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

// A Guest is a session with a dos without a mount.
type Guest struct {
	*client.Remote
	sender client.Sender
	close  func()
}

// guestTTL is how long the session outlives a program that was killed. It is not
// renewed: what a Guest does in it must take less.
const guestTTL = time.Minute

// Visit opens a session with the dos that runs on the directory data or, if that is
// empty, with a cluster. Whoever calls it closes it.
func Visit(ctx context.Context, data string, cluster []string, identity string) (*Guest, error) {
	g := &Guest{close: func() {}}
	if data != "" {
		sock, err := Socket(ctx, data)
		if err != nil {
			return nil, err
		}
		g.sender = door{admin.Dial(sock)}
	} else {
		_, service, err := dialAs(identity, cluster)
		if err != nil {
			return nil, err
		}
		g.sender, g.close = service.Client, service.close
	}
	host, err := os.Hostname()
	if err != nil {
		g.close()
		return nil, err
	}
	var info session.Info
	if info, err = (client.Session{Caller: client.Direct(g.sender, 0)}).Open(ctx, "dosctl", host, guestTTL); err != nil {
		g.close()
		return nil, err
	}
	g.Remote = client.NewRemote(g.sender, info.ID)
	return g, nil
}

// Close ends the session.
func (g *Guest) Close(ctx context.Context) error {
	defer g.close()
	return client.Session{Caller: client.Direct(g.sender, 0)}.End(ctx, g.Session())
}
