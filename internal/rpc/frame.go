package rpc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"syscall"

	"google.golang.org/grpc/mem"
)

const (
	magic   = "DOSf"
	version = 1
	prefix  = 20 // bytes before the header
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Frame is one message: see the package comment.
type Frame struct {
	Header []byte
	// Payload is passed by reference. Whoever has the frame owns it and must
	// Free it; to send a frame gives the payload away, also if that fails.
	// Buffers that were sent must not be modified afterwards.
	Payload mem.BufferSlice
	// File is the payload of an answer to a local caller (Local) instead, as it lies
	// in a file. What cannot be read there arrives as zeros.
	File *FilePart
	// Into is where the payload of an answer is wanted (Client.Bulk).
	Into []byte
}

// A FilePart is a range of an open file, in bytes.
type FilePart struct {
	File syscall.Conn
	Off  int64
	Len  int
}

// Free gives the payload back. A frame without one may be freed as well.
func (f *Frame) Free() {
	f.Payload.Free()
	f.Payload = nil
}

// Take gives the payload to the caller, who must free it.
func (f *Frame) Take() mem.BufferSlice {
	p := f.Payload
	f.Payload = nil
	return p
}

// Bytes returns the payload in one piece, not to be modified and valid until
// the frame is freed.
func (f *Frame) Bytes() []byte {
	switch len(f.Payload) {
	case 0:
		return nil
	case 1:
		return f.Payload[0].ReadOnlyData()
	}
	whole := Join(f.Payload)
	f.Payload.Free()
	f.Payload = mem.BufferSlice{whole}
	return whole.ReadOnlyData()
}

// head returns the frame without its payload, as it goes out.
func (f *Frame) head() ([]byte, error) {
	size := f.Payload.Len()
	if len(f.Header) > MaxHeader || size > MaxPayload {
		return nil, fmt.Errorf("frame of %d + %d bytes, at most %d + %d are allowed", len(f.Header), size, MaxHeader, MaxPayload)
	}
	head := make([]byte, prefix, prefix+len(f.Header))
	copy(head, magic)
	head[4] = version
	binary.BigEndian.PutUint32(head[8:], uint32(len(f.Header)))
	binary.BigEndian.PutUint32(head[12:], uint32(size))
	sum := crc32.Update(crc32.Checksum(head[:16], castagnoli), castagnoli, f.Header)
	for _, b := range f.Payload {
		sum = crc32.Update(sum, castagnoli, b.ReadOnlyData())
	}
	binary.BigEndian.PutUint32(head[16:], sum)
	return append(head, f.Header...), nil
}

// marshal returns the frame as it goes out. The payload becomes part of it.
func (f *Frame) marshal() (mem.BufferSlice, error) {
	head, err := f.head()
	if err != nil {
		return nil, err
	}
	return append(mem.BufferSlice{mem.SliceBuffer(head)}, f.Take()...), nil
}

// sizes reads how long the header and the payload are of a frame that begins with
// head, prefix bytes.
func sizes(head []byte) (header, payload int, err error) {
	if string(head[:4]) != magic {
		return 0, 0, fmt.Errorf("not a frame: it begins with %x", head[:4])
	}
	if head[4] != version || head[5]|head[6]|head[7] != 0 {
		return 0, 0, fmt.Errorf("frame of version %x, known is %d", head[4:8], version)
	}
	h, p := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
	if h > MaxHeader || p > MaxPayload {
		return 0, 0, fmt.Errorf("frame of %d + %d bytes, at most %d + %d are allowed", h, p, MaxHeader, MaxPayload)
	}
	return int(h), int(p), nil
}

// check compares the checksum of a frame with what head says.
func check(head []byte, sum uint32) error {
	if want := binary.BigEndian.Uint32(head[16:]); sum != want {
		return fmt.Errorf("a frame has checksum %08x, not %08x: it was damaged on its way", sum, want)
	}
	return nil
}

// unmarshal makes f the frame in data, of which it keeps references.
func (f *Frame) unmarshal(data mem.BufferSlice) error {
	total := data.Len()
	var head [prefix]byte
	if data.CopyTo(head[:]) < prefix {
		return fmt.Errorf("frame of %d bytes is shorter than its prefix", total)
	}
	h, p, err := sizes(head[:])
	if err != nil {
		return err
	}
	if total != prefix+h+p {
		return fmt.Errorf("frame of %d bytes says it has %d", total, prefix+h+p)
	}
	header := make([]byte, 0, h)
	var payload mem.BufferSlice
	sum := crc32.Checksum(head[:16], castagnoli)
	at := 0 // of the buffer in the frame
	for _, b := range data {
		n := b.Len()
		if from, to := max(prefix-at, 0), min(prefix+h-at, n); from < to {
			header = append(header, b.ReadOnlyData()[from:to]...)
		}
		if from := max(prefix-at, 0); from < n {
			sum = crc32.Update(sum, castagnoli, b.ReadOnlyData()[from:])
		}
		if from := max(prefix+h-at, 0); from < n {
			payload = append(payload, b.Slice(from, n))
		}
		at += n
	}
	if err := check(head[:], sum); err != nil {
		payload.Free()
		return err
	}
	f.Free()
	f.Header, f.Payload = header, payload
	return nil
}

// codec makes frames the messages of gRPC (encoding.CodecV2), and those of a Raw what they are.
type codec struct{}

func (codec) Name() string { return "dos" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *Frame:
		return v.marshal()
	case *rawMessage:
		return mem.BufferSlice{mem.SliceBuffer(*v)}, nil
	}
	return nil, fmt.Errorf("%T is not a frame", v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case *Frame:
		return v.unmarshal(data)
	case *rawMessage:
		*v = data.Materialize()
		return nil
	}
	return fmt.Errorf("%T is not a frame", v)
}
