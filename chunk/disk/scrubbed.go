package disk

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"time"

	"dos/chunk"
)

// The file "scrub" remembers how far scrubbing has come. It is replaced as a
// whole and holds nothing that is needed: without it scrubbing starts anew.
// Numbers are little-endian, times are nanoseconds since 1970, 0 for never.
//
//	offset  size  field
//	     0    16  prologue with magic "DOSscrub"
//	    16    16  incarnation of the store
//	    32     8  stripe ┐ of the shard that is next,
//	    40     1  index  ┘ both zero between two rounds
//	    41     7  zero
//	    48     8  when the round began
//	    56     8  shards read in it
//	    64     8  bytes of these
//	    72     8  shards of these that were damaged
//	    80     8  when the last whole round ended
//	    88     4  CRC-32C of bytes 0 to 88
//	    92     4  zero
const (
	scrubName  = "scrub"
	scrubMagic = "DOSscrub"
	scrubSize  = 96
	scrubCRC   = 88
)

// Scrubbing is how far a round of reading every record has come.
type Scrubbing struct {
	Next     chunk.ID  // where the round goes on; zero: none is under way
	Began    time.Time // the round
	Records  int64     // read in it
	Bytes    int64
	Corrupt  int64     // found damaged in it
	Finished time.Time // the last whole round; zero: there was none
}

func (p Scrubbing) encode(inc Incarnation) []byte {
	b := prologue(scrubMagic, scrubSize)
	copy(b[16:], inc[:])
	le.PutUint64(b[32:], uint64(p.Next.Stripe))
	b[40] = p.Next.Index
	for i, v := range []int64{nanos(p.Began), p.Records, p.Bytes, p.Corrupt, nanos(p.Finished)} {
		le.PutUint64(b[48+8*i:], uint64(v))
	}
	le.PutUint32(b[scrubCRC:], crc32.Checksum(b[:scrubCRC], castagnoli))
	return b
}

func decodeScrubbing(b []byte, inc Incarnation) (Scrubbing, error) {
	if err := checkPrologue(b, scrubMagic); err != nil {
		return Scrubbing{}, err
	}
	// The four bytes of zeros at the end are not checked.
	if len(b) != scrubSize || le.Uint32(b[scrubCRC:]) != crc32.Checksum(b[:scrubCRC], castagnoli) {
		return Scrubbing{}, errChecksum
	}
	if Incarnation(b[16:32]) != inc {
		return Scrubbing{}, errHeader
	}
	at := func(off int) int64 { return int64(le.Uint64(b[off:])) }
	return Scrubbing{
		Next:  chunk.ID{Stripe: chunk.StripeID(at(32)), Index: b[40]},
		Began: moment(at(48)), Records: at(56), Bytes: at(64), Corrupt: at(72), Finished: moment(at(80)),
	}, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// Scrubbing returns what SaveScrubbing saved last, or the zero value.
func (s *Store) Scrubbing() Scrubbing {
	b, err := head(s.c.FS, filepath.Join(s.dir, scrubName), scrubSize+1)
	if err == nil {
		var p Scrubbing
		if p, err = decodeScrubbing(b, s.id.Incarnation); err == nil {
			return p
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.c.Log.Warn("chunk store: how far scrubbing had come is not known", "dir", s.dir, "err", err)
	}
	return Scrubbing{}
}

// SaveScrubbing remembers how far scrubbing has come. That it cannot costs
// reading again and is no more than logged.
func (s *Store) SaveScrubbing(p Scrubbing) {
	err := s.Err() // the folder may be another's by now
	if err == nil {
		err = replace(s.c.FS, s.dir, scrubName, p.encode(s.id.Incarnation))
	}
	if err != nil {
		s.c.Log.Debug("chunk store: how far scrubbing came is not remembered", "dir", s.dir, "err", err)
	}
}
