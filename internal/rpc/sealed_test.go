package rpc

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"testing"
)

// sealedPair returns both ends of a connection under keys that are always the same.
func sealedPair(t *testing.T) (client, server *sealed) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return sealedOn(t, a, true), sealedOn(t, b, false)
}

func sealedOn(t *testing.T, conn net.Conn, client bool) *sealed {
	t.Helper()
	keys := make([]byte, 2*(keySize+ivSize))
	for i := range keys {
		keys[i] = byte(i)
	}
	s, err := newSealed(conn, keys, client)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A change here is a change of the protocol: give it another name (Bulk).
func TestSealedGolden(t *testing.T) {
	var wire taken
	s := sealedOn(t, &wire, true)
	for range 2 { // the same, but for the nonces
		if err := s.send([]byte("head"), []byte("payload")); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{
		"00000004ac4b62cbd65797cb92e27d9046f5b539851b0d0e50b80a43cc6b438c0f0c227397a9b16d54a0c3e1cfa6c7",
		"00000004f5d7880d74748b50efa859eb8822a799f0d672e9a425de30e936b02f6c1ce8a0f64e97252e2ec4f2ecaf25",
	} {
		if got := hex.EncodeToString(wire.writes[i]); got != want {
			t.Errorf("message %d is %s, want %s", i, got, want)
		}
	}
	wire.writes = nil
	if err := s.send([]byte("large"), make([]byte, 2*pieceSize+1)); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(bytes.Join(wire.writes, nil))
	if got, want := hex.EncodeToString(sum[:]), "6f077930a8d0d4a9065978c514bfa3d15aaade618d9665530351f83ea6098f16"; got != want {
		t.Errorf("a message of three pieces has SHA-256 %s, want %s", got, want)
	}
	if len(wire.writes) != 3 {
		t.Errorf("it left in %d writes", len(wire.writes))
	}
}

func TestSealed(t *testing.T) {
	client, server := sealedPair(t)
	for _, size := range []int{0, 1, 4096, pieceSize - 1, pieceSize, pieceSize + 1, 3*pieceSize + 7} {
		payload := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		for _, way := range []struct{ from, to *sealed }{{client, server}, {server, client}} {
			sent := make(chan error, 1)
			go func() { sent <- way.from.send([]byte("head"), payload) }()
			head, _, err := way.to.receiveHead()
			if err != nil || string(head) != "head" {
				t.Fatalf("%d bytes: head %q, %v", size, head, err)
			}
			got := make([]byte, size)
			if err := way.to.receivePayload(got); err != nil || !bytes.Equal(got, payload) {
				t.Fatalf("%d bytes arrived as others, %v", size, err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// message is what is on the wire of a message after n others.
func message(t *testing.T, n int, client bool) []byte {
	t.Helper()
	var wire taken
	s := sealedOn(t, &wire, client)
	for range n + 1 {
		wire.writes = nil
		if err := s.send([]byte("head"), []byte("payload")); err != nil {
			t.Fatal(err)
		}
	}
	return bytes.Join(wire.writes, nil)
}

// read is what a server makes of what comes over the wire.
func read(t *testing.T, wire []byte) error {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		a.Write(wire) //nolint:errcheck // the other end may have had enough
		a.Close()
	}()
	s := sealedOn(t, b, false)
	if _, _, err := s.receiveHead(); err != nil {
		return err
	}
	p := make([]byte, len("payload"))
	err := s.receivePayload(p)
	if err == nil && string(p) != "payload" {
		t.Errorf("%x was read as %q", wire, p)
	}
	return err
}

// TestSealedTampered: what is not as it was sent, or not in its place, is refused.
func TestSealedTampered(t *testing.T) {
	good := message(t, 0, true)
	if err := read(t, good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if read(t, bad) == nil {
			t.Errorf("byte %d of %d was changed, and nobody noticed", i, len(good))
		}
		if read(t, good[:i]) == nil {
			t.Errorf("cut after %d of %d bytes, and nobody noticed", i, len(good))
		}
	}
	if read(t, message(t, 1, true)) == nil {
		t.Error("the second message was taken for the first")
	}
	if read(t, message(t, 0, false)) == nil {
		t.Error("what a server sent was taken for a client's")
	}
}

func TestSealedWorn(t *testing.T) {
	client, _ := sealedPair(t)
	client.leaves.count = sealsMax
	if client.worn() {
		t.Error("worn too early")
	}
	client.leaves.nonce()
	if !client.worn() {
		t.Error("keys are used for ever")
	}
}
