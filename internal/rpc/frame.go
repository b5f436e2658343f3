package rpc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

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

// marshal returns the frame as it goes out. The payload becomes part of it.
func (f *Frame) marshal() (mem.BufferSlice, error) {
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
	head = append(head, f.Header...)
	return append(mem.BufferSlice{mem.SliceBuffer(head)}, f.Take()...), nil
}

// unmarshal makes f the frame in data, of which it keeps references.
func (f *Frame) unmarshal(data mem.BufferSlice) error {
	total := data.Len()
	var head [prefix]byte
	if data.CopyTo(head[:]) < prefix {
		return fmt.Errorf("frame of %d bytes is shorter than its prefix", total)
	}
	if string(head[:4]) != magic {
		return fmt.Errorf("not a frame: it begins with %x", head[:4])
	}
	if head[4] != version || head[5]|head[6]|head[7] != 0 {
		return fmt.Errorf("frame of version %x, known is %d", head[4:8], version)
	}
	h, p := int64(binary.BigEndian.Uint32(head[8:])), int64(binary.BigEndian.Uint32(head[12:]))
	if h > MaxHeader || p > MaxPayload {
		return fmt.Errorf("frame of %d + %d bytes, at most %d + %d are allowed", h, p, MaxHeader, MaxPayload)
	}
	if int64(total) != prefix+h+p {
		return fmt.Errorf("frame of %d bytes says it has %d", total, prefix+h+p)
	}
	header := make([]byte, 0, h)
	var payload mem.BufferSlice
	sum := crc32.Checksum(head[:16], castagnoli)
	at := int64(0) // of the buffer in the frame
	for _, b := range data {
		n := int64(b.Len())
		if from, to := max(prefix-at, 0), min(prefix+h-at, n); from < to {
			header = append(header, b.ReadOnlyData()[from:to]...)
		}
		if from := max(prefix-at, 0); from < n {
			sum = crc32.Update(sum, castagnoli, b.ReadOnlyData()[from:])
		}
		if from := max(prefix+h-at, 0); from < n {
			payload = append(payload, b.Slice(int(from), int(n)))
		}
		at += n
	}
	if want := binary.BigEndian.Uint32(head[16:]); sum != want {
		payload.Free()
		return fmt.Errorf("frame of %d bytes has checksum %08x, not %08x: it was damaged on its way", total, sum, want)
	}
	f.Free()
	f.Header, f.Payload = header, payload
	return nil
}

// codec makes frames the messages of gRPC (encoding.CodecV2).
type codec struct{}

func (codec) Name() string { return "dos" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*Frame)
	if !ok {
		return nil, fmt.Errorf("%T is not a frame", v)
	}
	return f.marshal()
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*Frame)
	if !ok {
		return fmt.Errorf("%T is not a frame", v)
	}
	return f.unmarshal(data)
}
