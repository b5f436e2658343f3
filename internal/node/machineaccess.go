package node

import (
	"context"
	"errors"
	"fmt"

	"dos/internal/admin"
	"dos/internal/admission"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/client"
)

// machineAccess is what dosctl can ask of a machine about who may take part; it
// implements admin.Access. What needs the authority's key is done by the
// machines with metadata.
type machineAccess struct{ m *Machine }

// tokens let machines and clients join.
type tokens interface {
	CreateToken(ctx context.Context, w admission.TokenWish) (string, error)
}

// An office has the authority's key; those of this and of other machines are alike.
type office interface {
	tokens
	Revoke(ctx context.Context, node bool, name string) error
	Rotate(ctx context.Context) error
	Rotation(ctx context.Context) (admission.Rotation, error)
	FinishRotation(ctx context.Context) error
}

// office has this machine do something, or else one of the others that can.
func (a machineAccess) office(do func(office) error) error {
	var own error
	if a.m.office != nil {
		if own = do(a.m.office); !errors.Is(own, meta.Unavailable) {
			return own
		}
	}
	if err := do(admission.NewClient(officesOf(a.m.fleet))); err != nil {
		if own != nil && errors.Is(err, meta.Unavailable) {
			err = fmt.Errorf("here: %w; elsewhere: %w", own, err)
		}
		return err
	}
	return nil
}

func (a machineAccess) records() client.Trust { return client.Trust{Caller: a.m.service.anyone()} }

func (a machineAccess) CreateToken(ctx context.Context, w admin.Wish) (string, error) {
	if w.Password {
		return passwordTokens{a.records()}.create(ctx, w)
	}
	rights := trust.Member
	if !w.Node {
		var err error
		if rights, err = trust.ParseRights(w.Rights); err != nil {
			return "", fmt.Errorf("%w: %w", err, meta.Invalid)
		}
	}
	return a.createToken(ctx, admission.TokenWish{Name: w.Name, Rights: rights, Life: w.Life})
}

func (a machineAccess) createToken(ctx context.Context, w admission.TokenWish) (token string, err error) {
	err = a.office(func(o office) (err error) {
		token, err = o.CreateToken(ctx, w)
		return err
	})
	return token, err
}

func (a machineAccess) Tokens(ctx context.Context) ([]admin.Token, error) {
	return listTokens(ctx, a.records())
}

func (a machineAccess) DeleteToken(ctx context.Context, hash string) error {
	return deleteToken(ctx, a.records(), hash)
}

func (a machineAccess) Identities(ctx context.Context) ([]admin.Identity, error) {
	known, err := a.records().Identities(ctx)
	if err != nil {
		return nil, err
	}
	list := []admin.Identity{}
	for _, id := range known {
		row := admin.Identity{Kind: kindOf(id.Node), Name: id.Name, Rights: trust.Rights(id.Rights).String(), Serial: id.InUse}
		for _, c := range id.Certs {
			if c.Serial == id.InUse {
				row.Until = c.Until
			}
		}
		list = append(list, row)
	}
	return list, nil
}

func kindOf(node bool) string {
	if node {
		return "machine"
	}
	return "client"
}

func (a machineAccess) Revoke(ctx context.Context, node bool, name string) error {
	return a.office(func(o office) error { return o.Revoke(ctx, node, name) })
}

func (a machineAccess) Rotate(ctx context.Context) error {
	return a.office(func(o office) error { return o.Rotate(ctx) })
}

func (a machineAccess) Retire(ctx context.Context) error {
	return a.office(func(o office) error { return o.FinishRotation(ctx) })
}

func (a machineAccess) Rotation(ctx context.Context) (admin.Rotation, error) {
	var r admission.Rotation
	err := a.office(func(o office) (err error) {
		r, err = o.Rotation(ctx)
		return err
	})
	return admin.Rotation(r), err
}
