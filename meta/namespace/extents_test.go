package namespace_test

import (
	"bytes"
	"slices"
	"testing"

	"dos/chunk"
	"dos/meta"
	"dos/meta/namespace"
	"dos/meta/session"
)

// TestWriteRefusals sends writes that a bug or a bad client could send. Each is
// refused and changes nothing (the world compares).
func TestWriteRefusals(t *testing.T) {
	w := newWorld(t)
	other := w.file("other")
	ino := w.file("f")
	first := w.reserve(20) // 20 IDs; the first three are used below
	ok := func(req meta.Write) {
		t.Helper()
		if _, err := w.write(req); err != nil {
			t.Fatal(err)
		}
	}
	in := func(id chunk.StripeID, off, size int64, at uint32) meta.Extent {
		return meta.Extent{Off: off, Len: size, Stripe: id, At: at}
	}
	list := func(e ...meta.Extent) []meta.Extent { return e }
	one := func(s chunk.Stripe) []chunk.Stripe { return []chunk.Stripe{s} }
	ok(meta.Write{Ino: other, Extents: list(in(first, 0, 50, 0)), Stripes: one(stripeOf(first, 100))})
	ok(meta.Write{Ino: ino, Extents: list(in(first+1, 0, 100, 0)), Stripes: one(stripeOf(first+1, 100))})
	ok(meta.Write{Ino: ino, Extents: list(in(first+2, 0, 100, 0)), Stripes: one(stripeOf(first+2, 100)), Low: first + 5}) // kills +1

	me := w.me
	w.me = must[session.Info](w, session.OpOpen, session.Open{}).ID
	foreign := w.reserve(1)
	w.me = me

	s := stripeOf(first+6, 100)
	with := func(change func(*chunk.Stripe)) meta.Write {
		bad := s
		bad.Stores = slices.Clone(s.Stores)
		change(&bad)
		return meta.Write{Ino: ino, Extents: list(in(bad.ID, 0, 10, 0)), Stripes: one(bad)}
	}
	tests := []struct {
		name string
		req  meta.Write
		want meta.Kind
	}{
		{"no such file", meta.Write{Ino: 99}, meta.NotExist},
		{"a directory", meta.Write{Ino: meta.Root}, meta.IsDir},
		{"negative offset", meta.Write{Ino: ino, Extents: list(in(first+2, -1, 10, 0))}, meta.Invalid},
		{"no bytes", meta.Write{Ino: ino, Extents: list(in(first+2, 0, 0, 0))}, meta.Invalid},
		{"negative bytes", meta.Write{Ino: ino, Extents: list(in(first+2, 5, -1, 0))}, meta.Invalid},
		{"over the largest size", meta.Write{Ino: ino, Extents: list(in(first+2, meta.SizeMax, 1, 0))}, meta.TooLarge},
		{"over 63 bits", meta.Write{Ino: ino, Extents: list(in(first+2, 1<<62, 1<<62, 0))}, meta.TooLarge},
		{"overlap", meta.Write{Ino: ino, Extents: list(in(first+2, 0, 10, 0), in(first+2, 9, 10, 10))}, meta.Invalid},
		{"out of order", meta.Write{Ino: ino, Extents: list(in(first+2, 50, 10, 0), in(first+2, 0, 10, 10))}, meta.Invalid},
		{"behind the stripe's end", meta.Write{Ino: ino, Extents: list(in(first+2, 0, 10, 91))}, meta.Invalid},
		{"offset in stripe wraps", meta.Write{Ino: ino, Extents: list(in(first+2, 0, 10, ^uint32(0)))}, meta.Invalid},
		{"bytes named twice", meta.Write{Ino: ino, Extents: list(in(first+2, 200, 100, 0))}, meta.Invalid},
		{"inline and a stripe", meta.Write{Ino: ino, Extents: list(meta.Extent{Len: 1, Stripe: first + 2, Inline: []byte("x")})}, meta.Invalid},
		{"inline of another length", meta.Write{Ino: ino, Extents: list(meta.Extent{Len: 2, Inline: []byte("x")})}, meta.Invalid},
		{"inline with an offset", meta.Write{Ino: ino, Extents: list(meta.Extent{Len: 1, At: 1, Inline: []byte("x")})}, meta.Invalid},
		{"too much inline", meta.Write{Ino: ino, Extents: list(meta.Extent{Len: meta.InlineMax + 1, Inline: make([]byte, meta.InlineMax+1)})}, meta.TooLarge},
		{"too many extents", meta.Write{Ino: ino, Extents: small(meta.BatchMax+1, 1, 2)}, meta.TooLarge},
		{"too many holes", meta.Write{Ino: ino, Extents: small(1, 1, 2), Punch: make([]meta.Range, meta.BatchMax)}, meta.TooLarge},
		{"bad hole", meta.Write{Ino: ino, Punch: []meta.Range{{Off: 1}}}, meta.Invalid},
		{"negative size", meta.Write{Ino: ino, Size: -1}, meta.Invalid},
		{"size too large", meta.Write{Ino: ino, Size: meta.SizeMax + 1}, meta.TooLarge},
		{"unknown stripe", meta.Write{Ino: ino, Extents: list(in(first+6, 0, 10, 0))}, meta.Invalid},
		{"another file's stripe", meta.Write{Ino: ino, Extents: list(in(first, 0, 10, 0))}, meta.Invalid},
		{"another file's stripe, listed", meta.Write{Ino: ino, Extents: list(in(first, 0, 10, 0)), Stripes: one(stripeOf(first, 100))}, meta.Invalid},
		{"dead stripe", meta.Write{Ino: ino, Extents: list(in(first+1, 0, 10, 0))}, meta.Conflict},
		{"dead stripe, listed", meta.Write{Ino: ino, Extents: list(in(first+1, 0, 10, 0)), Stripes: one(stripeOf(first+1, 100))}, meta.Conflict},
		{"known stripe of another length", meta.Write{Ino: ino, Extents: list(in(first+2, 0, 10, 0)), Stripes: one(stripeOf(first+2, 99))}, meta.Invalid},
		{"below the low-water mark", with(func(s *chunk.Stripe) { s.ID = first + 4 }), meta.Invalid},
		{"never reserved", with(func(s *chunk.Stripe) { s.ID = 1 << 40 }), meta.Invalid},
		{"another session's", with(func(s *chunk.Stripe) { s.ID = foreign }), meta.Invalid},
		{"no ID", with(func(s *chunk.Stripe) { s.ID = 0 }), meta.Invalid},
		{"no length", with(func(s *chunk.Stripe) { s.Len = 0 }), meta.Invalid},
		{"too long", with(func(s *chunk.Stripe) { s.Len = chunk.MaxStripe + 1 }), meta.Invalid},
		{"no data shards", with(func(s *chunk.Stripe) { s.Code.K = 0 }), meta.Invalid},
		{"too many shards", with(func(s *chunk.Stripe) { s.Code.K = 200; s.Stores = make([]chunk.StoreID, 202) }), meta.Invalid},
		{"a store missing", with(func(s *chunk.Stripe) { s.Stores = s.Stores[:2] }), meta.Invalid},
		{"no store", with(func(s *chunk.Stripe) { s.Stores[1] = 0 }), meta.Invalid},
		{"a store twice", with(func(s *chunk.Stripe) { s.Stores[1] = s.Stores[0] }), meta.Invalid},
		{"listed twice", meta.Write{Ino: ino, Extents: list(in(s.ID, 0, 10, 0), in(s.ID, 10, 10, 10)), Stripes: []chunk.Stripe{s, s}}, meta.Invalid},
		{"listed, not named", meta.Write{Ino: ino, Extents: list(in(first+2, 0, 10, 0)), Stripes: one(s)}, meta.Invalid},
		{"stripes without extents", meta.Write{Ino: ino, Stripes: one(s)}, meta.Invalid},
		{"mark above what was reserved", meta.Write{Ino: ino, Low: foreign + 2}, meta.Invalid},
	}
	for _, tt := range tests {
		if _, err := w.write(tt.req); kindOf(err) != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := w.write(with(func(*chunk.Stripe) {})); err != nil {
		t.Errorf("a good one: %v", err)
	}
	w.me = 0
	if _, err := w.write(meta.Write{Ino: ino, Extents: list(in(first+7, 0, 10, 0)), Stripes: one(stripeOf(first+7, 100))}); kindOf(err) != meta.Invalid {
		t.Errorf("new stripe without a session: %v", err)
	}
	w.check()
}

// reads returns the size bytes of a file that is all inline.
func reads(w *world, ino meta.Ino, size int64) []byte {
	data := make([]byte, size)
	for off := int64(0); off < size; {
		l := must[meta.Layout](w, namespace.OpLayout, namespace.Layout{Ino: ino, Off: off, Size: size - off})
		for _, e := range l.Extents {
			copy(data[e.Off:], e.Inline)
		}
		off = l.End
	}
	return data
}

// many makes a file of three times BatchMax extents: bytes 0 and 1 of every four.
func many(w *world) meta.Ino {
	ino := w.file("many")
	for i := range int64(3) {
		list := small(meta.BatchMax, 2, 4)
		for j := range list {
			list[j].Off += i * 4 * meta.BatchMax
		}
		if _, err := w.write(meta.Write{Ino: ino, Extents: list}); err != nil {
			w.t.Fatal(err)
		}
	}
	return ino
}

// A truncation of a file with many extents is at once what readers see, also
// when the file grows again and is written to before Purge is done.
func TestTruncateMany(t *testing.T) {
	w := newWorld(t)
	ino := many(w)
	all := int64(3 * 4 * meta.BatchMax)
	want := reads(w, ino, all)
	holds := func(when string) {
		t.Helper()
		if got := reads(w, ino, all); !bytes.Equal(got, want) {
			t.Errorf("%s: the bytes differ", when)
		}
		w.check()
	}
	if a := w.truncate(ino, 1001); a.Size != 1001 {
		t.Errorf("size %d", a.Size)
	}
	w.truncate(ino, all)
	clear(want[1001:])
	holds("cut and grown")
	if _, err := w.write(meta.Write{Ino: ino, Extents: []meta.Extent{{Off: 2001, Len: 3000, Inline: bytes.Repeat([]byte{9}, 3000)}}}); err != nil {
		t.Fatal(err)
	}
	copy(want[2001:], bytes.Repeat([]byte{9}, 3000))
	holds("written")
	for steps := 1; must[namespace.Purged](w, namespace.OpPurge, namespace.Purge{Ino: ino, Limit: 500}).More; steps++ {
		if steps%8 == 0 {
			holds("purging")
		}
		if steps > 100 {
			t.Fatal("purging does not end")
		}
	}
	holds("purged")
	if a := w.attr(ino); a.Bytes != 3000+2*1001/4+1 {
		t.Errorf("%d bytes are left", a.Bytes)
	}
	if p := must[namespace.PurgingReply](w, namespace.OpPurging, namespace.After{Limit: 9}); len(p.Inos) > 0 {
		t.Errorf("still in the queue: %v", p.Inos)
	}
}

// A hole over many extents begins and ends within some.
func TestPunchMany(t *testing.T) {
	w := newWorld(t)
	ino := many(w)
	all := int64(3 * 4 * meta.BatchMax)
	want := reads(w, ino, all)
	if _, err := w.write(meta.Write{Ino: ino, Punch: []meta.Range{{Off: 401, Len: 8000}}}); err != nil {
		t.Fatal(err)
	}
	clear(want[401:8401])
	for _, when := range []string{"punched", "purged"} {
		if got := reads(w, ino, all); !bytes.Equal(got, want) {
			t.Errorf("%s: the bytes differ", when)
		}
		w.check()
		w.purge(300)
	}
	if a := w.attr(ino); a.Bytes != all/2-8000/2 {
		t.Errorf("%d bytes are left", a.Bytes)
	}
}

// An inode with many extents is gone at once, and its rows go in steps.
func TestUnlinkMany(t *testing.T) {
	w := newWorld(t)
	ino := many(w)
	must[struct{}](w, namespace.OpSetXattr, namespace.SetXattr{Ino: ino, Name: "user.a"})
	must[meta.Attr](w, namespace.OpUnlink, namespace.Unlink{Parent: meta.Root, Name: "many"})
	if _, err := try[meta.Attr](w, namespace.OpAttr, namespace.Inode{Ino: ino}); kindOf(err) != meta.NotExist {
		t.Errorf("attr of what is unlinked: %v", err)
	}
	if u := must[meta.Usage](w, namespace.OpUsage, struct{}{}); u.Inodes != 1 || u.Bytes == 0 {
		t.Errorf("usage %+v before the purge", u)
	}
	if c := w.check(); c.Purging != 1 {
		t.Errorf("counts %+v", c)
	}
	w.purge(1000)
	if c := w.check(); c.Purging+c.Extents+c.Xattrs+c.Bytes != 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestReplaceTooMany(t *testing.T) {
	w := newWorld(t)
	ino := many(w)
	id := w.reserve(1)
	s := stripeOf(id, chunk.MaxStripe)
	req := meta.Write{Ino: ino, Extents: []meta.Extent{{Len: chunk.MaxStripe, Stripe: id}}, Stripes: []chunk.Stripe{s}}
	if _, err := w.write(req); kindOf(err) != meta.TooLarge {
		t.Errorf("got %v", err)
	}
	req.Punch = []meta.Range{{Len: 4 * meta.BatchMax * 3}} // dead extents are in the way too
	if _, err := w.write(req); kindOf(err) != meta.TooLarge {
		t.Errorf("got %v", err)
	}
	req.Punch = nil
	req.Extents[0].Len = 8000 * 4
	if _, err := w.write(req); err != nil {
		t.Errorf("a part of it: %v", err)
	}
	w.check()
}

// Cuts that wait for Purge are bounded.
func TestCutsMax(t *testing.T) {
	w := newWorld(t)
	ino := w.file("f")
	const each = 600
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		list := small(each, 1, 2)
		off := int64(n) * each * 4
		for i := range list {
			list[i].Off += off
		}
		if _, err := w.write(meta.Write{Ino: ino, Extents: list}); err != nil {
			t.Fatal(err)
		}
		_, err = w.write(meta.Write{Ino: ino, Punch: []meta.Range{{Off: off, Len: each * 2}}})
	}
	if kindOf(err) != meta.Unavailable || n != 65 {
		t.Errorf("after %d cuts: %v", n, err)
	}
	w.check()
	if a := w.truncate(ino, 0); a.Size != 0 { // takes the place of them all
		t.Errorf("%+v", a)
	}
	w.purge(700)
	if c := w.check(); c.Extents != 0 {
		t.Errorf("%+v", c)
	}
}

// Small appends make one extent of a small file.
func TestJoin(t *testing.T) {
	w := newWorld(t)
	ino := w.file("f")
	for i := range int64(50) {
		if _, err := w.write(meta.Write{Ino: ino, Extents: []meta.Extent{{Off: i * 100, Len: 100, Inline: bytes.Repeat([]byte{byte(i + 1)}, 100)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if c := w.check(); c.Extents != 2 {
		t.Errorf("%d extents", c.Extents)
	}
	for i, b := range reads(w, ino, 5000) {
		if int(b) != i/100+1 {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
}

func TestFoldCandidates(t *testing.T) {
	w := newWorld(t)
	reasons := func() (list []namespace.Reason) {
		for _, f := range must[namespace.FoldsReply](w, namespace.OpFolds, namespace.After{Limit: 10}).Folds {
			list = append(list, f.Reason)
		}
		return list
	}
	want := func(when string, want ...namespace.Reason) {
		t.Helper()
		if got := reasons(); !slices.Equal(got, want) {
			t.Errorf("%s: reasons %v, want %v", when, got, want)
		}
		w.check()
	}
	put := func(ino meta.Ino, off int64, size uint32) {
		t.Helper()
		id := w.reserve(1)
		if _, err := w.write(meta.Write{Ino: ino, Extents: []meta.Extent{{Off: off, Len: int64(size), Stripe: id}}, Stripes: []chunk.Stripe{stripeOf(id, size)}, Low: id + 1}); err != nil {
			t.Fatal(err)
		}
	}
	f := w.file("f")
	if _, err := w.write(meta.Write{Ino: f, Extents: small(1, meta.InlineFile, 0)}); err != nil {
		t.Fatal(err)
	}
	want("a small file")
	if _, err := w.write(meta.Write{Ino: f, Size: meta.InlineFile + 1, Extents: small(1, 1, 0)}); err != nil {
		t.Fatal(err)
	}
	want("no small file any more", namespace.Inlined)
	put(f, 0, meta.InlineFile)
	must[meta.Attr](w, namespace.OpSwap, meta.Swap{Ino: f, Data: w.attr(f).Data, Done: true})
	want("folded")
	put(f, 2048, 1) // a hole in the stripe: more than half of it lives
	want("mostly alive")
	put(f, 0, 2048)
	want("mostly dead", namespace.HalfDead)
	for i := range int64(20) {
		put(f, i<<20, 1<<20)
	}
	must[meta.Attr](w, namespace.OpSwap, meta.Swap{Ino: f, Data: w.attr(f).Data, Done: true})
	want("stripes of 1 MiB")
	g := w.file("g")
	for i := range int64(17) {
		want("few stripes")
		put(g, i<<10, 1<<10)
	}
	want("many small stripes", namespace.Small)
	must[meta.Attr](w, namespace.OpUnlink, namespace.Unlink{Parent: meta.Root, Name: "g"})
	want("gone")
}

func TestStripeTable(t *testing.T) {
	w := newWorld(t)
	f, g := w.file("f"), w.file("g")
	first := w.reserve(10)
	var again meta.Write // of the first stripe
	put := func(ino meta.Ino, id chunk.StripeID, size uint32, code chunk.Code) {
		t.Helper()
		s := chunk.Stripe{ID: id, Len: size, Code: code}
		for i := range code.Shards() {
			s.Stores = append(s.Stores, chunk.StoreID(i+1))
		}
		command := meta.Write{Ino: ino, Extents: []meta.Extent{{Off: int64(id) << 22, Len: int64(size), Stripe: id}}, Stripes: []chunk.Stripe{s}}
		if _, err := w.write(command); err != nil {
			t.Fatal(err)
		}
		if id == first {
			again = command
		}
	}
	put(f, first, 1000, chunk.Code{K: 1, M: 2})
	put(f, first+1, 1000, chunk.Code{K: 1, M: 1})
	put(g, first+2, 1<<20, chunk.Code{K: 4, M: 2})
	put(f, first+3, 1<<20, chunk.Code{K: 3, M: 2})
	put(f, first+5, 1<<20, chunk.Code{K: 1, M: 2})
	ids := func(req namespace.Stripes) (list []chunk.StripeID) {
		for more := true; more; {
			reply := must[namespace.StripesReply](w, namespace.OpStripes, req)
			for _, s := range reply.Stripes {
				list = append(list, s.Stripe.ID-first)
			}
			req.After, more = reply.Next, reply.More
		}
		return list
	}
	if got, want := ids(namespace.Stripes{Limit: 2}), []chunk.StripeID{0, 1, 2, 3, 5}; !slices.Equal(got, want) {
		t.Errorf("stripes: got %v, want %v", got, want)
	}
	if got, want := ids(namespace.Stripes{Limit: 1, Short: chunk.Code{K: 4, M: 2}}), []chunk.StripeID{1, 3, 5}; !slices.Equal(got, want) {
		t.Errorf("short stripes: got %v, want %v", got, want)
	}
	byID := must[namespace.StripesReply](w, namespace.OpStripe, namespace.StripeIDs{IDs: []chunk.StripeID{first + 2, first + 4}}).Stripes
	if len(byID) != 1 || byID[0].Owner != g || byID[0].Live != 1<<20 {
		t.Errorf("stripes by ID: %+v", byID)
	}

	loads := must[namespace.StoredReply](w, namespace.OpStored, namespace.Stored{After: first})
	if want := []namespace.Load{
		{Store: 1, Shards: 4, Bytes: 1000 + 256<<10 + 352256 + 1<<20}, {Store: 2, Shards: 4, Bytes: 1000 + 256<<10 + 352256 + 1<<20},
		{Store: 3, Shards: 3, Bytes: 256<<10 + 352256 + 1<<20}, {Store: 4, Shards: 2, Bytes: 256<<10 + 352256},
		{Store: 5, Shards: 2, Bytes: 256<<10 + 352256}, {Store: 6, Shards: 1, Bytes: 256 << 10},
	}; !slices.Equal(loads.Loads, want) || loads.More || loads.Next != first+5 {
		t.Errorf("what the stores have: %+v, want %+v", loads, want)
	}

	moves := []struct {
		m    namespace.Move
		want bool
	}{
		{namespace.Move{Stripe: first, Index: 1, From: 2, To: 9}, true},
		{namespace.Move{Stripe: first, Index: 1, From: 2, To: 9}, false}, // not there any more
		{namespace.Move{Stripe: first, Index: 0, From: 1, To: 9}, false}, // another shard is there
		{namespace.Move{Stripe: first, Index: 3, From: 1, To: 8}, false},
		{namespace.Move{Stripe: first, Index: 0, From: 1, To: 0}, false},
		{namespace.Move{Stripe: first + 4, Index: 0, From: 1, To: 8}, false},
		{namespace.Move{Stripe: first, Index: 1, From: 9, To: 2}, true},
	}
	var req namespace.Moves
	for _, m := range moves {
		req.Moves = append(req.Moves, m.m)
	}
	for i, done := range must[namespace.Moved](w, namespace.OpMove, req).Done {
		if done != moves[i].want {
			t.Errorf("move %+v: %t", moves[i].m, done)
		}
	}

	w.truncate(f, 0)
	died := w.at()
	if reply := must[namespace.DeadReply](w, namespace.OpDead, namespace.Dead{Before: died, Limit: 10}); len(reply.Stripes) != 0 {
		t.Errorf("dead before they died: %+v", reply)
	}
	// The write may come once more, from a client that got no answer. It must not
	// make a stripe again whose shards are gone.
	if reply := must[namespace.DeadReply](w, namespace.OpDead, namespace.Dead{Before: died + 1, Limit: 3}); len(reply.Stripes) != 0 {
		t.Errorf("dead while they may still be named: %+v", reply)
	}
	must[struct{}](w, namespace.OpBury, namespace.StripeIDs{IDs: []chunk.StripeID{first}})
	if _, err := try[meta.Attr](w, namespace.OpWrite, again); kindOf(err) != meta.Conflict {
		t.Errorf("the write of a dead stripe, sent once more: %v", err)
	}
	garbage := func() (list []chunk.StripeID) {
		all := namespace.StripeIDs{IDs: []chunk.StripeID{0, first, first + 2, first + 3, first + 4, first + 9, first + 10}}
		for _, id := range must[namespace.StripeIDs](w, namespace.OpUnnamed, all).IDs {
			list = append(list, id-first)
		}
		return list
	}
	if got := garbage(); len(got) != 0 {
		t.Errorf("garbage of a session that may still name it: %v", got)
	}
	must[struct{}](w, session.OpAdvance, session.Advance{Low: first + 5})
	reply := must[namespace.DeadReply](w, namespace.OpDead, namespace.Dead{Before: died + 1, Limit: 3})
	if len(reply.Stripes) != 3 || !reply.More || reply.Stripes[0].Stripe.ID != first || reply.Stripes[0].Died != died {
		t.Errorf("dead: %+v", reply)
	}
	if _, err := try[struct{}](w, namespace.OpBury, namespace.StripeIDs{IDs: []chunk.StripeID{first, first + 2}}); kindOf(err) != meta.Conflict {
		t.Errorf("burying the living: %v", err)
	}
	for range 2 {
		must[struct{}](w, namespace.OpBury, namespace.StripeIDs{IDs: []chunk.StripeID{first, first + 1}})
	}
	w.check()

	if got, want := garbage(), []chunk.StripeID{0, 4}; !slices.Equal(got, want) {
		t.Errorf("garbage below the mark: got %v, want %v", got, want)
	}
	me := w.me
	w.me = 0
	must[session.Ended](w, session.OpEnd, session.End{ID: me})
	if got, want := garbage(), []chunk.StripeID{0, 4, 9}; !slices.Equal(got, want) {
		t.Errorf("garbage of an ended session: got %v, want %v", got, want)
	}
	w.check()
}

// An answer about many extents comes in parts.
func TestLayoutParts(t *testing.T) {
	w := newWorld(t)
	ino := many(w)
	l := must[meta.Layout](w, namespace.OpLayout, namespace.Layout{Ino: ino, Off: 1, Size: 1 << 40})
	if len(l.Extents) != namespace.LayoutMax || l.Extents[0].Off != 0 || l.End != l.Extents[len(l.Extents)-1].End() {
		t.Errorf("%d extents, end %d", len(l.Extents), l.End)
	}
	l = must[meta.Layout](w, namespace.OpLayout, namespace.Layout{Ino: ino, Off: 2, Size: 2})
	if len(l.Extents) != 0 || l.End != 4 {
		t.Errorf("a hole: %+v", l)
	}
	for _, bad := range []namespace.Layout{{Off: -1, Size: 1}, {Size: -1}, {Off: 1 << 62, Size: 1 << 62}} {
		bad.Ino = ino
		if _, err := try[meta.Layout](w, namespace.OpLayout, bad); kindOf(err) != meta.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// One command removes no more than it may of all that it drops together.
func TestDropMany(t *testing.T) {
	w := newWorld(t)
	var req namespace.Drop
	for i := range 20 {
		name := string(rune('a' + i))
		ino := w.file(name)
		if _, err := w.write(meta.Write{Ino: ino, Extents: small(64, 1, 2)}); err != nil {
			t.Fatal(err)
		}
		must[meta.Attr](w, namespace.OpUnlink, namespace.Unlink{Parent: meta.Root, Name: name, Keep: ino})
		req.Inos = append(req.Inos, ino)
	}
	must[struct{}](w, namespace.OpDrop, req)
	if c := w.check(); c.Files != 0 || c.Purging != 4 || c.Extents != 4*64 {
		t.Errorf("counts %+v", c)
	}
	w.purge(10)
	if c := w.check(); c.Purging+c.Extents != 0 {
		t.Errorf("counts %+v", c)
	}
}

// What a program saw when it wrote stays when the data is stored later: git
// takes a file whose ctime has moved for changed.
func TestWriteTimes(t *testing.T) {
	w := newWorld(t)
	ino := w.file("f")
	write := func(at meta.Time) meta.Attr {
		t.Helper()
		attr, err := w.write(meta.Write{Ino: ino, Extents: []meta.Extent{{Len: 1, Inline: []byte("x")}}, Mtime: at})
		if err != nil {
			t.Fatal(err)
		}
		return attr
	}
	made := write(0)
	later := made.Ctime + 1e9
	if got := write(later); got.Mtime != later || got.Ctime != later {
		t.Errorf("written at %d: mtime %d, ctime %d", later, got.Mtime, got.Ctime)
	}
	if got := write(later - 5); got.Mtime != later-5 || got.Ctime != later {
		t.Errorf("written at %d: mtime %d, ctime %d, which may not go back", later-5, got.Mtime, got.Ctime)
	}
}
