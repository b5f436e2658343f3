package trust

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
)

// Credentials is an identity in one piece, as it is kept in files: the
// certificate, its key, and the authorities to trust. It is a secret.
func (r *Request) Credentials(cert []byte, authorities []byte) ([]byte, error) {
	key, err := keyPEM(r.key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(cert, key, authorities), nil
}

// Credentials is what the keyring holds now, in the same form, and with it who
// was turned out: so nobody of them is admitted after a restart, before the
// list can be asked for.
func (k *Keyring) Credentials() ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, err := keyPEM(k.own.PrivateKey.(crypto.Signer))
	if err != nil {
		return nil, err
	}
	text := slices.Concat(certPEM(k.own.Leaf.Raw), key)
	for _, ca := range k.cas {
		text = append(text, certPEM(ca.Raw)...)
	}
	if len(k.revoked) == 0 {
		return text, nil
	}
	out := strings.Join(slices.Sorted(maps.Keys(k.revoked)), "\n")
	return append(text, pem.EncodeToMemory(&pem.Block{Type: revokedBlock, Bytes: []byte(out)})...), nil
}

// revokedBlock is the type of a PEM block with serial numbers, one a line.
const revokedBlock = "DOS REVOKED"

// splitRevoked takes a block of serial numbers from the end of credentials.
func splitRevoked(credentials []byte) (rest []byte, revoked map[string]bool) {
	at := bytes.Index(credentials, []byte("-----BEGIN "+revokedBlock+"-----"))
	if at < 0 {
		return credentials, nil
	}
	block, after := pem.Decode(credentials[at:])
	if block == nil {
		return credentials, nil // parsePEM says what is wrong
	}
	revoked = make(map[string]bool)
	for serial := range strings.SplitSeq(string(block.Bytes), "\n") {
		revoked[serial] = true
	}
	return slices.Concat(credentials[:at], after), revoked
}
