package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"dos/internal/admission"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// said adds to a machine what is said of it.
func said(n *nodes.Node, known members.Node) {
	n.Labels, n.Weight, n.Draining, n.Held = known.AllLabels(), known.Share(), known.Drain, known.Hold
	switch {
	case known.Drain:
		n.Why = known.Why
	case known.Hold:
		n.Why = known.HoldWhy
	}
}

// A nodesAdmin does what an administrator may do in /dos/nodes; it implements
// nodes.Admin.
type nodesAdmin struct {
	members client.Members
	trust   client.Trust
	// office makes tokens; nil with an embedded cluster.
	office tokens
	remove func(ctx context.Context, name string) error
	// refresh has the mount see what was changed.
	refresh func(ctx context.Context) error
}

func (a nodesAdmin) Change(ctx context.Context, node string, c nodes.Change) error {
	err := a.members.SetNode(ctx, members.SetNode{Node: node, Label: c.Label, Value: c.Value, Weight: c.Weight, Hold: c.Hold, HoldWhy: c.Why})
	if err != nil {
		return err
	}
	return a.refresh(ctx)
}

func (a nodesAdmin) Drain(ctx context.Context, node, why string, on bool) error {
	if why == "" {
		why = administratorSaid
	}
	if err := a.members.Drain(ctx, members.Drain{Node: node, On: on, Why: why}); err != nil {
		return err
	}
	return a.refresh(ctx)
}

// administratorSaid is why something is done for which an administrator gave no reason.
const administratorSaid = "the administrator said so"

func (a nodesAdmin) Remove(ctx context.Context, node string) error { return a.remove(ctx, node) }

var errOneMachine = fmt.Errorf("an embedded cluster is one machine; dosd --bootstrap on its directory makes it one that others can join: %w", meta.Unsupported)

func (a nodesAdmin) Token(ctx context.Context, name string) (string, error) {
	if a.office == nil {
		return "", errOneMachine
	}
	return a.office.CreateToken(ctx, admission.TokenWish{Name: name, Rights: trust.Member})
}

// joinedEvery is the pause between two looks whether a token was used.
const joinedEvery = 500 * time.Millisecond

func (a nodesAdmin) Joined(ctx context.Context, text string) (string, error) {
	if a.office == nil {
		return "", errOneMachine
	}
	token, err := trust.ParseToken(text)
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, meta.Invalid)
	}
	tick := time.NewTicker(joinedEvery)
	defer tick.Stop()
	for {
		t, err := a.trust.Token(ctx, trust.HashSecret(token.Secret))
		switch {
		case errors.Is(err, meta.NotExist):
			return "", fmt.Errorf("the token is not known: %w", err)
		case err != nil:
			return "", err
		case !t.Node:
			return "", fmt.Errorf("the token is for a client, not for a machine: %w", meta.Invalid)
		case t.Used != 0:
			return t.By, nil
		case t.Expires <= meta.At(time.Now()):
			return "", fmt.Errorf("the token was good until %s: %w", t.Expires.Std().UTC().Format(time.RFC3339), meta.TimedOut)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// settings are the cluster's; they implement cluster.Settings.
type settings struct {
	members client.Members
	now     *lastMap
}

func (s settings) Settings(ctx context.Context) ([]cluster.Setting, error) {
	now, err := s.now.get(ctx)
	if err != nil {
		return nil, err
	}
	var list []cluster.Setting
	for _, known := range members.Settings {
		list = append(list, cluster.Setting{Name: known.Name, Value: now.Setting(known.Name)})
	}
	return list, nil
}

func (s settings) Configure(ctx context.Context, name, value string) error {
	return s.members.Configure(ctx, name, value)
}

// locksText are the locks that are held through a mount.
func locksText(k *client.Named) string {
	var b strings.Builder
	for _, h := range k.Holdings() {
		mode := "exclusive"
		if h.Shared {
			mode = "shared"
		}
		fmt.Fprintf(&b, "%s %d %s node %s pid %d uid %d cmd %s\n", h.Name, h.Token, mode, h.Who.Node, h.Who.PID, h.Who.UID, h.Who.Cmd)
	}
	return b.String()
}

// A lastMap is the map of the cluster, which is read anew only when it has changed.
type lastMap struct {
	members client.Members

	mu   sync.Mutex
	last members.Map // guarded by mu
}

func (l *lastMap) get(ctx context.Context) (members.Map, error) {
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	now, err := l.members.Map(ctx, last.Epoch)
	if err != nil || now.Epoch == last.Epoch {
		return last, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = now
	return now, nil
}
