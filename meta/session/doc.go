// Package session keeps who takes part: the sessions of clients, and the
// stripe IDs that each of them reserved. It knows no files and no leases; what
// a session holds is given up by the rooms that keep it, which Register is told.
//
// A session that has ended is fenced here, for all services: its row is what
// the machine's guard looks for before it executes a command.
//
// Rows, numbers big-endian, values CBOR:
//
//	"2c"            counters: the last session ID, the next stripe ID, how many open files
//	"2s" session(8) Info
package session
