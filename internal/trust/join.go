package trust

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// JoinProto is the protocol (ALPN) of a connection on which a machine or a client
// asks to join. It is the only one that needs no certificate.
//
// Either side sends one message: its length in 4 bytes, big-endian, at most
// joinMax, and as much JSON, a joinRequest or a joinAnswer.
const JoinProto = "dos-join/1"

const (
	joinMax  = 64 << 10
	joinWait = 20 * time.Second // for the whole exchange
)

type joinRequest struct {
	Secret string `json:"secret"`
	Name   string `json:"name"`
	Node   bool   `json:"node"` // a machine; else a client
	CSR    []byte `json:"csr"`
}

type joinAnswer struct {
	Error string `json:"error,omitempty"`
	Grant
}

// A Grant is what a joiner gets.
type Grant struct {
	Cert        []byte   `json:"cert,omitempty"`        // PEM
	Authorities []byte   `json:"authorities,omitempty"` // PEM
	Members     []string `json:"members,omitempty"`     // addresses of machines that know more
}

// A Wish is what a joiner asks for.
type Wish struct {
	Secret string
	Name   string
	Node   bool
	CSR    []byte
}

// Join asks the machine that the token names for an identity. What it returns
// is to be kept: the token is used up.
func Join(ctx context.Context, t Token, name string, node bool) (credentials []byte, members []string, err error) {
	if err := CheckName(name); err != nil {
		return nil, nil, err
	}
	req, err := NewRequest()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{JoinProto},
		// The authority is known by its hash.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return pinned(cs, t.CA) },
	}}
	conn, err := dialer.DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, nil, fmt.Errorf("joining through %s: %w", t.Addr, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // then Close ends it
	defer stop()
	if err := send(conn, joinRequest{t.Secret, name, node, req.CSR}); err != nil {
		return nil, nil, fmt.Errorf("joining through %s: %w", t.Addr, err)
	}
	var answer joinAnswer
	if err := receive(conn, &answer); err != nil {
		return nil, nil, fmt.Errorf("joining through %s: %w", t.Addr, err)
	}
	if answer.Error != "" {
		return nil, nil, fmt.Errorf("joining through %s: %w: %s", t.Addr, ErrRefused, answer.Error)
	}
	credentials, err = req.Credentials(answer.Cert, answer.Authorities)
	if err != nil {
		return nil, nil, err
	}
	if _, err := NewKeyring(credentials); err != nil {
		return nil, nil, fmt.Errorf("joining through %s: the answer is not whole: %w", t.Addr, err)
	}
	return credentials, answer.Members, nil
}

// pinned says whether the other side is a machine of the cluster whose authority
// has that hash. It shows the authority's certificate beside its own.
func pinned(cs tls.ConnectionState, hash string) error {
	for _, ca := range cs.PeerCertificates[1:] {
		if hashOf(ca) != hash {
			continue
		}
		id, err := identify(cs.PeerCertificates, poolOf(ca))
		if err == nil && !id.IsNode() {
			err = fmt.Errorf("%w: it is %v", ErrRefused, id)
		}
		return err
	}
	return fmt.Errorf("%w: it is not of the cluster that the token is for, or its authority was replaced since", ErrRefused)
}

// ServeJoin answers one joiner. admit decides; its error is told.
func ServeJoin(ctx context.Context, conn net.Conn, admit func(context.Context, Wish) (Grant, error)) error {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // then Close ends it
	defer stop()
	var req joinRequest
	if err := receive(conn, &req); err != nil {
		return err
	}
	var answer joinAnswer
	grant, err := admit(ctx, Wish(req))
	if err != nil {
		answer.Error = err.Error()
	} else {
		answer.Grant = grant
	}
	return errors.Join(err, send(conn, answer))
}

func send(w io.Writer, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(text) > joinMax {
		return fmt.Errorf("a message of %d bytes, at most %d", len(text), joinMax)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

func receive(r io.Reader, message any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("no message: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > joinMax {
		return fmt.Errorf("%w: a message of %d bytes, at most %d", ErrRefused, n, joinMax)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return fmt.Errorf("half a message: %w", err)
	}
	if err := json.Unmarshal(text, message); err != nil {
		return fmt.Errorf("%w: %v", ErrRefused, err)
	}
	return nil
}
