package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/kv"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/txn"
)

// Values are compared and swapped by their versions, several at once in a transaction.
func ExampleKV() {
	ctx := context.Background()
	service := metatest.NewMemory(node.Machine()) // in the place of a cluster
	values := client.KV{Caller: client.Direct(service, 0)}

	if err := values.Make(ctx, kv.Make{Name: "stock", Mode: 0o755}); err != nil {
		fmt.Println(err)
	}
	version, err := values.Put(ctx, kv.Put{Table: "stock", Key: "apples", Data: []byte("7"), Mode: 0o644})
	if err != nil {
		fmt.Println(err)
	}
	take := []txn.Step{
		{Verb: "if", Args: []string{"stock/apples", "version", fmt.Sprint(version)}},
		{Verb: "put", Args: []string{"stock/apples"}, Data: []byte("6")},
		{Verb: "put", Args: []string{"stock/sold"}, Data: []byte("1")},
	}
	_, err = values.Commit(ctx, take)
	fmt.Println(err)
	_, err = values.Commit(ctx, take)
	fmt.Println(errors.Is(err, meta.Conflict))
	apples, err := values.Get(ctx, "stock", "apples")
	fmt.Println(string(apples.Data), err)
	// Output:
	// <nil>
	// true
	// 6 <nil>
}

func TestLargeValues(t *testing.T) {
	service := metatest.NewMemory(node.Machine())
	info, err := client.Session{Caller: client.Direct(service, 0)}.Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	k := client.KV{Caller: client.NewRemote(service, info.ID)}
	if err := k.Make(t.Context(), kv.Make{Name: "t"}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, kv.InlineMax, kv.InlineMax + 1, kv.PartMax, kv.PartMax + 1, kv.ValueMax} {
		data := bytes.Repeat([]byte{byte(size), 1, 2}, size/3+1)[:size]
		if _, err := k.Put(t.Context(), kv.Put{Table: "t", Key: "k", Data: data}); err != nil {
			t.Fatal(err)
		}
		e, err := k.Get(t.Context(), "t", "k")
		if err != nil || !bytes.Equal(e.Data, data) || e.Size != size {
			t.Errorf("%d bytes: got %d, said to be %d, %v", size, len(e.Data), e.Size, err)
		}
	}
	if _, err := k.Put(t.Context(), kv.Put{Table: "t", Key: "k", Data: make([]byte, kv.ValueMax+1)}); !errors.Is(err, meta.TooLarge) {
		t.Errorf("one byte more: %v", err)
	}
	version := uint64(99)
	if _, err := k.Put(t.Context(), kv.Put{Table: "t", Key: "k", Data: make([]byte, kv.ValueMax), Only: &version}); !errors.Is(err, meta.Conflict) {
		t.Errorf("another version: %v", err)
	}
	// Without a session there is nobody to stage for.
	k.Caller = client.Direct(service, 0)
	if _, err := k.Put(t.Context(), kv.Put{Table: "t", Key: "k", Data: make([]byte, kv.ValueMax)}); !errors.Is(err, meta.Invalid) {
		t.Errorf("without a session: %v", err)
	}
}

// Updates and reads of several values carry large ones among small ones.
func TestUpdates(t *testing.T) {
	service := metatest.NewMemory(node.Machine())
	info, err := client.Session{Caller: client.Direct(service, 0)}.Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	k := client.KV{Caller: client.NewRemote(service, info.ID)}
	if err := k.Make(t.Context(), kv.Make{Name: "t"}); err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("large"), kv.ValueMax/5)
	steps := []kv.Step{
		{Do: kv.Write, Key: "a", Data: []byte("1")}, {Do: kv.Write, Key: "b", Data: large},
		{Do: kv.Write, Key: "b", Data: large, If: kv.Absent}, {Do: kv.Add, Key: "a", Number: 4},
	}
	for range 9 { // what they tell does not fit one answer
		steps = append(steps, kv.Step{Do: kv.Write, Key: "c", Data: large[:40_000], Tell: true})
	}
	out, err := k.Update(t.Context(), kv.Update{Table: "t", Steps: steps[:4]})
	if err != nil || len(out) != 4 || out[2].Why != kv.NotSo || out[3].Number != 5 || steps[1].Blob != nil {
		t.Fatalf("%+v, %v", out, err)
	}
	for i := 4; i < len(steps); i += 5 {
		part := steps[i:min(len(steps), i+5)]
		if out, err = k.Update(t.Context(), kv.Update{Table: "t", Steps: part}); err != nil || len(out) != len(part) {
			t.Fatalf("%d outcomes, %v", len(out), err)
		}
	}
	list, err := k.Gets(t.Context(), "t", []string{"a", "none", "b", "c"}, true)
	if err != nil || len(list) != 4 || string(list[0].Data) != "5" || list[1].Version != 0 || !bytes.Equal(list[2].Data, large) || len(list[3].Data) != 40_000 {
		t.Errorf("%d entries, %v", len(list), err)
	}
	if _, err := k.Update(t.Context(), kv.Update{Table: "t", Steps: []kv.Step{{Do: kv.Write, Key: "b", Data: append(large, 0, 1)}}}); !errors.Is(err, meta.TooLarge) {
		t.Errorf("too large: %v", err)
	}
}
