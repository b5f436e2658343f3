// Package cache is the cache of all machines. A Holder is one machine's part of it: it
// answers for the keys that are its own, with the entries of package chunk/cache. A
// Client finds for each key who does. Which buckets there are and where keys belong is
// replicated (package meta/cache); entries are not.
//
// # The promise
//
// An entry may be gone at any time. What is there is what was written last: once a write
// or a delete has returned, nobody gets what was there before, whatever machines die,
// stand still, are cut off, come back or join meanwhile. Two things could break that: two
// holders that answer for one key, and entries that lie about from when a key was held
// here before. Both hang on who knows which version of the replicated state:
//
//   - A holder answers only while its session is certainly not over, by its own clock
//     that also runs while the machine sleeps: some seconds less than the service waits
//     before it ends the session (client.Keeper). So when a session has ended, its
//     holder has stopped.
//   - A holder answers only for keys that are its own by the map of the version that it
//     has installed, and only when each of those who owned the key by an earlier map
//     has told that it knows this one, or has no session any more (view.cleared). Until
//     then a read is a miss and a write waits. So there is never a second one.
//   - What a holder does by a version it does under a lock that installing another
//     takes, so no write of the old version comes after the new one is installed. Then
//     it drops all entries of keys that are not its own any more, and only then tells
//     that it knows. So who gets a key again that it had before finds it empty.
//   - Clearing or removing a bucket, and changing what it is, is such a version too, and
//     is done when all holders know it.
//
// A holder that was away for longer than its session lives begins empty, in another
// session. One that is started again on the same machine takes the place of the one before at
// once: there cannot be both.
//
// # Copies
//
// With `replicas N` the N−1 next in the order of a key have copies of it, which nobody
// reads. A write first goes to them and is then executed by the owner; writes of one key
// come one after the other. When the owner is gone, the next in the order owns the key,
// and its copy is the entry: every write that returned is in it, because
//
//   - a copy is only taken by a holder that has installed the same map, the same
//     number of replicas and the same Fresh as the owner that sends it, and
//   - an owner that gets no answer from one of them has it distrusted, by a command,
//     before it answers: from that version, which the other has to install before it can
//     own anything more, none of its copies count. It gets new ones when it knows of that.
//
// When the owner is another, the copies of all others go, since the old owner may have
// given a write to some of them: only the one that owns the key now has it.
//
// # Writes whose outcome is not known
//
// When the owner dies with a write that it was sent, the Client does not send it again:
// another write may have come in between. It waits until somebody else answers for the
// key, deletes it there, and says that it was written: it was, and was lost with the
// machine. Of writes that depend on what is there (Add, Replace, If, Incr, Fill) it says
// meta.Unavailable.
//
// # On the wire
//
// The service dos.cache has the streams Read, Write and Copy: frames of requests go one
// way, frames of answers the other, as many in one as there happen to be, in any order,
// matched by a number. A frame's payload is the CBOR of a list of request or answer. The
// stream Watch takes one request and answers with frames of events.
package cache
