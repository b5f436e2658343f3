package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"dos/internal/gateway/passwords"
	"dos/internal/trust"
)

var connectionCommands = []command{
	{name: "ping", arity: -1, run: runPing},
	{name: "echo", arity: 2, run: func(_ context.Context, c *client, args [][]byte) { c.out.bulk(args[1]) }},
	{name: "auth", arity: -2, open: true, run: runAuth},
	{name: "hello", arity: -1, open: true, run: runHello},
	{name: "quit", arity: -1, open: true, run: func(_ context.Context, c *client, _ [][]byte) {
		c.out.ok()
		c.quit = true
	}},
	{name: "reset", arity: 1, open: true, run: func(_ context.Context, c *client, _ [][]byte) {
		c.server.hub.leave(c)
		c.tx, c.watched, c.db, c.name = nil, nil, 0, ""
		c.speak(2)
		c.begin()
		c.out.word("RESET")
	}},
	{name: "select", arity: 2, run: func(_ context.Context, c *client, args [][]byte) {
		n, err := integer(args[1])
		switch {
		case err != nil:
			c.out.fail("ERR invalid DB index")
		case n < 0 || n > 1:
			c.out.fail("ERR DB index is out of range")
		case n == 1 && c.server.cfg.Cache == nil:
			c.out.fail("ERR there is no cache here")
		default:
			c.db = int(n)
			c.out.ok()
		}
	}},
	{name: "client", arity: -2, run: runClient},
}

func runPing(_ context.Context, c *client, args [][]byte) {
	switch {
	case len(args) > 2:
		c.out.fail(wrongCount("ping"))
	case len(c.topics) > 0 && c.out.resp == 2:
		c.out.array(2)
		c.out.text("pong")
		c.out.bulk(append([]byte(nil), last(args)...))
	case len(args) == 2:
		c.out.bulk(args[1])
	default:
		c.out.word("PONG")
	}
}

func last(args [][]byte) []byte {
	if len(args) < 2 {
		return nil
	}
	return args[len(args)-1]
}

// begin gives a client what it may do without a password.
func (c *client) begin() {
	c.secret, c.rights = "", trust.None
	if !c.server.cfg.Door.Needed() {
		c.rights = trust.ReadWrite
	}
}

// login takes a password. Which user somebody says to be does not matter: a password
// is enough to know.
func (c *client) login(ctx context.Context, password []byte) bool {
	c.secret = trust.HashSecret(string(password))
	return c.authenticate(ctx)
}

// authenticate looks whether the password is good, and for what. When nobody can be
// asked what was known counts.
func (c *client) authenticate(ctx context.Context) bool {
	rights, err := c.server.cfg.Door.Check(ctx, c.secret)
	if err != nil {
		return c.rights != trust.None
	}
	c.rights, c.checked = rights, time.Now()
	return rights != trust.None
}

func runAuth(ctx context.Context, c *client, args [][]byte) {
	switch {
	case len(args) > 3:
		c.out.fail(errSyntax)
	case !c.server.cfg.Door.Possible() || len(args) == 2 && !c.server.cfg.Door.Needed():
		c.out.fail("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	default:
		was, secret := c.rights, c.secret
		c.rights = trust.None
		if c.login(ctx, last(args)) {
			c.out.ok()
			return
		}
		c.rights, c.secret = was, secret
		pause(ctx, passwords.FailWait)
		c.out.fail(errWrongPass)
	}
}

func (c *client) speak(resp int) {
	c.out.resp = resp
	c.proto.Store(int32(resp))
}

// runHello is HELLO [2|3 [AUTH USER PASSWORD] [SETNAME NAME]].
func runHello(ctx context.Context, c *client, args [][]byte) {
	resp := c.out.resp
	if len(args) > 1 {
		switch string(args[1]) {
		case "2":
			resp = 2
		case "3":
			resp = 3
		default:
			c.out.fail("NOPROTO unsupported protocol version")
			return
		}
	}
	name := c.name
	for i := 2; i < len(args); {
		switch word := strings.ToLower(clip(args[i])); {
		case word == "auth" && i+2 < len(args):
			if !c.login(ctx, args[i+2]) {
				c.begin()
				pause(ctx, passwords.FailWait)
				c.out.fail(errWrongPass)
				return
			}
			i += 3
		case word == "setname" && i+1 < len(args):
			if name = string(args[i+1]); !plain(name) {
				c.out.fail("ERR Client names cannot contain spaces, newlines or special characters.")
				return
			}
			i += 2
		default:
			c.out.fail("ERR Syntax error in HELLO option '" + clip(args[i]) + "'")
			return
		}
	}
	if c.rights == trust.None {
		c.out.fail("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	c.name = name
	c.speak(resp)
	c.out.pairs(7)
	c.out.text("server")
	c.out.text("redis")
	c.out.text("version")
	c.out.text(likeVersion)
	c.out.text("proto")
	c.out.number(int64(resp))
	c.out.text("id")
	c.out.number(c.id)
	c.out.text("mode")
	c.out.text("standalone")
	c.out.text("role")
	c.out.text("master")
	c.out.text("modules")
	c.out.array(0)
}

// nameMax bounds the name of a client.
const nameMax = 64

// plain says whether a client may be called so.
func plain(name string) bool {
	return len(name) <= nameMax && strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

func runClient(_ context.Context, c *client, args [][]byte) {
	switch word := strings.ToLower(clip(args[1])); {
	case word == "setname" && len(args) == 3:
		if !plain(string(args[2])) {
			c.out.fail("ERR Client names cannot contain spaces, newlines or special characters.")
			return
		}
		c.name = string(args[2])
		c.out.ok()
	case word == "getname" && len(args) == 2:
		if c.name == "" {
			c.out.null()
			return
		}
		c.out.text(c.name)
	case word == "id" && len(args) == 2:
		c.out.number(c.id)
	case word == "setinfo" && len(args) == 4, (word == "no-evict" || word == "no-touch") && len(args) == 3:
		c.out.ok()
	case (word == "info" || word == "list") && len(args) == 2: // others are nobody's business
		c.out.text("id=" + strconv.FormatInt(c.id, 10) + " addr=" + c.conn.RemoteAddr().String() + " laddr=" + c.conn.LocalAddr().String() +
			" name=" + c.name + " age=" + strconv.Itoa(int(time.Since(c.since).Seconds())) + " db=" + strconv.Itoa(c.db) +
			" sub=" + strconv.Itoa(len(c.topics)) + " resp=" + strconv.Itoa(c.out.resp) + "\n")
	default:
		c.out.fail("ERR unknown subcommand or wrong number of arguments for '" + clip(args[1]) + "'. Try CLIENT SETNAME, GETNAME, ID, INFO or LIST.")
	}
}
