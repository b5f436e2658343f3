// Package stripetest is a cluster of stores in memory that fail on request, for
// the tests of the data path and of what repairs and folds stripes.
package stripetest

import (
	"context"
	"slices"
	"sync"

	"dos/chunk"
)

// A Cluster has stores 1 to n, all in every placement group, and hands out
// stripe IDs from 1.
type Cluster struct {
	stores []*Store

	mu   sync.Mutex
	code chunk.Code      // guarded by mu
	next chunk.StripeID  // guarded by mu
	fail error           // of Reserve; guarded by mu
	ids  []chunk.StoreID // never changes
}

// New returns a cluster of n empty stores that live.
func New(n int, code chunk.Code) *Cluster {
	c := &Cluster{code: code, next: 1}
	for i := range n {
		c.stores = append(c.stores, newStore())
		c.ids = append(c.ids, chunk.StoreID(i+1))
	}
	return c
}

// Faulty returns store id, which is 1 to n.
func (c *Cluster) Faulty(id chunk.StoreID) *Store { return c.stores[id-1] }

// Stores lists all stores.
func (c *Cluster) Stores() []chunk.StoreID { return slices.Clone(c.ids) }

// Store returns a store and whether it lives.
func (c *Cluster) Store(id chunk.StoreID) (chunk.Store, bool) {
	if id == 0 || int(id) > len(c.stores) {
		return nil, false
	}
	s := c.stores[id-1]
	return s, !s.down.Load()
}

// Group returns all stores as the members of every group.
func (c *Cluster) Group(chunk.StripeID) chunk.Group {
	return chunk.Group{Epoch: 1, Members: c.ids}
}

// Code returns the code wanted.
func (c *Cluster) Code() chunk.Code {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code
}

// Reserve hands out n IDs.
func (c *Cluster) Reserve(ctx context.Context, n int) (chunk.StripeID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return 0, c.fail
	}
	first := c.next
	c.next += chunk.StripeID(n)
	return first, nil
}

// FailReserve makes Reserve return err until it is called with nil.
func (c *Cluster) FailReserve(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}
