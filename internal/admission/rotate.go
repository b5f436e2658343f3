package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dos/internal/trust"
	"dos/meta"
	metatrust "dos/meta/trust"
)

// Rotate makes an authority and lets it sign from now on. It must be asked of the
// member that leads, else it is meta.Unavailable: the key does not travel.
func (o *Office) Rotate(ctx context.Context) error {
	now, err := o.member.Authorities(ctx, 0)
	if err != nil {
		return err
	}
	roots, err := trust.Roots(now.Certs)
	if err != nil {
		return err
	}
	if len(roots) != 1 {
		return fmt.Errorf("the authority is being replaced already: %w", meta.Busy)
	}
	old, err := signer(o.cfg.Member)
	if err != nil {
		return err
	}
	next, err := trust.NewAuthority(o.cfg.Keys.Self().Cluster)
	if err != nil {
		return err
	}
	voucher, err := old.Vouch(next)
	if err != nil {
		return err
	}
	secret, err := next.PEM()
	if err != nil {
		return err
	}
	err = o.member.SetAuthorities(ctx, metatrust.SetAuthorities{
		Epoch: now.Epoch, Certs: slices.Concat(next.CertPEM(), old.CertPEM(), voucher), Signer: secret, Signs: next.Hash(),
	})
	if err == nil {
		o.cfg.Log.Warn("admission: a new authority signs from now on; certificates are being renewed", "authority", next.Hash())
	}
	return err
}

// Rotation says how far the replacement of the authority is.
type Rotation struct {
	Underway bool     `cbor:"1,keyasint,omitempty"`
	Waiting  []string `cbor:"2,keyasint,omitempty"` // who has not renewed yet, at most waitingMax
	More     int      `cbor:"3,keyasint,omitempty"` // how many more
}

const waitingMax = 100

// Rotation says how far the replacement of the authority is.
func (o *Office) Rotation(ctx context.Context) (Rotation, error) {
	now, err := o.cluster.Authorities(ctx, 0)
	if err != nil {
		return Rotation{}, err
	}
	roots, err := trust.Roots(now.Certs)
	if err != nil || len(roots) < 2 {
		return Rotation{}, err
	}
	late, err := o.late(ctx, now, kept)
	if err != nil {
		return Rotation{}, err
	}
	r := Rotation{Underway: true}
	for _, id := range late[:min(len(late), waitingMax)] {
		r.Waiting = append(r.Waiting, identity(id).String())
	}
	r.More = len(late) - len(r.Waiting)
	return r, nil
}

func identity(id metatrust.Identity) trust.Identity {
	return trust.Identity{Name: id.Name, Rights: trust.Rights(id.Rights)}
}

// given says that an identity was given a certificate of the authority that signs.
func given(id metatrust.Identity, signs string) bool {
	return slices.ContainsFunc(id.Certs, func(c metatrust.Cert) bool { return c.Issuer == signs })
}

// kept says that it has confirmed that it has it, too.
func kept(id metatrust.Identity, signs string) bool {
	return slices.ContainsFunc(id.Certs, func(c metatrust.Cert) bool { return c.Issuer == signs && c.Serial == id.InUse })
}

// late returns who has not renewed yet, and may still come.
func (o *Office) late(ctx context.Context, now metatrust.Authorities, renewed func(id metatrust.Identity, signs string) bool) ([]metatrust.Identity, error) {
	all, err := o.cluster.Identities(ctx)
	if err != nil {
		return nil, err
	}
	over := meta.At(time.Now())
	return slices.DeleteFunc(all, func(id metatrust.Identity) bool {
		good := slices.ContainsFunc(id.Certs, func(c metatrust.Cert) bool { return c.Until > over })
		return !good || renewed(id, now.Signs)
	}), nil
}

// FinishRotation removes the old authority now, and turns out who has not renewed,
// connections that are open included: for one whose key others may have.
func (o *Office) FinishRotation(ctx context.Context) error {
	now, err := o.member.Authorities(ctx, 0)
	if err != nil {
		return err
	}
	if o.cfg.Keys.Issuer() != now.Signs {
		return fmt.Errorf("%v has not renewed its own certificate yet; try again in a moment: %w", o.cfg.Keys.Self(), meta.Unavailable)
	}
	late, err := o.late(ctx, now, given)
	if err != nil {
		return err
	}
	for _, id := range late {
		if err := o.Revoke(ctx, id.Node, id.Name); err != nil && !errors.Is(err, meta.NotExist) {
			return err
		}
	}
	if now, err = o.member.Authorities(ctx, 0); err != nil {
		return err
	}
	return o.retire(ctx, now, true)
}

// retire removes all authorities but the one that signs.
func (o *Office) retire(ctx context.Context, now metatrust.Authorities, cut bool) error {
	ca, err := signer(o.cfg.Member)
	if err != nil {
		return err
	}
	secret, err := ca.PEM()
	if err != nil {
		return err
	}
	if ca.Hash() != now.Signs {
		return fmt.Errorf("the authority that signs is not known here yet: %w", meta.Unavailable)
	}
	err = o.member.SetAuthorities(ctx, metatrust.SetAuthorities{Epoch: now.Epoch, Certs: ca.CertPEM(), Signer: secret, Signs: now.Signs, Cut: cut})
	if err == nil {
		o.cfg.Log.Warn("admission: the old authority is removed", "authority", now.Signs)
	}
	return err
}

const (
	settleEvery = 2 * time.Second
	pruneEvery  = 10 * time.Minute
)

// Run does, on the member that leads, what is left to be done: it ends a rotation
// when everybody has renewed, and removes from the records what is over. It
// returns nil when ctx ends.
func (o *Office) Run(ctx context.Context) error {
	settle, prune := time.NewTicker(settleEvery), time.NewTicker(pruneEvery)
	defer settle.Stop()
	defer prune.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-settle.C:
			err = o.settle(ctx)
		case <-prune.C:
			err = o.member.Prune(ctx)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, meta.Unavailable) && !errors.Is(err, meta.Conflict) {
			o.cfg.Log.Warn("admission: will be tried again", "err", err)
		}
	}
}

// settle ends a rotation when everybody has renewed.
func (o *Office) settle(ctx context.Context) error {
	var now metatrust.Authorities
	if err := o.cfg.Member.Local(metatrust.OpAuthorities, metatrust.Since{}, &now); err != nil {
		return err
	}
	if roots, err := trust.Roots(now.Certs); err != nil || len(roots) < 2 {
		return err
	}
	now, err := o.member.Authorities(ctx, 0) // unavailable where nobody leads
	if err != nil {
		return err
	}
	if late, err := o.late(ctx, now, kept); err != nil || len(late) > 0 {
		return err
	}
	return o.retire(ctx, now, false)
}
