package client_test

import (
	"context"
	"crypto/tls"
	"fmt"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	metarpc "dos/meta/rpc"
)

// The connections to a cluster's members carry a session and its calls.
func Example_remote() {
	list := func(ctx context.Context, addrs []string, identity *tls.Config) error {
		service := metarpc.NewClient(func(addr string) (*rpc.Client, error) {
			return rpc.Dial(addr, rpc.ClientConfig{TLS: identity})
		}, addrs...)
		defer service.Close()

		sessions := client.Session{Caller: client.Direct(service, 0)}
		info, err := sessions.Open(ctx, "example", "", 0)
		if err != nil {
			return err
		}
		files := client.Files{Caller: client.NewRemote(service, info.ID)}
		names, _, err := files.Entries(ctx, meta.Root, "", 100, false)
		if err != nil {
			return err
		}
		for _, e := range names {
			fmt.Println(e.Name)
		}
		return sessions.End(ctx, info.ID)
	}
	_ = list // there is no cluster here
}

// Files are the calls of the tree, over any Caller.
func ExampleFiles() {
	ctx := context.Background()
	service := metatest.NewMemory(node.Machine()) // in the place of a cluster
	files := client.Files{Caller: client.Direct(service, 0)}

	if _, err := files.Init(ctx, 0o755, 0, 0); err != nil {
		fmt.Println(err)
	}
	file, err := files.Create(ctx, meta.Root, "hello", meta.Node{Mode: meta.TypeFile | 0o644})
	if err != nil {
		fmt.Println(err)
	}
	_, err = files.Write(ctx, meta.Write{Ino: file.Ino, Extents: []meta.Extent{{Len: 5, Inline: []byte("there")}}, Size: 5})
	if err != nil {
		fmt.Println(err)
	}
	found, err := files.Lookup(ctx, meta.Root, "hello")
	fmt.Println(found.Size, err)
	_, err = files.Lookup(ctx, meta.Root, "bye")
	fmt.Println(err)
	// Output:
	// 5 <nil>
	// does not exist
}

// Locked runs something with a lock held. Whoever it changes anything for can check
// the token: it is greater than that of anybody who had the lock before.
func ExampleLocked() {
	ctx := context.Background()
	service := metatest.NewMemory(node.Machine()) // in the place of a cluster
	for range 2 {
		err := client.Locked(ctx, service, "here", "deploy", client.How{}, func(ctx context.Context, token uint64) error {
			fmt.Println("with token", token)
			return nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// with token 1
	// with token 2
}
