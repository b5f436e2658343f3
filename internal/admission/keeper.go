package admission

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"dos/internal/trust"
	metatrust "dos/meta/trust"
)

// A Renewer gives certificates to an identity that has one: Office.Own on a machine
// with a metadata member, a Client elsewhere.
type Renewer interface {
	Renew(ctx context.Context, csr []byte) (trust.Grant, error)
	Confirm(ctx context.Context, serial string) error
}

// KeeperConfig says what a Keeper works with. All of it is required but what says otherwise.
type KeeperConfig struct {
	Keys *trust.Keyring
	// Path is the file of the identity; it is written again when anything changes.
	Path string
	// Authorities says whom to trust if that has changed since an epoch
	// (meta/client.Trust.Authorities).
	Authorities func(ctx context.Context, since uint64) (metatrust.Authorities, error)
	Renewer     Renewer
	// Drop closes connections that were admitted here (rpc.Port.Drop); optional.
	Drop func(is func(tls.ConnectionState) bool)
	// Doubt is called after each look that failed, or found that this identity was
	// revoked: the others may refuse it. Without it the log says so. Optional.
	Doubt func(ctx context.Context)
	Every time.Duration // the pause between two looks; a second
	Log   *slog.Logger  // slog.Default()
}

const (
	keeperEvery = time.Second
	// askWait bounds the wait for one answer.
	askWait = 10 * time.Second
	// cutLooks is for how many looks after an authority was cut off connections are
	// looked at from the ground up: some may have been shaking hands just then.
	cutLooks = 10
	// quiet is how long looks may fail before the log says so: elections take a moment.
	quiet = 10 * time.Second
)

// A Keeper looks after the identity of a process: whom it trusts, what it shows,
// and the file that both are kept in. Run or Look is called by one goroutine.
type Keeper struct {
	cfg     KeeperConfig
	now     metatrust.Authorities // as last heard, without the certificates
	cut     int                   // looks for which connections are checked wholly
	unsaved bool
	tell    string // the serial number that is to be confirmed; empty: none
}

// NewKeeper returns a Keeper.
func NewKeeper(c KeeperConfig) *Keeper {
	if c.Every == 0 {
		c.Every = keeperEvery
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Keeper{cfg: c, tell: c.Keys.Serial()}
}

// Run looks again and again until ctx ends. It returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.cfg.Every)
	defer tick.Stop()
	well, told := time.Now(), false
	for {
		err := k.Look(ctx)
		if k.cfg.Doubt != nil && (err != nil || k.cfg.Keys.Revoked()) {
			k.cfg.Doubt(ctx)
		}
		switch {
		case err == nil:
			if told {
				k.cfg.Log.Info("admission: this identity is up to date again")
			}
			well, told = time.Now(), false
		case !told && ctx.Err() == nil && time.Since(well) > quiet:
			told = true
			k.cfg.Log.Warn("admission: this identity is not up to date; trying on", "identity", k.cfg.Keys.Self().String(), "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Look asks once whom to trust, closes the connections of those who are turned out,
// and renews the certificate if it is time.
func (k *Keeper) Look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	heard := k.hear(ctx)
	k.drop() // also when nobody answers: what was heard last holds
	if heard != nil {
		return heard
	}
	if err := k.renew(ctx); err != nil {
		return err
	}
	if k.unsaved {
		text, err := k.cfg.Keys.Credentials()
		if err != nil {
			return err
		}
		if err := trust.Save(k.cfg.Path, text); err != nil {
			return fmt.Errorf("keeping the identity: %w", err)
		}
		k.unsaved = false
	}
	if k.tell != "" {
		if err := k.cfg.Renewer.Confirm(ctx, k.tell); err != nil {
			return fmt.Errorf("confirming the certificate: %w", err)
		}
		k.tell = ""
	}
	return nil
}

// hear learns whom to trust.
func (k *Keeper) hear(ctx context.Context) error {
	now, err := k.cfg.Authorities(ctx, k.now.Epoch)
	switch {
	case err != nil:
		return fmt.Errorf("asking whom to trust: %w", err)
	case now.Epoch == k.now.Epoch:
		return nil
	}
	if err := k.cfg.Keys.Trust(now.Certs, now.Revoked); err != nil {
		return err
	}
	if k.cfg.Doubt == nil && k.cfg.Keys.Revoked() {
		k.cfg.Log.Error("admission: this identity was revoked: join again with a new token", "identity", k.cfg.Keys.Self().String())
	}
	now.Certs = nil
	k.now, k.unsaved = now, true
	if now.Cut {
		k.cut = cutLooks
	}
	return nil
}

// drop closes the connections of those who would not be admitted any more.
func (k *Keeper) drop() {
	if k.cfg.Drop == nil || len(k.now.Revoked) == 0 && k.cut == 0 {
		return
	}
	check := k.cfg.Keys.Admitted
	if k.cut > 0 {
		k.cut--
		check = k.cfg.Keys.Peer
	}
	k.cfg.Drop(func(cs tls.ConnectionState) bool {
		if cs.NegotiatedProtocol == trust.JoinProto || cs.NegotiatedProtocol == trust.StandingProto {
			return false
		}
		_, err := check(cs)
		return err != nil
	})
}

// renew gets another certificate if the one there is is old, or of an authority
// that does not sign any more.
func (k *Keeper) renew(ctx context.Context) error {
	if k.now.Epoch == 0 || !k.cfg.Keys.Due(time.Now()) && k.cfg.Keys.Issuer() == k.now.Signs {
		return nil
	}
	req, err := trust.NewRequest()
	if err != nil {
		return err
	}
	grant, err := k.cfg.Renewer.Renew(ctx, req.CSR)
	if err != nil {
		return fmt.Errorf("renewing the certificate: %w", err)
	}
	text, err := req.Credentials(grant.Cert, grant.Authorities)
	if err != nil {
		return err
	}
	if err := k.cfg.Keys.Replace(text); err != nil {
		return fmt.Errorf("renewing the certificate: %w", err)
	}
	k.unsaved, k.tell = true, k.cfg.Keys.Serial()
	k.cfg.Log.Info("admission: the certificate was renewed")
	return nil
}
