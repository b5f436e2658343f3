// Package named is the locks that have names: exclusive, shared, and semaphores,
// for all machines, in the order in which they were asked for. It belongs to the
// lock service, beside package lock, which has the locks of files.
//
// A claim is who has a lock or waits for it. It belongs to a session and ends
// with it, or, with an ID, to nobody: then it has a time to live, and whoever
// knows the ID renews it and gives it up. Each grant has a token, greater than
// any that the lock ever gave. The first in the queue gets the lock when it fits,
// shared ones together; who only tries does not overtake those who wait.
//
// # Loans
//
// A lock that is free and asked for by the session that had it last is lent to
// that session as a whole: a range of tokens, and the right to decide alone.
// While it is lent, what is claimed is known there only, and costs no command. As
// soon as anybody else asks for anything that the lock decides (a claim, a look,
// a setting), the session is told, and returns the lock as it is by then, with who has it
// and who waits. Who waited there comes before who waited here for the return:
// the order is the one in which requests reached the lock, where it was. If the
// session ends first, its tokens count as used.
//
// # Fences
//
// A token is checked where a change is made, inside the command that makes it:
//
//   - Check, for a change that names a lock and a token (queues, kv,
//     transactions): the grant with the token stands, now.
//   - Admit, for a change of a file that carries a fence, a lock's name and the
//     least token (package namespace): the session whose change it is has the
//     lock, by a grant with that token or a later one, or had it last and nobody
//     has it now. So a holder whose session is over, or who had an older grant, can
//     change nothing any more from the moment when the next one is granted.
//
// A lock that a fence names is not lent and stays, so that both know.
//
// # Rows
//
// Numbers are big-endian, values CBOR. The first letter is the lock service's.
//
//	"6L" name                row
//	"6D" directory "/"       Dir: one that was made
//	"6E" time(8) name        empty: something of the lock is due then, ns since 1970
//	"6T"                     a token that none of a lock without a row is greater than
//	"6M" session(8) number(8) mine: a claim of the session
//	"6B" session(8) name     mine: the lock is lent to the session
//	"6O" session(8) name     empty: the session watches the lock
//	"6N" session(8)          the number of the session's last news
//	"6Q" session(8) news(8)  News
package named
