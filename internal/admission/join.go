package admission

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"dos/internal/trust"
	"dos/meta"
	metatrust "dos/meta/trust"
)

// joiners bounds those that are served at once; further ones are sent away, so that
// they keep nobody else from the port. Joining is rare, and anybody may try.
const joiners = 64

// Serve answers joiners, the connections of trust.JoinProto, until ctx ends or l
// is closed. It closes l.
func (o *Office) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() }) //nolint:errcheck // Accept says so
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, joiners)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("admission: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close() //nolint:errcheck // nobody was served
			o.cfg.Log.Warn("admission: too many join at once, one was sent away", "from", conn.RemoteAddr().String())
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			o.serve(ctx, conn)
		})
	}
}

// serve answers one joiner and says in one line what became of it.
func (o *Office) serve(ctx context.Context, conn net.Conn) {
	from := conn.RemoteAddr().String()
	var wish trust.Wish
	err := trust.ServeJoin(ctx, conn, func(ctx context.Context, w trust.Wish) (trust.Grant, error) {
		wish = w
		return o.Admit(ctx, w)
	})
	var no refusal
	switch {
	case errors.As(err, &no):
		o.cfg.Log.Warn("admission: a joiner was refused", "from", from, "name", short(wish.Name), "node", wish.Node, "why", no.told, "err", no.why)
	case err != nil:
		o.cfg.Log.Warn("admission: a joiner was not served", "from", from, "name", short(wish.Name), "err", err)
	default:
		o.cfg.Log.Info("admission: joined", "from", from, "name", wish.Name, "node", wish.Node)
	}
}

// short is as much of a stranger's text as belongs in a log.
func short(text string) string { return text[:min(len(text), trust.NameMax)] }

// A refusal is an error of which the joiner is told a part.
type refusal struct {
	told string
	why  error // for the log; may be nil
}

func (r refusal) Error() string { return r.told }
func (r refusal) Unwrap() error { return r.why }

func refuse(why error, format string, args ...any) error {
	return refusal{fmt.Sprintf(format, args...), why}
}

const (
	// catchUp is how long a joiner with a good token waits for a member that has only just
	// begun and does not know the authority yet: it has the rows within moments.
	catchUp = 5 * time.Second
	// catchUpEvery is the pause between two looks.
	catchUpEvery = 50 * time.Millisecond
)

// sign is sign once this member knows the authority.
func (o *Office) sign(ctx context.Context, csr []byte, id trust.Identity) (signed, error) {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for {
		s, err := sign(o.cfg.Member, csr, id)
		if !errors.Is(err, meta.Unavailable) {
			return s, err
		}
		select {
		case <-time.After(catchUpEvery):
		case <-ctx.Done():
			return s, err
		}
	}
}

// Admit decides about a joiner. Before the secret is right, its error says
// nothing about the cluster.
func (o *Office) Admit(ctx context.Context, w trust.Wish) (trust.Grant, error) {
	if err := trust.CheckName(w.Name); err != nil {
		return trust.Grant{}, refuse(nil, "%v", err)
	}
	t, err := o.cluster.Token(ctx, trust.HashSecret(w.Secret))
	switch {
	case errors.Is(err, meta.NotExist):
		return trust.Grant{}, refuse(nil, "the token is not known here: it was mistyped, taken back, or has been over for long")
	case err != nil:
		return trust.Grant{}, refuse(err, "this cannot be decided now, try again later")
	}
	if err := mayUse(t, w); err != nil {
		return trust.Grant{}, err
	}
	id := trust.Identity{Cluster: o.cfg.Keys.Self().Cluster, Name: w.Name, Rights: trust.Rights(t.Rights)}
	cert, err := o.sign(ctx, w.CSR, id)
	switch {
	case errors.Is(err, trust.ErrRefused):
		return trust.Grant{}, refuse(err, "the certificate request is not good")
	case err != nil:
		return trust.Grant{}, refuse(err, "there is no certificate to be had now, try again later")
	}
	err = o.cluster.Join(ctx, metatrust.Join{Hash: t.Hash, Node: w.Node, Name: w.Name, Rights: t.Rights, Cert: cert.record})
	if err != nil {
		return trust.Grant{}, o.notJoined(ctx, err, w)
	}
	grant, err := o.grant(ctx, cert.pem)
	if err != nil {
		return trust.Grant{}, refuse(err, "admitted, but the cluster could not be asked whom to trust; the token is used up")
	}
	return grant, nil
}

// mayUse says whether a token is good for a joiner.
func mayUse(t metatrust.Token, w trust.Wish) error {
	switch {
	case t.Used != 0:
		return refuse(fmt.Errorf("it was used by %s at %s", t.By, utc(t.Used)), "the token was used already; each is good for one join: make another")
	case t.Expires <= meta.At(time.Now()):
		return refuse(nil, "the token was good until %s: make another", utc(t.Expires))
	case t.Node && !w.Node:
		return refuse(nil, "the token is for a machine (dosd), not for a client")
	case !t.Node && w.Node:
		return refuse(nil, "the token is for a client (dosctl login), not for a machine")
	case t.Name != "" && t.Name != w.Name:
		if !w.Node {
			return refuse(nil, "the token is for the name %s, not for %s: dosctl login TOKEN --name %s", t.Name, w.Name, t.Name)
		}
		return refuse(nil, "the token is for the name %s, not for %s: dosd … --name %s", t.Name, w.Name, t.Name)
	}
	return nil
}

func utc(t meta.Time) string { return t.Std().UTC().Format(time.RFC3339) }

// notJoined says why the command that would have admitted a joiner did not.
func (o *Office) notJoined(ctx context.Context, err error, w trust.Wish) error {
	switch {
	case errors.Is(err, meta.Exist):
		what := "client"
		if w.Node {
			what = "machine"
		}
		return refuse(err, "another %s has the name %s: choose another name, or have that one revoked; the token is good still", what, w.Name)
	case errors.Is(err, meta.Conflict), errors.Is(err, meta.Expired), errors.Is(err, meta.NotExist):
		// Somebody else was first since we looked.
		if t, again := o.cluster.Token(ctx, trust.HashSecret(w.Secret)); again == nil && mayUse(t, w) != nil {
			return mayUse(t, w)
		}
		return refuse(err, "the token was used, or taken back, a moment ago")
	}
	return refuse(err, "the cluster did not answer; try again, and if the token is refused then it is used up: have the name revoked and make another")
}
