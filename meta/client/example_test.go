package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/kv"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/queue"
	metarpc "dos/meta/rpc"
	"dos/meta/txn"
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

// A message is taken, a value changed and another message sent, all or nothing: what a
// consumer does so is done exactly once, whenever it is killed.
func ExampleAck() {
	ctx := context.Background()
	service := metatest.NewMemory(node.Machine()) // in the place of a cluster
	info, err := client.Session{Caller: client.Direct(service, 0)}.Open(ctx, "example", "", 0)
	if err != nil {
		fmt.Println(err)
	}
	here := client.Always(client.Direct(service, info.ID), info.ID)
	queues, values := client.Queues{Caller: here}, client.KV{Caller: here}
	for _, name := range []string{"orders", "mails"} {
		if err := queues.Make(ctx, name, 0o755, 0, 0); err != nil {
			fmt.Println(err)
		}
	}
	if err := values.Make(ctx, kv.Make{Name: "stock", Mode: 0o755}); err != nil {
		fmt.Println(err)
	}
	if _, err := queues.Push(ctx, "orders", queue.Message{Body: []byte("lamp")}); err != nil {
		fmt.Println(err)
	}

	taken, err := client.NewConsumer(here, "orders", "", "example").Try(ctx, 1)
	if err != nil || len(taken.Messages) == 0 {
		fmt.Println("nothing to do", err)
		return
	}
	order := taken.Messages[0]
	steps := []txn.Step{
		client.Ack("orders", taken.Claim, order.Number),
		{Verb: "put", Args: []string{"stock/lamp"}, Data: []byte("6")},
		client.Send("mails", queue.Message{Body: []byte("ordered: " + string(order.Body))}),
	}
	_, err = values.Commit(ctx, steps)
	fmt.Println("first:", err)
	_, err = values.Commit(ctx, steps)
	fmt.Println("again:", errors.Is(err, meta.Fenced))
	mails, err := queues.Status(ctx, "mails")
	fmt.Println("mails:", mails.Depth(), err)
	// Output:
	// first: <nil>
	// again: true
	// mails: 1 <nil>
}
