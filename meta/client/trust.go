package client

import (
	"context"

	"dos/meta/trust"
)

// Trust are the calls about who may take part.
type Trust struct{ Caller Caller }

// SetAuthorities changes what is trusted. It must be asked in the process of
// the member that leads.
func (t Trust) SetAuthorities(ctx context.Context, to trust.SetAuthorities) error {
	return t.Caller.Call(ctx, trust.OpSetAuthorities, to, nil)
}

// Authorities says whom to trust, or only the epoch if that is the one given.
func (t Trust) Authorities(ctx context.Context, since uint64) (a trust.Authorities, err error) {
	err = t.Caller.Call(ctx, trust.OpAuthorities, trust.Since{Epoch: since}, &a)
	return a, err
}

// PutToken lets somebody join.
func (t Trust) PutToken(ctx context.Context, token trust.Token) error {
	return t.Caller.Call(ctx, trust.OpPutToken, token, nil)
}

// DeleteToken takes a token back.
func (t Trust) DeleteToken(ctx context.Context, hash string) error {
	return t.Caller.Call(ctx, trust.OpDeleteToken, trust.Hashed{Hash: hash}, nil)
}

// Token returns the token of a hash.
func (t Trust) Token(ctx context.Context, hash string) (token trust.Token, err error) {
	err = t.Caller.Call(ctx, trust.OpToken, trust.Hashed{Hash: hash}, &token)
	return token, err
}

// Tokens returns all tokens.
func (t Trust) Tokens(ctx context.Context) ([]trust.Token, error) {
	var reply trust.Tokens
	err := t.Caller.Call(ctx, trust.OpTokens, struct{}{}, &reply)
	return reply.Tokens, err
}

// Join admits a machine or a client.
func (t Trust) Join(ctx context.Context, join trust.Join) error {
	return t.Caller.Call(ctx, trust.OpJoin, join, nil)
}

// Renew adds a certificate to those of an identity.
func (t Trust) Renew(ctx context.Context, renew trust.Renew) error {
	return t.Caller.Call(ctx, trust.OpRenew, renew, nil)
}

// Confirm says that an identity has a certificate and uses it.
func (t Trust) Confirm(ctx context.Context, node bool, name, serial string) error {
	return t.Caller.Call(ctx, trust.OpConfirm, trust.Confirm{Node: node, Name: name, Serial: serial}, nil)
}

// Revoke turns a machine or a client out.
func (t Trust) Revoke(ctx context.Context, node bool, name string) error {
	return t.Caller.Call(ctx, trust.OpRevoke, trust.Named{Node: node, Name: name}, nil)
}

// Prune removes what is over by time.
func (t Trust) Prune(ctx context.Context) error {
	var after string
	for {
		var reply trust.Pruned
		if err := t.Caller.Call(ctx, trust.OpPrune, trust.Prune{After: after}, &reply); err != nil || !reply.More {
			return err
		}
		after = reply.After
	}
}

// Identities returns all machines and clients that were admitted.
func (t Trust) Identities(ctx context.Context) (list []trust.Identity, err error) {
	var after *trust.Named
	for {
		var reply trust.Identities
		if err := t.Caller.Call(ctx, trust.OpIdentities, trust.List{After: after}, &reply); err != nil {
			return nil, err
		}
		list = append(list, reply.Identities...)
		if !reply.More || len(reply.Identities) == 0 {
			return list, nil
		}
		last := list[len(list)-1]
		after = &trust.Named{Node: last.Node, Name: last.Name}
	}
}
