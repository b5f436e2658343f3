package mem_test

import (
	"errors"
	"testing"

	"dos/chunk"
	"dos/chunk/mem"
	"dos/chunk/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunk.Store { return new(mem.Store) })
}

func TestFull(t *testing.T) {
	s := &mem.Store{Capacity: 10}
	a, b := chunk.ID{Stripe: 1}, chunk.ID{Stripe: 2}
	if err := s.Put(t.Context(), a, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), b, make([]byte, 6)); !errors.Is(err, chunk.ErrFull) {
		t.Errorf("Put of 6 bytes into 4 = %v, want ErrFull", err)
	}
	if err := s.Delete(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), b, make([]byte, 6)); err != nil {
		t.Errorf("Put after Delete = %v", err)
	}
}
