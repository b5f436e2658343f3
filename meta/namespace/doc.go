// Package namespace is the tree of files as a deterministic machine: inodes,
// names, extents, the stripe table, and the commands and queries on them. It
// knows no caches or stores: it believes the writer who says that the
// shards of a stripe are synced, and leaves permissions to the kernel. Commands
// that carry session 0 are the cluster's own.
//
// Leases of other sessions (package lease) keep requests out, which are refused
// with meta.Leased: X those that would change the file or tell of it, S those that
// would change its data, its attributes, extended ones too, or its names, which
// count among these. Only moving bytes that stay the same (Swap, and Layout for
// it) is always allowed: whoever holds a lease must expect that at any time.
//
// # Rows
//
// A key is one letter and then numbers, big-endian, 8 bytes each, or names.
// Values are CBOR (package state) unless they are said to be empty or raw.
//
//	"i" ino               inode: attributes and counters
//	"d" ino name          dentry: the inode that the name in directory ino leads to, and its type
//	"x" ino end           extent: what the file holds up to offset end
//	"a" ino name          the raw value of an extended attribute
//	"s" stripe            StripeInfo, of a file or kept for another room (Keep)
//	"g" time stripe       empty: the stripe is dead since then; ns since 1970
//	"o" session ino       empty: the session keeps the inode, which has no name
//	"q" session ino       empty: the session is asked whether it uses the inode, which has no name
//	"p" ino               empty: something of the inode is left to purge
//	"f" ino               Fold: the file is worth folding
//	"u"                   totals: the next inode number, and what Usage says
//
// An extent has the end of its range as its key so that a scan that starts
// just behind an offset finds the extent that covers the offset first.
// Extents of a file never overlap.
//
// # Work without bound
//
// A command changes a bounded number of rows. What may need more is marked
// first, which takes effect at once, and then done in steps by Purge, which
// somebody calls for each row "p":
//
//   - An inode that goes and has many extents or attributes loses its row "i"
//     at once, and its other rows later.
//   - A cut, which is a range that truncation or punching emptied, takes effect at
//     once by generations. Each extent carries the generation that the inode had
//     when the extent was put; a cut raises the inode's generation and is kept in
//     its row with that. An extent within a cut with a lower generation is dead:
//     it still has its row, counts in Attr.Bytes, in Usage and in its stripe's live
//     bytes, but no reader sees it. Extents on the borders of a cut are split
//     when it is made, so that each is dead as a whole or not at all. What
//     is written into the range afterwards has the new generation and lives.
//
// Only the extents that a Write or Swap replaces are removed at once however
// many they are; over ReplaceMax the command is refused with TooLarge, and the
// writer sends fewer at a time.
package namespace
