package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/kv"
)

// scriptsMax bounds the scripts that are remembered by their hashes, and scriptMax one.
const (
	scriptsMax = 1024
	scriptMax  = 16 << 10
)

// A script is one of those by which client libraries give back a lock or prolong it,
// as what it does. text is its Lua; what differs from it in spaces, comments, quotes, or the
// case of commands is the same script.
type script struct {
	from  string // the library
	text  string
	args  int // arguments after the one key
	plan  func(b *batch, key []byte, args [][]byte) error
	reply func(r *reply, args [][]byte, got []kv.Outcome)
}

var scripts = []script{
	{from: "the manual of Redis, redislock, and most others", args: 1,
		text: `if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end`,
		plan: planUnlock, reply: replyDone},
	{from: "redis-py: release", args: 1,
		text: `local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 end redis.call('del', KEYS[1]) return 1`,
		plan: planUnlock, reply: replyDone},
	{from: "redsync: unlock", args: 1,
		text: `local val = redis.call("GET", KEYS[1]) if val == ARGV[1] then return redis.call("DEL", KEYS[1]) elseif val == false then return -1 else return 0 end`,
		plan: planUnlock,
		reply: func(r *reply, args [][]byte, got []kv.Outcome) {
			if got[0].Version == 0 {
				r.number(-1)
				return
			}
			replyDone(r, args, got)
		}},
	{from: "redsync and redislock: extend", args: 2,
		text: `if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("pexpire",KEYS[1],ARGV[2]) else return 0 end`,
		plan: planProlong(time.Millisecond), reply: replyDone},
	{from: "the same in seconds", args: 2,
		text: `if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("expire",KEYS[1],ARGV[2]) else return 0 end`,
		plan: planProlong(time.Second), reply: replyDone},
	{from: "redis-py: reacquire", args: 2,
		text: `local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 end redis.call('pexpire', KEYS[1], ARGV[2]) return 1`,
		plan: planProlong(time.Millisecond), reply: replyDone},
	{from: "redis-py: extend", args: 3,
		text: `local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 end
			local expiration = redis.call('pttl', KEYS[1]) if not expiration then expiration = 0 end if expiration < 0 then return 0 end
			local newttl = ARGV[2] if ARGV[3] == "0" then newttl = ARGV[2] + expiration end
			redis.call('pexpire', KEYS[1], newttl) return 1`,
		plan: func(b *batch, key []byte, args [][]byte) error {
			s := kv.Step{Alarm: kv.Ticking}
			if string(args[2]) == "0" {
				s.Clock = kv.More
			}
			return prolong(b, key, args, time.Millisecond, s)
		}, reply: replyDone},
	{from: "redsync: extend, or lock anew", args: 2,
		text: `if redis.call("GET",KEYS[1]) == ARGV[1] then return redis.call("PEXPIRE",KEYS[1],ARGV[2])
			elseif redis.call("SET",KEYS[1],ARGV[1],"PX",ARGV[2],"NX") then return 1 else return 0 end`,
		plan: func(b *batch, key []byte, args [][]byte) error {
			if err := planProlong(time.Millisecond)(b, key, args); err != nil {
				return err
			}
			ttl, err := b.expiry("set", "px", args[1])
			if err != nil {
				return err
			}
			return b.set(key, args[0], kv.Step{If: kv.Absent, TTL: ttl})
		}, reply: replyDone},
	{from: "redislock: obtain", args: 3,
		text: `if redis.call("set", KEYS[1], ARGV[1], "NX", "PX", ARGV[3]) then return redis.status_reply("OK") end
			local offset = tonumber(ARGV[2])
			if redis.call("getrange", KEYS[1], 0, offset-1) == string.sub(ARGV[1], 1, offset) then return redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[3]) end`,
		plan: func(b *batch, key []byte, args [][]byte) error {
			offset, err := integer(args[1])
			if err == nil && (offset < 1 || offset > int64(len(args[0]))) {
				err = said(errNotInt)
			}
			if err != nil {
				return err
			}
			ttl, err := b.expiry("set", "px", args[2])
			if err != nil {
				return err
			}
			if err := b.set(key, args[0], kv.Step{If: kv.Absent, TTL: ttl}); err != nil {
				return err
			}
			return b.set(key, args[0], kv.Step{If: kv.Prefix, Match: args[0][:offset], TTL: ttl})
		},
		reply: func(r *reply, _ [][]byte, got []kv.Outcome) {
			if done(got) {
				r.ok()
			} else {
				r.null()
			}
		}},
	{from: "redislock: time to live", args: 1,
		text: `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pttl", KEYS[1]) else return -3 end`,
		plan: func(b *batch, key []byte, args [][]byte) error {
			return b.add(key, kv.Step{If: kv.Equal, Match: args[0]})
		},
		reply: func(r *reply, _ [][]byte, got []kv.Outcome) {
			switch o := got[0]; {
			case o.Why != kv.Fine:
				r.number(-3)
			case o.Expires == 0:
				r.number(-1)
			default:
				r.number(int64(max(0, time.Duration(o.Expires-meta.At(time.Now()))) / time.Millisecond))
			}
		}},
}

func planUnlock(b *batch, key []byte, args [][]byte) error {
	return b.add(key, kv.Step{Do: kv.Remove, If: kv.Equal, Match: args[0]})
}

func planProlong(unit time.Duration) func(*batch, []byte, [][]byte) error {
	return func(b *batch, key []byte, args [][]byte) error { return prolong(b, key, args, unit, kv.Step{}) }
}

// prolong gives what is args[0] another time to live. One that is over removes it, as
// PEXPIRE does.
func prolong(b *batch, key []byte, args [][]byte, unit time.Duration, s kv.Step) error {
	n, err := integer(args[1])
	if err != nil {
		return err
	}
	if n > int64(ttlMax/unit) {
		return said(badExpire("pexpire"))
	}
	s.Do, s.If, s.Match, s.TTL = kv.Time, kv.Equal, args[0], time.Duration(max(n, 0))*unit
	switch {
	case n < 0 && s.Clock == kv.More:
		return said(badExpire("pexpire"))
	case n <= 0 && s.Clock == kv.Anew:
		s.Do = kv.Remove
	}
	return b.add(key, s)
}

func done(got []kv.Outcome) bool {
	for _, o := range got {
		if o.Why == kv.Fine {
			return true
		}
	}
	return false
}

func replyDone(r *reply, _ [][]byte, got []kv.Outcome) { r.truth(done(got)) }

// byText are the scripts by what is the same in all ways to write them.
var byText = func() map[string]*script {
	all := make(map[string]*script)
	for i := range scripts {
		all[normal(scripts[i].text)] = &scripts[i]
	}
	return all
}()

// normal is a script without what has no meaning: its words, one space apart, with
// strings that name commands and options in lower case.
func normal(text string) string {
	var words []string
	for i := 0; i < len(text); {
		c := text[i]
		end := i + 1
		switch {
		case strings.HasPrefix(text[i:], "--"):
			if end = strings.IndexByte(text[i:], '\n'); end < 0 {
				return strings.Join(words, " ")
			}
			i += end
			continue
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ';':
			i++
			continue
		case c == '\'' || c == '"':
			for end < len(text) && text[end] != c && text[end] != '\\' {
				end++
			}
			if end == len(text) || text[end] == '\\' {
				return "" // no script of ours
			}
			words = append(words, `"`+strings.ToLower(text[i+1:end])+`"`)
			i = end + 1
			continue
		case inWord(c):
			for end < len(text) && inWord(text[end]) {
				end++
			}
		case end < len(text) && text[end] == '=' && strings.IndexByte("=~<>", c) >= 0:
			end++
		}
		words = append(words, text[i:end])
		i = end
	}
	return strings.Join(words, " ")
}

func inWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// library is the scripts that clients have sent, by the hash of their text.
type library struct {
	mu    sync.Mutex
	known map[string]*script // guarded by mu
}

func hash(text []byte) string {
	sum := sha1.Sum(text)
	return hex.EncodeToString(sum[:])
}

// learn returns the script of a text, nil if it is none of ours.
func (l *library) learn(text []byte) *script {
	if len(text) > scriptMax {
		return nil
	}
	h := hash(text)
	if s := l.find(h); s != nil {
		return s
	}
	s := byText[normal(string(text))]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) == scriptsMax {
		l.known = make(map[string]*script)
	}
	if s != nil {
		l.known[h] = s
	}
	return s
}

func (l *library) find(h string) *script {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[strings.ToLower(h)]
}

var scriptCommands = []command{
	{name: "eval", arity: -3, write: true, plan: planScript, finish: finishScript},
	{name: "evalsha", arity: -3, write: true, plan: planScript, finish: finishScript},
	{name: "script", arity: -2, run: runScript},
}

// of returns the script that EVAL or EVALSHA is about.
func (l *library) of(args [][]byte) (*script, error) {
	if len(args[0]) == len("eval") {
		if s := l.learn(args[1]); s != nil {
			return s, nil
		}
		return nil, said(errNotScript)
	}
	if s := l.find(string(args[1])); s != nil {
		return s, nil
	}
	return nil, said(errNoScript)
}

func planScript(b *batch, args [][]byte) error {
	n, err := integer(args[2])
	switch {
	case err != nil:
		return err
	case n < 0:
		return said("ERR Number of keys can't be negative")
	case n > int64(len(args)-3):
		return said("ERR Number of keys can't be greater than number of args")
	}
	s, err := b.library.of(args)
	switch {
	case err != nil:
		return err
	case n != 1 || len(args) < 4+s.args:
		return said("ERR this script takes one key and its arguments")
	}
	return s.plan(b, args[3], args[4:])
}

func finishScript(_ context.Context, c *client, args [][]byte, got []kv.Outcome) {
	s, err := c.server.library.of(args)
	if err != nil { // so many were learnt meanwhile that this one was forgotten
		c.out.say(err)
		return
	}
	s.reply(&c.out, args[4:], got)
}

func runScript(_ context.Context, c *client, args [][]byte) {
	switch word := strings.ToLower(clip(args[1])); {
	case word == "load" && len(args) == 3:
		if c.server.library.learn(args[2]) == nil {
			c.out.fail(errNotScript)
			return
		}
		c.out.text(hash(args[2]))
	case word == "exists" && len(args) > 2:
		c.out.array(len(args) - 2)
		for _, h := range args[2:] {
			c.out.truth(c.server.library.find(string(h)) != nil)
		}
	case word == "flush" && len(args) <= 3:
		c.out.ok() // what is remembered is what everybody may know
	default:
		c.out.fail("ERR unknown subcommand or wrong number of arguments for '" + clip(args[1]) + "'. Try SCRIPT LOAD, EXISTS or FLUSH.")
	}
}
