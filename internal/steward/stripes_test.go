package steward_test

import (
	"dos/chunk"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/namespace"
)

// store writes a file whose one stripe has its first shard on a store.
func (w *world) store(id chunk.StoreID) {
	w.Helper()
	ctx := w.Context()
	must := func(err error) {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
	}
	_, err := client.Files{Caller: w.Caller}.Init(ctx, 0o755, 0, 0)
	must(err)
	info, err := client.Session{Caller: w.Caller}.Open(ctx, "test", "", 0)
	must(err)
	caller := client.Direct(w.memory, info.ID)
	first, err := client.Session{Caller: caller}.Reserve(ctx, 1)
	must(err)
	files := client.Files{Caller: caller}
	attr, err := files.Create(ctx, meta.Root, "f", meta.Node{Mode: meta.TypeFile | 0o600})
	must(err)
	_, err = files.Write(ctx, meta.Write{
		Ino: attr.Ino, Extents: []meta.Extent{{Len: 10000, Stripe: first}},
		Stripes: []chunk.Stripe{{ID: first, Len: 10000, Code: chunk.Code{K: 1, M: 1}, Stores: []chunk.StoreID{id, 1}}},
	})
	must(err)
}

// moved is the move of that shard to store 2.
func (w *world) moved() namespace.Move {
	return namespace.Move{Stripe: 1, Index: 0, From: 5, To: 2}
}
