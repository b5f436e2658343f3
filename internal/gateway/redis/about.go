package redis

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// likeVersion is the version of Redis whose commands these are, for clients that ask.
const likeVersion = "7.2.0"

var serverCommands = []command{
	{name: "info", arity: -1, run: runInfo},
	{name: "config", arity: -2, run: runConfig},
	{name: "command", arity: -1, run: runCommand},
	{name: "time", arity: 1, run: func(_ context.Context, c *client, _ [][]byte) {
		now := time.Now().UnixMicro()
		c.out.array(2)
		c.out.text(strconv.FormatInt(now/1e6, 10))
		c.out.text(strconv.FormatInt(now%1e6, 10))
	}},
}

func runInfo(ctx context.Context, c *client, args [][]byte) {
	wanted := func(section string) bool {
		if len(args) == 1 {
			return true
		}
		for _, a := range args[1:] {
			switch strings.ToLower(clip(a)) {
			case section, "all", "default", "everything":
				return true
			}
		}
		return false
	}
	var b strings.Builder
	section := func(name string, lines ...string) {
		if !wanted(strings.ToLower(name)) {
			return
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + name + "\r\n" + strings.Join(lines, "\r\n") + "\r\n")
	}
	s := c.server
	section("Server", "redis_version:"+likeVersion, "dos_version:"+s.cfg.Version, "redis_mode:standalone",
		"os:"+runtime.GOOS, "tcp_port:"+port(c.conn.LocalAddr().String()), fmt.Sprintf("uptime_in_seconds:%d", int(time.Since(s.began).Seconds())))
	section("Clients", fmt.Sprintf("connected_clients:%d", s.clients.Load()), fmt.Sprintf("maxclients:%d", clientsMax))
	section("Memory", fmt.Sprintf("used_memory:%d", s.memory.used.Load()), fmt.Sprintf("maxmemory:%d", memoryMax), "maxmemory_policy:noeviction")
	section("Persistence", "loading:0", "aof_enabled:1")
	section("Stats", fmt.Sprintf("total_connections_received:%d", s.ids.Load()))
	section("Replication", "role:master", "connected_slaves:0")
	section("Cluster", "cluster_enabled:0")
	if wanted("keyspace") {
		var lines []string
		for i, db := range []DB{s.cfg.Strings, s.cfg.Cache} {
			if db == nil {
				continue
			}
			n, err := db.Size(ctx)
			if err != nil {
				c.out.say(err)
				return
			}
			if n > 0 {
				lines = append(lines, fmt.Sprintf("db%d:keys=%d,expires=0,avg_ttl=0", i, n))
			}
		}
		section("Keyspace", lines...)
	}
	c.out.text(b.String())
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// settings are what programs ask for with CONFIG GET. None of them can be set.
var settings = [][2]string{
	{"appendonly", "yes"}, {"bind", ""}, {"databases", "2"}, {"maxclients", strconv.Itoa(clientsMax)},
	{"maxmemory", strconv.Itoa(memoryMax)}, {"maxmemory-policy", "noeviction"},
	{"proto-max-bulk-len", strconv.Itoa(bulkMax)}, {"save", ""}, {"timeout", "0"},
}

func runConfig(_ context.Context, c *client, args [][]byte) {
	switch word := strings.ToLower(clip(args[1])); {
	case word == "get" && len(args) > 2:
		var found [][2]string
		for _, s := range settings {
			for _, pattern := range args[2:] {
				if match([]byte(strings.ToLower(string(pattern))), s[0]) {
					found = append(found, s)
					break
				}
			}
		}
		c.out.pairs(len(found))
		for _, s := range found {
			c.out.text(s[0])
			c.out.text(s[1])
		}
	case word == "resetstat" && len(args) == 2:
		c.out.ok()
	case word == "set" && len(args) > 3:
		c.out.fail("ERR CONFIG SET failed - nothing can be set here: see /dos/queues/KEY/ctl and /dos/kv/redis/.ctl")
	default:
		c.out.fail("ERR unknown subcommand or wrong number of arguments for '" + clip(args[1]) + "'. Try CONFIG GET.")
	}
}

func runCommand(_ context.Context, c *client, args [][]byte) {
	word := ""
	if len(args) > 1 {
		word = strings.ToLower(clip(args[1]))
	}
	switch {
	case word == "count":
		c.out.number(int64(len(c.server.commands)))
	case word == "docs": // redis-cli has its own
		c.out.pairs(0)
	case word == "list":
		c.out.array(len(c.server.commands))
		for name := range c.server.commands {
			c.out.text(name)
		}
	case word == "info":
		c.out.array(len(args) - 2)
		for _, name := range args[2:] {
			if cmd := c.server.find(name); cmd != nil {
				cmd.describe(&c.out)
			} else {
				c.out.nothing()
			}
		}
	case word == "":
		c.out.array(len(c.server.commands))
		for _, cmd := range c.server.commands {
			cmd.describe(&c.out)
		}
	default:
		c.out.fail("ERR unknown subcommand '" + clip(args[1]) + "'. Try COMMAND COUNT, LIST or INFO.")
	}
}

// describe says of a command what routers want to know: its arity, what it does, and
// which arguments are keys.
func (cmd *command) describe(r *reply) {
	flag, first, to, step := "readonly", 1, 1, 1
	if cmd.write {
		flag = "write"
	}
	switch cmd.name {
	case "mget", "del", "unlink", "exists", "touch", "watch":
		to = -1
	case "mset", "msetnx":
		to, step = -1, 2
	case "blpop", "brpop":
		to = -2
	case "lmove", "blmove", "rpoplpush", "brpoplpush":
		to = 2
	case "eval", "evalsha", "publish", "keys", "scan":
		first, to, step = 0, 0, 0
	}
	if cmd.plan == nil && cmd.many == nil && !cmd.ofList() && to == 1 {
		first, to, step = 0, 0, 0
	}
	r.array(6)
	r.text(cmd.name)
	r.number(int64(cmd.arity))
	r.array(1)
	r.word(flag)
	for _, n := range []int{first, to, step} {
		r.number(int64(n))
	}
}

// ofList says whether a command looks at one list.
func (cmd *command) ofList() bool {
	switch cmd.name {
	case "llen", "lrange", "lindex", "lrem", "ltrim":
		return true
	}
	return false
}
