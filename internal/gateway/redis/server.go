package redis

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/internal/gateway/passwords"
	"dos/meta"
)

const (
	// clientsMax is Redis' own default.
	clientsMax = 10_000
	// memoryMax bounds what all clients together have sent and not read, beyond the
	// little that each has always.
	memoryMax = 256 << 20
)

// Config says what a Server serves. All of it is required but what says otherwise.
type Config struct {
	Listener net.Listener // closed when Run ends
	Strings  DB           // database 0
	Cache    DB           // database 1; nil: there is none
	Queues   Queues
	Feed     Feed
	Open     func(name, group, who string) Reader // reads messages of a group of a queue
	Door     *passwords.Door
	Node     string // this machine, by a name that no other has
	UID      uint32 // whose the lists are that are made
	Version  string
}

// A Server speaks the protocol on one address.
type Server struct {
	cfg      Config
	commands map[string]*command
	lists    *lists
	hub      *hub
	library  library
	cursors  cursors
	memory   memory
	began    time.Time
	ids      atomic.Int64
	clients  atomic.Int64
}

// New returns a Server.
func New(c Config) *Server {
	return &Server{
		cfg: c, commands: table(), began: time.Now(),
		lists: &lists{queues: c.Queues, uid: c.UID}, hub: newHub(c.Feed, c.Open, c.Node, c.UID),
	}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.hub.run(ctx) })
	g.Go(func() error { return s.cfg.Door.Run(ctx) })
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
