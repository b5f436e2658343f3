package disk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"time"

	"dos/chunk"
	"dos/chunk/storetest"
	"dos/internal/disk"
)

var testInc = Incarnation{0xA0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xAF}

func shardHeader(data []byte) []byte {
	h := header{
		kind: kindShard, id: chunk.ID{Stripe: 0x0102030405060708, Index: 5}, seq: 9, size: uint32(len(data)),
		at: place{0x2a, 0x11}, write: 12, synced: 10,
	}
	sh := shapeOf(len(data))
	b := make([]byte, sh.header*block)
	sh.fill(b, data)
	h.encode(b, testInc)
	return b
}

func buriedHeader() []byte {
	b := make([]byte, block)
	h := header{
		kind: kindBuried, at: place{1, 2}, write: 3, synced: 1,
		buried: []tombstone{{chunk.ID{Stripe: 7, Index: 1}, 4}, {chunk.ID{Stripe: 8}, 5}},
	}
	h.encode(b, testInc)
	return b
}

var testIdentity = Identity{Cluster: "c1", Store: 6, Incarnation: testInc}

func testCheckpoint() *checkpoint {
	c := &checkpoint{
		inc: testInc, nextSeq: 4, nextWrite: 5, synced: 3, nextSeg: 2,
		known: map[uint32]uint32{1: 9}, order: []uint32{1}, shards: newIndex(),
		graves: []grave{{chunk.ID{Stripe: 1, Index: 2}, place{1, 3}, 2}},
	}
	c.shards.ReplaceOrInsert(entry{stripe: 1, index: 1, seq: 2, at: place{1, 1}, size: 5000})
	c.shards.ReplaceOrInsert(entry{stripe: 2, seq: 3, at: place{1, 5}, size: 7, bad: true})
	return c
}

var testScrubbing = Scrubbing{
	Next: chunk.ID{Stripe: 7, Index: 1}, Began: time.Unix(0, 999999999), Records: 3, Bytes: 4, Corrupt: 5, Finished: time.Unix(0, 6),
}

func checkpointBytes(t testing.TB, c *checkpoint) []byte {
	var b bytes.Buffer
	if err := c.write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A change here is a change of format: add a version, keep reading this one.
func TestGolden(t *testing.T) {
	inc := "a00102030405060708090a0b0c0d0eaf"
	for _, test := range []struct {
		name string
		got  []byte
		want string // hex; the rest is zero
	}{
		{"shard", shardHeader([]byte("hi")), "444f5352" + "01" + "01" + "05" + "00" + inc +
			"0c00000000000000" + "0a00000000000000" + "2a000000" + "11000000" + "02000000" + "00000000" +
			"0807060504030201" + "0900000000000000" + "8d83042e" + "00000000" + "c2d99df5" + "6869"},
		{"tombstones", buriedHeader(), "444f5352" + "01" + "02" + "00" + "00" + inc +
			"0300000000000000" + "0100000000000000" + "01000000" + "02000000" + "02000000" + "00000000" +
			"0000000000000000" + "0000000000000000" + "7e4704c2" + "00000000" +
			"0700000000000000" + "0400000000000000" + "0100000000000000" +
			"0800000000000000" + "0500000000000000" + "0000000000000000"},
		{"identity", testIdentity.encode(identityMagic, 0), "444f5353544f5245" + "01000000" + "a0d0eb5b" + inc +
			"06000000" + "02000000" + "6331" + strings.Repeat("00", 62) + "00000000" + "beedcb86"},
		{"segment", testIdentity.encode(segmentMagic, 0x2a), "444f535345474d54" + "01000000" + "9383fc49" + inc +
			"06000000" + "02000000" + "6331" + strings.Repeat("00", 62) + "2a000000" + "52b9cd18"},
		{"checkpoint", checkpointBytes(t, testCheckpoint()), "444f53434845434b" + "01000000" + "e159a72d" + inc +
			"0400000000000000" + "0500000000000000" + "0300000000000000" + "02000000" + "01000000" +
			"0200000000000000" + "0100000000000000" + "01000000" + "09000000" +
			"0100000000000000" + "0200000000000000" + "01000000" + "01000000" + "88130000" + "01000000" +
			"0200000000000000" + "0300000000000000" + "01000000" + "05000000" + "07000000" + "00010000" +
			"0100000000000000" + "01000000" + "03000000" + "02000000" + "02000000" + "482f0fb0"},
		{"scrub", testScrubbing.encode(testInc), "444f537363727562" + "01000000" + "55a27e50" + inc +
			"0700000000000000" + "0100000000000000" + "ffc99a3b00000000" + "0300000000000000" + "0400000000000000" +
			"0500000000000000" + "0600000000000000" + "156857f7"},
	} {
		got := hex.EncodeToString(test.got)
		want := test.want + strings.Repeat("0", max(0, len(got)-len(test.want)))
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, strings.TrimRight(got, "0"), strings.TrimRight(want, "0"))
		}
	}
}

func TestShapes(t *testing.T) {
	for _, test := range []struct {
		size   int
		blocks uint32
		header int
		inside bool
	}{
		{1, 1, 1, true},
		{4012, 1, 1, true},
		{4013, 2, 1, false},
		{4096, 2, 1, false},
		{5000, 2, 1, true},
		{8192, 3, 1, false},
		{1 << 20, 257, 1, false},
		{1004 * block, 1005, 1, false},
		{1004*block + 1, 1006, 2, true},
		{chunk.MaxShard, 1026, 2, false},
	} {
		s := shapeOf(test.size)
		if s.blocks() != test.blocks || s.header != test.header || s.inside != test.inside {
			t.Errorf("shapeOf(%d) = %+v of %d blocks, want %+v", test.size, s, s.blocks(), test)
		}
	}
}

// Each flipped bit of a header is noticed, but for the tail, which has a sum of its own.
func TestHeaderBits(t *testing.T) {
	for name, b := range map[string][]byte{"shard": shardHeader([]byte("hi")), "tombstones": buriedHeader()} {
		at := place{le.Uint32(b[40:]), le.Uint32(b[44:])}
		if _, err := decodeHeader(b, testInc, at); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		size := headerSize + 4
		if name == "tombstones" {
			size = headerSize + 2*buriedSize
		}
		for bit := range size * 8 {
			b[bit/8] ^= 1 << (bit % 8)
			if h, err := decodeHeader(b, testInc, at); err == nil {
				t.Errorf("%s: with bit %d flipped it reads %+v", name, bit, h)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
		if _, err := decodeHeader(b, testInc, place{at.segment, at.block + 1}); err == nil {
			t.Errorf("%s: accepted at another place", name)
		}
		if _, err := decodeHeader(b, Incarnation{}, at); err == nil {
			t.Errorf("%s: accepted of another store", name)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(shardHeader([]byte("hi")), uint32(0x2a), uint32(0x11))
	f.Add(shardHeader(make([]byte, 9000)), uint32(0x2a), uint32(0x11))
	f.Add(shardHeader(make([]byte, chunk.MaxShard)), uint32(0x2a), uint32(0x11))
	f.Add(buriedHeader(), uint32(1), uint32(2))
	f.Fuzz(func(t *testing.T, b []byte, segment, at uint32) {
		// Let the fuzzer past the checksum.
		if len(b) >= headerSize {
			n := int(le.Uint32(b[48:]))
			table := 0
			switch {
			case b[5] == kindShard && n <= chunk.MaxShard:
				table = shapeOf(n).sums * sumSize
			case b[5] == kindBuried && n <= perTombstone:
				table = n * buriedSize
			}
			if len(b) >= headerSize+table {
				b = bytes.Clone(b)
				le.PutUint32(b[crcAt:], headerSum(b, table))
			}
		}
		h, err := decodeHeader(b, testInc, place{segment, at})
		if err != nil {
			return
		}
		again := make([]byte, len(b))
		copy(again, b)
		clear(again[:headerSize])
		h.encode(again, testInc)
		if h.kind == kindShard && !bytes.Equal(again, b) {
			t.Errorf("accepted %x, which encode writes as %x", b[:headerSize], again[:headerSize])
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(testIdentity.encode(identityMagic, 0))
	f.Add([]byte("DOSSTORE"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= identitySize {
			b = bytes.Clone(b)
			le.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
			le.PutUint32(b[108:], crc32.Checksum(b[:108], castagnoli))
		}
		if id, n, err := decodeIdentity(b, identityMagic); err == nil && !bytes.Equal(id.encode(identityMagic, n), b[:identitySize]) {
			t.Errorf("accepted %x, which encode does not write", b)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	f.Add(checkpointBytes(f, testCheckpoint()))
	f.Add(checkpointBytes(f, &checkpoint{shards: newIndex()}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > checkpointHead+4 {
			b = bytes.Clone(b)
			le.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
			le.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
		}
		c, err := readCheckpoint(bytes.NewReader(b), int64(len(b)))
		if err == nil && int64(len(checkpointBytes(t, c))) != int64(len(b)) {
			t.Errorf("accepted %d bytes that are written as %d", len(b), len(checkpointBytes(t, c)))
		}
	})
}

func FuzzScrubbing(f *testing.F) {
	f.Add(testScrubbing.encode(testInc))
	f.Add(Scrubbing{}.encode(testInc))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == scrubSize {
			b = bytes.Clone(b)
			le.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
			le.PutUint32(b[scrubCRC:], crc32.Checksum(b[:scrubCRC], castagnoli))
		}
		p, err := decodeScrubbing(b, testInc)
		if err != nil {
			return
		}
		if again, err := decodeScrubbing(p.encode(testInc), testInc); err != nil || again != p {
			t.Errorf("%+v, %v, want %+v", again, err, p)
		}
	})
}

// FuzzSegment opens a store whose segment and checkpoint hold anything.
func FuzzSegment(f *testing.F) {
	fsys := new(disk.Mem)
	c := testConfig(fsys)
	if _, err := Create(testDir, c); err != nil {
		f.Fatal(err)
	}
	s, err := Open(testDir, c)
	if err != nil {
		f.Fatal(err)
	}
	data := storetest.Data(chunk.ID{}, 9000)
	for i := range 3 {
		if err := s.Put(f.Context(), chunk.ID{Stripe: chunk.StripeID(i)}, data); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(s.Delete(f.Context(), chunk.ID{Stripe: 1}), s.Close()); err != nil {
		f.Fatal(err)
	}
	path := testDir + "/" + segmentName(1)
	whole, err := head(fsys, path, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, true)
	f.Add(whole, false)
	f.Add(whole[:len(whole)-5000], false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, checkpointed bool) {
		fuzzed := new(disk.Mem)
		c := testConfig(fuzzed)
		if err := errors.Join(fuzzed.Mkdir(testDir), copyFile(fsys, fuzzed, identityName), copyFile(fsys, fuzzed, checkpointName)); err != nil {
			t.Fatal(err)
		}
		if !checkpointed {
			if err := fuzzed.Remove(testDir + "/" + checkpointName); err != nil {
				t.Fatal(err)
			}
		}
		if err := replace(fuzzed, testDir, segmentName(1), b); err != nil {
			t.Fatal(err)
		}
		s, err := Open(testDir, c)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		for info, err := range s.List(t.Context(), chunk.ID{}) {
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, info.Size)
			if _, err := s.ReadAt(t.Context(), info.ID, p, 0); err == nil && !bytes.Equal(p, data) {
				t.Errorf("%v reads as other bytes", info.ID)
			}
			if err := s.Put(t.Context(), info.ID, data); err != nil {
				t.Errorf("Put(%v) = %v", info.ID, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
}

func copyFile(from, to disk.FS, name string) error {
	b, err := head(from, testDir+"/"+name, 1<<20)
	if err != nil && err != io.EOF {
		return err
	}
	return replace(to, testDir, name, b)
}
