package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dos/internal/admin"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/client"
	metatrust "dos/meta/trust"
)

// passwordTokens are those with which programs use the ports of other protocols. They
// are random, so what is kept of them is a hash. It implements gateway/passwords.Records.
type passwordTokens struct{ records client.Trust }

const (
	passwordLife    = 365 * 24 * time.Hour
	passwordLifeMax = 10 * passwordLife
)

func (p passwordTokens) create(ctx context.Context, w admin.Wish) (string, error) {
	rights, err := trust.ParseRights(w.Rights)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", err, meta.Invalid)
	case w.Name != "" && trust.CheckName(w.Name) != nil:
		return "", fmt.Errorf("%w: %w", trust.CheckName(w.Name), meta.Invalid)
	case w.Life < 0 || w.Life > passwordLifeMax:
		return "", fmt.Errorf("a password for %v, at most %v: %w", w.Life, passwordLifeMax, meta.Invalid)
	case w.Life == 0:
		w.Life = passwordLife
	}
	secret := trust.NewToken("", "").Secret
	return secret, p.records.PutToken(ctx, metatrust.Token{
		Hash: trust.HashSecret(secret), Rights: uint8(rights), Name: w.Name, Password: true, Expires: meta.At(time.Now().Add(w.Life)),
	})
}

// Any says whether there are passwords.
func (p passwordTokens) Any(ctx context.Context) (bool, error) {
	list, err := p.records.Tokens(ctx)
	now := meta.At(time.Now())
	return slices.ContainsFunc(list, func(t metatrust.Token) bool { return t.Password && t.Expires > now }), err
}

// Check says what a password is good for, by its hash.
func (p passwordTokens) Check(ctx context.Context, hash string) (trust.Rights, error) {
	t, err := p.records.Token(ctx, hash)
	switch {
	case errors.Is(err, meta.NotExist):
		return trust.None, nil
	case err != nil:
		return trust.None, err
	case !t.Password || t.Expires <= meta.At(time.Now()):
		return trust.None, nil
	}
	return trust.Rights(t.Rights), nil
}

func listTokens(ctx context.Context, records client.Trust) ([]admin.Token, error) {
	known, err := records.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	list := []admin.Token{}
	for _, t := range known {
		kind := kindOf(t.Node)
		if t.Password {
			kind = "password"
		}
		list = append(list, admin.Token{
			Hash: t.Hash, Kind: kind, Rights: trust.Rights(t.Rights).String(), Name: t.Name,
			Expires: t.Expires, Used: t.Used, By: t.By,
		})
	}
	return list, nil
}

// deleteToken takes the beginning of a hash, if that says which.
func deleteToken(ctx context.Context, records client.Trust, hash string) error {
	known, err := records.Tokens(ctx)
	if err != nil {
		return err
	}
	known = slices.DeleteFunc(known, func(t metatrust.Token) bool { return !strings.HasPrefix(t.Hash, hash) })
	switch len(known) {
	case 0:
		return fmt.Errorf("no token %s: %w", hash, meta.NotExist)
	case 1:
		return records.DeleteToken(ctx, known[0].Hash)
	}
	return fmt.Errorf("%d tokens begin with %q: %w", len(known), hash, meta.Invalid)
}

// embeddedAccess is what dosctl can ask of an embedded cluster about who may take part:
// nobody joins it, so it has passwords alone. It implements admin.Access.
type embeddedAccess struct{ records client.Trust }

func (a embeddedAccess) CreateToken(ctx context.Context, w admin.Wish) (string, error) {
	if !w.Password {
		return "", errOneMachine
	}
	return passwordTokens(a).create(ctx, w)
}

func (a embeddedAccess) Tokens(ctx context.Context) ([]admin.Token, error) {
	return listTokens(ctx, a.records)
}

func (a embeddedAccess) DeleteToken(ctx context.Context, hash string) error {
	return deleteToken(ctx, a.records, hash)
}

func (embeddedAccess) Identities(context.Context) ([]admin.Identity, error) {
	return nil, errOneMachine
}
func (embeddedAccess) Revoke(context.Context, bool, string) error { return errOneMachine }
func (embeddedAccess) Rotate(context.Context) error               { return errOneMachine }
func (embeddedAccess) Retire(context.Context) error               { return errOneMachine }
func (embeddedAccess) Rotation(context.Context) (admin.Rotation, error) {
	return admin.Rotation{}, errOneMachine
}
