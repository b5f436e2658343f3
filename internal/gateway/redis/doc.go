// Package redis speaks the protocol of Redis (RESP2 and RESP3) for the services of dos,
// so that lock, cache and queue programs that people have written for Redis run
// against it unchanged.
//
// # Where things are
//
// The strings of database 0 are values of the table /dos/kv/redis: each change is
// committed and synced by a majority before its reply, and seen by whoever asks later,
// so SET NX EX is a real lock. A key is one name there, whatever bytes it has: a slash
// is %2F, a percent sign %25, a dot at its beginning %2E, and no byte at all is %.
// Those of database 1 are entries of the bucket /dos/cache/redis.
//
// A list is the queue of that name, /dos/queues/KEY, in any database. A queue gives
// first what came first, so a list can be filled at one end and emptied at the other:
// LPUSH with RPOP and BRPOP, or RPUSH with LPOP and BLPOP. What a queue cannot do is an
// error: to fill a list at the other end while it has elements, or to take from the end
// where it is filled while it has more than one. LMOVE and RPOPLPUSH, with or without
// waiting, are one command that is done whole or not at all, so a job is always in the list of those to do
// or of those under way. LREM and LTRIM take all elements for a moment, in which others see
// none, and put back what stays; LRANGE and LINDEX read, and show what a
// consumer of the queue has not acknowledged yet, too. Each message says by its key, lpush or rpush, where
// it was put; what came another way than through this protocol has none, and is
// given to both ends. A pop is for good when its reply is on its way, as in Redis. A
// queue that is empty stays where it is, but is no list then: it does not exist.
// KEYS, SCAN, DBSIZE and FLUSHDB are about strings.
//
// PUBLISH goes to all who have subscribed, at any machine, through the queue
// /dos/queues/redis.pubsub, of which each machine with subscribers has a group. Its
// answer counts those at this machine, as in a Redis cluster.
//
// # Pipelines and transactions
//
// Commands that came together and change strings are one command of the metadata
// service, in their order; those that read are one query. MULTI and EXEC are one
// command: nobody sees a part of it. WATCH compares versions. A transaction is about
// strings, or is pushes to one list. In database 1 EXEC does its commands in their
// order and others may come between, and nothing can be watched. There is no Lua: the
// scripts by which client libraries give back a lock, or have it longer, are known and
// executed as what they mean; others are refused.
//
// # Who may
//
// Without a password nobody but who is on this machine gets in; a Server on another
// address has passwords or does not start. A password is one that dosctl token create
// --password makes, with rights: ro may read, rw change. Where passwords exist every
// client must show one (AUTH, or HELLO with AUTH). The port is nobody (user 65534) to
// the rest of dos, as a stranger is to NFS: what it makes is nobody's and shut to others, and
// lists that others made it may push to or pop from as their mode lets everybody.
// With rights admin it is root.
package redis
