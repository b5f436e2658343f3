package trust

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// A Token lets its holder join a cluster, once. Its text is
//
//	HOST:PORT/CA-SHA256/SECRET
//
// with the address of a machine, the hash of the authority's certificate in
// hexadecimal digits, by which the joiner knows the cluster before it says
// anything, and 160 random bits in base32 (RFC 4648, lower case).
type Token struct {
	Addr   string
	CA     string
	Secret string
}

const secretSize = 20 // bytes

var secretText = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewToken draws a secret.
func NewToken(addr, ca string) Token {
	b := make([]byte, secretSize)
	rand.Read(b) //nolint:errcheck // it does not fail
	return Token{addr, ca, strings.ToLower(secretText.EncodeToString(b))}
}

func (t Token) String() string { return t.Addr + "/" + t.CA + "/" + t.Secret }

// ParseToken reads a token's text. The secret is never part of an error.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), "/")
	if len(parts) != 3 {
		return Token{}, fmt.Errorf("join token: HOST:PORT/CA-SHA256/SECRET is needed, as dosctl token create prints it")
	}
	t := Token{parts[0], parts[1], parts[2]}
	host, port, err := net.SplitHostPort(t.Addr)
	if err != nil || host == "" || port == "" {
		return Token{}, fmt.Errorf("join token: %.80q is no HOST:PORT", t.Addr)
	}
	if hash, err := hex.DecodeString(t.CA); err != nil || len(hash) != sha256.Size {
		return Token{}, fmt.Errorf("join token: the second part is no SHA-256; was it cut?")
	}
	if secret, err := secretText.DecodeString(strings.ToUpper(t.Secret)); err != nil || len(secret) != secretSize {
		return Token{}, fmt.Errorf("join token: the secret is not whole; was it cut?")
	}
	return t, nil
}

// tokenMax bounds what is read of a token in bytes.
const tokenMax = 4 << 10

// ReadToken takes a token as a command line has it: its text, which everybody on
// the machine can see then, or @FILE, or - for what stdin has.
func ReadToken(arg string, stdin io.Reader) (Token, error) {
	name, file := strings.CutPrefix(arg, "@")
	switch {
	case file:
		f, err := os.Open(name)
		if err != nil {
			return Token{}, fmt.Errorf("join token: %w", err)
		}
		defer f.Close()
		stdin = f
	case arg != "-":
		return ParseToken(arg)
	}
	text, err := io.ReadAll(io.LimitReader(stdin, tokenMax))
	if err != nil {
		return Token{}, fmt.Errorf("join token: %w", err)
	}
	return ParseToken(string(text))
}

// HashSecret is what is stored of a token's secret. The secret has more entropy
// than can be searched, so a plain hash serves.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte("dos join token\n" + strings.ToLower(secret)))
	return hex.EncodeToString(sum[:])
}
