package trust

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

const tokens = "5t"

func tokenKey(hash string) []byte { return []byte(tokens + hash) }

func putToken(tx *state.Tx, req Token) (struct{}, error) {
	if err := check(req.Hash); err != nil {
		return struct{}{}, err
	}
	now := meta.At(tx.Now)
	switch {
	case len(req.Name) > NameMax || req.Rights == 0 || req.Password && req.Node || req.Used != 0 || req.By != "" || req.Serial != "":
		return struct{}{}, fmt.Errorf("token for %.40q: %w", req.Name, meta.Invalid)
	case req.Expires <= now:
		return struct{}{}, fmt.Errorf("a token that is over already: %w", meta.Invalid)
	}
	if old, ok := get[Token](tx, tokenKey(req.Hash)); ok && old != req {
		return struct{}{}, meta.Exist
	}
	if n := len(rows[Token](tx, tokens, TokensMax)); n == TokensMax {
		return struct{}{}, fmt.Errorf("%d tokens are kept until they are over: %w", n, meta.Quota)
	}
	tx.Set(tokenKey(req.Hash), state.Marshal(req))
	return struct{}{}, nil
}

func deleteToken(tx *state.Tx, req Hashed) (struct{}, error) {
	if err := check(req.Hash); err != nil {
		return struct{}{}, err
	}
	tx.Delete(tokenKey(req.Hash))
	return struct{}{}, nil
}

// use uses up the token that a joiner shows.
func use(tx *state.Tx, req Join) error {
	t, ok := get[Token](tx, tokenKey(req.Hash))
	now := meta.At(tx.Now)
	switch {
	case !ok:
		return fmt.Errorf("no such token: %w", meta.NotExist)
	case t.Used != 0:
		return fmt.Errorf("the token was used by %s: %w", t.By, meta.Conflict)
	case t.Expires <= now:
		return fmt.Errorf("the token is over: %w", meta.Expired)
	case t.Password:
		return fmt.Errorf("it is a password, not a token to join with: %w", meta.Permission)
	case t.Node != req.Node || t.Rights != req.Rights:
		return fmt.Errorf("the token is for a %s: %w", kindText(t.Node), meta.Permission)
	case t.Name != "" && t.Name != req.Name:
		return fmt.Errorf("the token is for %s, not for %s: %w", t.Name, req.Name, meta.Permission)
	}
	t.Used, t.By, t.Serial = now, req.Name, req.Cert.Serial
	tx.Set(tokenKey(req.Hash), state.Marshal(t))
	return nil
}

func kindText(node bool) string {
	if node {
		return "machine"
	}
	return "client"
}
