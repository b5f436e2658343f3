package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dos/chunk"
	"dos/internal/admission"
	"dos/internal/trust"
	"dos/meta/client"
	"dos/meta/namespace"
	metanode "dos/meta/node"
	"dos/meta/replica"
)

// openMachineData takes the data directory of a machine of a cluster. A new one
// is made by founding a cluster, or by joining one; on one that is a machine's
// already neither is done again, so that a machine may always be started by the
// same command. The directory of an embedded cluster is taken over if a
// cluster is to be founded: it becomes that cluster's first machine.
func openMachineData(ctx context.Context, c MachineConfig) (*dataDir, error) {
	d, fresh, err := takeData(c.Data, c.Bootstrap || c.Join != "", func(d *dataDir) error {
		switch {
		case d.node == "" && !c.Bootstrap:
			return fmt.Errorf("%s has an embedded cluster: dosmount runs it, or dosd --bootstrap takes it over", c.Data)
		case d.node == "" && c.Name != "" && c.Name != nodeName:
			return fmt.Errorf("%s has an embedded cluster, whose machine is named %s for good: leave --name out", c.Data, nodeName)
		case d.node != "" && c.Name != "" && c.Name != d.node:
			return fmt.Errorf("%s belongs to machine %s, not %s", c.Data, d.node, c.Name)
		case d.code != (chunk.Code{}):
			return d.agrees(c.Code)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	restored, err := d.wasRestored()
	switch {
	case err != nil:
	case d.wasRemoved():
		err = d.removed()
	case restored && d.node != "":
		err = fmt.Errorf("dosctl restore of %s was cut short: remove %s and do it again", c.Data, d.meta())
	case fresh && c.Bootstrap:
		err = d.found(c)
	case fresh:
		err = d.join(ctx, c)
	case d.node == "":
		d.node = nodeName
		err = d.write()
	}
	if err == nil && c.Bootstrap {
		err = d.identify(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// found makes the directory that of a new cluster's first machine.
func (d *dataDir) found(c MachineConfig) error {
	var err error
	if d.node, err = nameOf(c); err != nil {
		return err
	}
	if d.code = c.Code; c.Code == (chunk.Code{}) {
		d.code = defaultCode
	}
	rand.Read(d.cluster[:]) //nolint:errcheck // it does not fail
	return d.write()
}

// nameOf is the name that a machine is to have.
func nameOf(c MachineConfig) (string, error) {
	if c.Name != "" {
		return c.Name, trust.CheckName(c.Name)
	}
	return hostName()
}

// hostName is the name of a machine that was given none.
func hostName() (string, error) {
	name, err := os.Hostname()
	if err == nil {
		err = trust.CheckName(name)
	}
	if err != nil {
		return "", fmt.Errorf("the machine's own name does not do, say --name: %w", err)
	}
	return name, nil
}

// identify makes the cluster, its authority and this machine's identity, if that
// has not been done. Its metadata has one member then, which nobody else knows.
func (d *dataDir) identify(ctx context.Context) (err error) {
	authority, err := trust.Load(d.authority())
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Stat(d.identity()); !errors.Is(err, os.ErrNotExist) {
			return err // it was done
		}
		var credentials []byte
		if authority, credentials, err = admission.Found(d.cluster, d.node); err != nil {
			return err
		}
		// In this order, so that a start that is cut short goes on where it was.
		if err := trust.Save(d.identity()+".new", credentials); err != nil {
			return err
		}
		if err := trust.Save(d.authority(), authority); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	if err := os.Rename(d.identity()+".new", d.identity()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	keys, err := d.keyring()
	if err != nil {
		return err
	}
	if err := d.begin(ctx, authority, keys); err != nil {
		return err
	}
	return os.Remove(d.authority())
}

// begin writes down what a new cluster is.
func (d *dataDir) begin(ctx context.Context, authority []byte, keys *trust.Keyring) (err error) {
	id, err := replica.MemberID(d.meta(), d.node)
	if err != nil {
		return err
	}
	member, err := metanode.Open(replica.Config{Dir: d.meta(), ID: id, Bootstrap: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	if err := (client.Members{Caller: member}).Init(ctx, d.cluster, d.code); err != nil {
		return err
	}
	root := namespace.Init{Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if err := member.Call(ctx, namespace.OpInit, root, nil); err != nil {
		return err
	}
	return admission.Deposit(ctx, member, authority, keys)
}

// join asks for an identity and makes the directory that of a machine of the
// cluster which gave it.
func (d *dataDir) join(ctx context.Context, c MachineConfig) error {
	token, err := trust.ReadToken(c.Join, os.Stdin)
	if err != nil {
		return err
	}
	if d.node, err = nameOf(c); err != nil {
		return err
	}
	keys, err := d.keyring()
	if errors.Is(err, os.ErrNotExist) { // else a start was cut short, and the token is used up
		credentials, peers, err := trust.Join(ctx, token, d.node, true)
		if err != nil {
			return err
		}
		if err := d.keepPeers(append(peers, token.Addr)); err != nil {
			return err
		}
		if err := trust.Save(d.identity(), credentials); err != nil {
			return err
		}
		keys, err = d.keyring()
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	d.cluster = keys.Self().Cluster
	return d.write()
}

// keyring reads the machine's identity.
func (d *dataDir) keyring() (*trust.Keyring, error) {
	credentials, err := trust.Load(d.identity())
	if err != nil {
		return nil, err
	}
	keys, err := trust.NewKeyring(credentials)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.identity(), err)
	}
	if self := keys.Self(); self.Name != d.node || !self.IsNode() {
		return nil, fmt.Errorf("%s is that of %v, not of machine %s", d.identity(), self, d.node)
	}
	return keys, nil
}

// identity is the file of the machine's certificate and key.
func (d *dataDir) identity() string { return filepath.Join(d.path, "identity") }

// authority is the file of the authority's key until the metadata has it.
func (d *dataDir) authority() string { return filepath.Join(d.path, "authority") }

// keepPeers notes where other machines are, for the next start. It is no more
// than a hint: losing it costs nothing as long as one address is still right.
func (d *dataDir) keepPeers(addrs []string) error {
	addrs = slices.Compact(slices.Sorted(slices.Values(addrs)))
	return replaceFile(filepath.Join(d.path, "peers"), strings.Join(addrs, "\n")+"\n")
}

// peers is what keepPeers noted.
func (d *dataDir) peers() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(d.path, "peers"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}
