package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/internal/trust"
	"dos/meta"
)

const (
	// clientsMax is Redis' own default.
	clientsMax = 10_000
	// memoryMax bounds what all clients together have sent and not read, beyond the
	// little that each has always.
	memoryMax = 256 << 20
	// passwordsEvery is how soon it is noticed that there are passwords now.
	passwordsEvery = time.Second
)

// Passwords say who may come in.
type Passwords interface {
	// Any says whether there are passwords at all.
	Any(ctx context.Context) (bool, error)
	// Check says what the password with a hash (trust.HashSecret) is good for.
	Check(ctx context.Context, hash string) (trust.Rights, error)
}

// Config says what a Server serves. All of it is required but what says otherwise.
type Config struct {
	Listener net.Listener // closed when Run ends
	Strings  DB           // database 0
	Cache    DB           // database 1; nil: there is none
	Queues   Queues
	Feed     Feed
	Open     func(name, group, who string) Reader // reads messages of a group of a queue
	// Passwords may be nil: then there are none, and the address must be this machine's own.
	Passwords Passwords
	Node      string // this machine, by a name that no other has
	UID       uint32 // whose the lists are that are made
	Version   string
}

// A Server speaks the protocol on one address.
type Server struct {
	cfg      Config
	commands map[string]*command
	local    bool // only this machine reaches it
	lists    *lists
	hub      *hub
	library  library
	cursors  cursors
	memory   memory
	began    time.Time
	ids      atomic.Int64
	clients  atomic.Int64
	locked   atomic.Bool // a password is needed
}

// New returns a Server. Without a password one that others than this machine reach is
// meta.Permission.
func New(ctx context.Context, c Config) (*Server, error) {
	addr, _ := c.Listener.Addr().(*net.TCPAddr)
	s := &Server{
		cfg: c, commands: table(), local: addr != nil && addr.IP.IsLoopback(), began: time.Now(),
		lists: &lists{queues: c.Queues, uid: c.UID}, hub: newHub(c.Feed, c.Open, c.Node, c.UID),
	}
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	if s.needsPassword() && !s.locked.Load() {
		return nil, fmt.Errorf("--redis %s: without a password only an address of this machine alone (127.0.0.1); dosctl token create --password makes one: %w", addr, meta.Permission)
	}
	return s, nil
}

// look notes whether there are passwords.
func (s *Server) look(ctx context.Context) error {
	if s.cfg.Passwords == nil {
		return nil
	}
	any, err := s.cfg.Passwords.Any(ctx)
	if err == nil {
		s.locked.Store(any)
	}
	return err
}

// needsPassword says whether nobody gets in without one: so it stays, on an address
// that others reach, when the last one is deleted.
func (s *Server) needsPassword() bool { return !s.local || s.locked.Load() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.hub.run(ctx) })
	g.Go(func() error {
		for ctx.Err() == nil {
			if err := s.look(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, meta.Unavailable) {
				slog.Warn("redis: whether there are passwords is not known", "err", err)
			}
			pause(ctx, passwordsEvery)
		}
		return nil
	})
	g.Go(func() error { return s.accept(ctx) })
	return g.Wait()
}

// acceptRetry is the pause after a connection could not be accepted.
const acceptRetry = 50 * time.Millisecond

func (s *Server) accept(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	stop := context.AfterFunc(ctx, func() { s.cfg.Listener.Close() })
	defer stop()
	for {
		conn, err := s.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // too many files are open
			pause(ctx, acceptRetry)
			continue
		}
		if s.clients.Add(1) > clientsMax {
			s.clients.Add(-1)
			conn.SetWriteDeadline(time.Now().Add(sendWait))
			conn.Write([]byte("-ERR max number of clients reached\r\n")) //nolint:errcheck // it goes anyway
			conn.Close()
			continue
		}
		c := &client{server: s, conn: conn, id: s.ids.Add(1), since: time.Now(), batch: batch{library: &s.library}, now: newAtOnce(conn)}
		c.speak(2)
		c.begin()
		work.Go(func() {
			defer s.clients.Add(-1)
			c.serve(ctx)
		})
	}
}

// memory is what all clients share.
type memory struct{ used atomic.Int64 }

func (m *memory) take(n int) bool {
	if m.used.Add(int64(n)) > memoryMax && n > 0 {
		m.used.Add(int64(-n))
		return false
	}
	return true
}

func (m *memory) give(n int) { m.used.Add(int64(-n)) }

// refusal says that nothing was done, because of something that was asked for.
func refusal(err error) bool {
	for _, kind := range []meta.Kind{meta.Invalid, meta.Quota, meta.TooLarge, meta.IsDir, meta.NotDir, meta.Exist, meta.NameTooLong, meta.Conflict} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
