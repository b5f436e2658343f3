// Package trust is who is who between machines: the cluster's certificate
// authority, the identities it gives to machines and clients, and the TLS
// configurations that admit those and nobody else. It knows nothing of what is
// said over the connections, nor where tokens and revocations are kept.
//
// A certificate's identity is a URI in its subject alternative names,
//
//	dos://CLUSTER/node/NAME
//	dos://CLUSTER/client/NAME?rights=ro|rw|admin
//
// CLUSTER being the cluster's number in hexadecimal digits. Host names and
// addresses have no part in it: a machine may move.
package trust

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ErrRefused says that a peer or what it showed is not to be trusted.
var ErrRefused = errors.New("trust: refused")

// Rights say what a peer may do. Each includes those before it.
type Rights uint8

const (
	None      Rights = iota
	ReadOnly         // read files and special files
	ReadWrite        // change them
	Admin            // administer the cluster
	Member           // be a machine of the cluster
)

var rightsText = [...]string{None: "none", ReadOnly: "ro", ReadWrite: "rw", Admin: "admin", Member: "member"}

func (r Rights) String() string {
	if int(r) < len(rightsText) {
		return rightsText[r]
	}
	return fmt.Sprintf("rights %d", uint8(r))
}

// ParseRights reads what a client may be given: ro, rw or admin.
func ParseRights(text string) (Rights, error) {
	for _, r := range []Rights{ReadOnly, ReadWrite, Admin} {
		if text == r.String() {
			return r, nil
		}
	}
	return None, fmt.Errorf("rights %q: ro, rw or admin is needed", text)
}

// A ClusterID is drawn when a cluster is made.
type ClusterID [16]byte

// An Identity is whom a certificate names.
type Identity struct {
	Cluster ClusterID
	Name    string
	Rights  Rights // Member for a machine, else those of a client
}

// IsNode says that the identity is a machine's.
func (id Identity) IsNode() bool { return id.Rights == Member }

func (id Identity) String() string {
	if id.IsNode() {
		return "node " + id.Name
	}
	return fmt.Sprintf("client %s (%s)", id.Name, id.Rights)
}

// NameMax bounds a name in bytes.
const NameMax = 63

// CheckName says whether a name can be that of a machine or a client: letters,
// digits, dots and hyphens, as in host names (RFC 1123).
func CheckName(name string) error {
	ok := name != "" && len(name) <= NameMax && name[0] != '-' && name[0] != '.'
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_')
	}
	if !ok {
		return fmt.Errorf("name %.80q: up to %d letters, digits, hyphens, underscores and dots are needed", name, NameMax)
	}
	return nil
}

const scheme = "dos"

func (id Identity) uri() *url.URL {
	u := &url.URL{Scheme: scheme, Host: hex.EncodeToString(id.Cluster[:])}
	if id.IsNode() {
		u.Path = "/node/" + id.Name
		return u
	}
	u.Path = "/client/" + id.Name
	u.RawQuery = "rights=" + id.Rights.String()
	return u
}

// parseURI is the inverse of uri; anything else is refused.
func parseURI(u *url.URL) (Identity, error) {
	var id Identity
	bad := fmt.Errorf("%w: the certificate names %.200q, which is no identity of dos", ErrRefused, u.String())
	cluster, err := hex.DecodeString(u.Host)
	if u.Scheme != scheme || err != nil || len(cluster) != len(id.Cluster) {
		return id, bad
	}
	copy(id.Cluster[:], cluster)
	kind, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	id.Name = name
	switch kind {
	case "node":
		id.Rights = Member
	case "client":
		if id.Rights, err = ParseRights(u.Query().Get("rights")); err != nil {
			return Identity{}, bad
		}
	default:
		return Identity{}, bad
	}
	if CheckName(name) != nil || id.uri().String() != u.String() {
		return Identity{}, bad
	}
	return id, nil
}
