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
	"dos/internal/trust"
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
	switch {
	case fresh && c.Bootstrap:
		err = d.found(c)
	case fresh:
		err = d.join(ctx, c)
	case d.node == "":
		d.node = nodeName
		err = d.founded()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// found makes the directory that of a new cluster's first machine.
func (d *dataDir) found(c MachineConfig) error {
	if d.node = c.Name; d.node == "" {
		var err error
		if d.node, err = hostName(); err != nil {
			return err
		}
	}
	if d.code = c.Code; c.Code == (chunk.Code{}) {
		d.code = defaultCode
	}
	rand.Read(d.cluster[:]) //nolint:errcheck // it does not fail
	return d.founded()
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

// founded makes the authority and the first identity, and then the directory whole.
func (d *dataDir) founded() error {
	if err := trust.CheckName(d.node); err != nil {
		return err
	}
	authority, err := trust.NewAuthority(d.cluster)
	if err != nil {
		return err
	}
	text, err := authority.PEM()
	if err != nil {
		return err
	}
	request, err := trust.NewRequest()
	if err != nil {
		return err
	}
	cert, err := authority.Sign(request.CSR, trust.Identity{Cluster: d.cluster, Name: d.node, Rights: trust.Member})
	if err != nil {
		return err
	}
	credentials, err := request.Credentials(cert, authority.CertPEM())
	if err != nil {
		return err
	}
	if err := trust.Save(d.authority(), text); err != nil {
		return err
	}
	if err := trust.Save(d.identity(), credentials); err != nil {
		return err
	}
	return d.write()
}

// join asks for an identity and makes the directory that of a machine of the
// cluster which gave it.
func (d *dataDir) join(ctx context.Context, c MachineConfig) error {
	token, err := trust.ParseToken(c.Join)
	if err != nil {
		return err
	}
	if d.node = c.Name; d.node == "" {
		if d.node, err = hostName(); err != nil {
			return err
		}
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

// authority is the file of the authority's key, until the metadata has it.
func (d *dataDir) authority() string { return filepath.Join(d.path, "authority") }

// keepPeers notes where other machines are, for the next start. It is no more
// than a hint: losing it costs nothing as long as one address is still right.
func (d *dataDir) keepPeers(addrs []string) error {
	addrs = slices.Compact(slices.Sorted(slices.Values(addrs)))
	name := filepath.Join(d.path, "peers")
	if err := os.WriteFile(name+".new", []byte(strings.Join(addrs, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// peers is what keepPeers noted.
func (d *dataDir) peers() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(d.path, "peers"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}
