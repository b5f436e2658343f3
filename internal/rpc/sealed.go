package rpc

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

const (
	// pieceSize is how many bytes of a payload are sealed together: few system
	// calls, and what was sealed is in the processor's cache still when it leaves.
	// With its tag a piece fills a buffer of the pool.
	pieceSize = 256<<10 - tagSize
	tagSize   = 16
	// headMax bounds a sealed head in bytes: a header, and what is said of the call.
	headMax = MaxHeader + 1<<10
	// sealsMax bounds what one key seals, in pieces and heads: at most 256 GiB, less
	// than what TLS may (RFC 8446 §5.5). Then it is time for another connection.
	sealsMax = 1 << 20

	sealLabel = "EXPORTER-dos-bulk"
	// localLabel is for connections within a machine. Who carries messages from one
	// kind to the other finds that they do not open.
	localLabel = "EXPORTER-dos-bulk-local"
	keySize    = 16 // AES-128, as in the suite that TLS prefers
	ivSize     = 12
)

// sealed is a connection on which messages are sealed by us, after TLS has shaken
// hands: it is drawn in the package comment. One goroutine at a time may use it.
type sealed struct {
	known         known
	conn          net.Conn
	local         bool          // payloads go as they are
	in            *bufio.Reader // of conn; pieces are larger than its buffer, and pass it by
	leaves, comes half          // what is sealed, and what is opened
}

// A half is one direction.
type half struct {
	aead  cipher.AEAD
	iv    [ivSize]byte
	count uint64 // of what it has sealed or opened
}

// seal takes over a connection that has just shaken hands, at one end or the other.
func (k known) seal(client bool) (*sealed, error) {
	conn, label := k.wire.Conn, sealLabel
	if isLocal(conn) {
		label = localLabel
		widen(conn)
	}
	state := k.ConnectionState()
	keys, err := state.ExportKeyingMaterial(label, nil, 2*(keySize+ivSize))
	if err != nil {
		return nil, fmt.Errorf("rpc: keys for bulk calls: %w", err)
	}
	s, err := newSealed(conn, keys, client)
	if err != nil {
		return nil, err
	}
	s.known = k
	return s, nil
}

// newSealed returns one end of conn under keys: the client's, then the server's.
func newSealed(conn net.Conn, keys []byte, client bool) (*sealed, error) {
	fromClient, err := newHalf(keys[:keySize+ivSize])
	if err != nil {
		return nil, err
	}
	fromServer, err := newHalf(keys[keySize+ivSize:])
	if err != nil {
		return nil, err
	}
	s := &sealed{conn: conn, local: isLocal(conn), in: bufio.NewReader(conn), leaves: fromClient, comes: fromServer}
	if !client {
		s.leaves, s.comes = s.comes, s.leaves
	}
	return s, nil
}

func newHalf(key []byte) (h half, err error) {
	block, err := aes.NewCipher(key[:keySize])
	if err != nil {
		return half{}, err
	}
	copy(h.iv[:], key[keySize:])
	h.aead, err = cipher.NewGCM(block)
	return h, err
}

// nonce is another one each time.
func (h *half) nonce() []byte {
	n := h.iv
	binary.BigEndian.PutUint64(n[4:], binary.BigEndian.Uint64(n[4:])^h.count)
	h.count++
	return n[:]
}

// worn says that the keys have been used enough.
func (s *sealed) worn() bool { return max(s.leaves.count, s.comes.count) > sealsMax }

// Close ends the connection, also for whoever is using it.
func (s *sealed) Close() error {
	s.known.forget()
	return s.conn.Close()
}

// send sends a message. It reads payload until it returns.
func (s *sealed) send(head []byte, payload []byte) error {
	if len(head) > headMax || len(payload) > MaxPayload {
		return orderly{fmt.Errorf("%w: a message of %d + %d bytes, at most %d + %d are allowed", ErrRefused, len(head), len(payload), headMax, MaxPayload)}
	}
	if s.local {
		b := s.sealHead(make([]byte, 0, lengthSize+len(head)+tagSize), head)
		_, err := (&net.Buffers{b, payload}).WriteTo(s.conn)
		return err
	}
	buf := pool.Get(lengthSize + len(head) + tagSize + min(len(payload), pieceSize) + tagSize)
	defer pool.Put(buf)
	b := s.sealHead((*buf)[:0], head)
	for {
		if n := min(len(payload), pieceSize); n > 0 {
			b = s.leaves.aead.Seal(b, s.leaves.nonce(), payload[:n], nil)
			payload = payload[n:]
		}
		if _, err := s.conn.Write(b); err != nil {
			return err
		}
		if len(payload) == 0 {
			return nil
		}
		b = b[:0]
	}
}

const lengthSize = 4

// sealHead appends how a message with this head begins to b, which is empty.
func (s *sealed) sealHead(b, head []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(head)))
	return s.leaves.aead.Seal(b, s.leaves.nonce(), head, b)
}

// await waits for a message to begin, and takes nothing of it.
func (s *sealed) await() error {
	_, err := s.in.Peek(lengthSize)
	return err
}

// receiveHead returns the head of the next message. began says that some of it came.
func (s *sealed) receiveHead() (head []byte, began bool, err error) {
	var length [lengthSize]byte
	if n, err := io.ReadFull(s.in, length[:]); err != nil {
		return nil, n > 0, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > headMax {
		return nil, true, fmt.Errorf("%w: a head of %d bytes, at most %d are allowed", ErrRefused, n, headMax)
	}
	head = make([]byte, n+tagSize)
	if _, err := io.ReadFull(s.in, head); err != nil {
		return nil, true, err
	}
	head, err = s.comes.aead.Open(head[:0], s.comes.nonce(), head, length[:])
	return head, true, err
}

// receivePayload fills p with the payload that comes after a head.
func (s *sealed) receivePayload(p []byte) error {
	if s.local {
		_, err := io.ReadFull(s.in, p)
		return err
	}
	buf := pool.Get(min(len(p), pieceSize) + tagSize)
	defer pool.Put(buf)
	for len(p) > 0 {
		n := min(len(p), pieceSize)
		piece := (*buf)[:n+tagSize]
		if _, err := io.ReadFull(s.in, piece); err != nil {
			return err
		}
		if _, err := s.comes.aead.Open(p[:0], s.comes.nonce(), piece, nil); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
