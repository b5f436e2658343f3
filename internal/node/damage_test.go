package node

import (
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
)

// What was found damaged is told for a while, and never more than a bound.
func TestDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d damage
		if got := d.list(); len(got) != 0 {
			t.Errorf("nothing was damaged, told %v", got)
		}
		d.add(chunk.ID{Stripe: 7, Index: 2})
		d.add(chunk.ID{Stripe: 7, Index: 2})
		if got := d.list(); len(got) != 1 || got[0].Stripe != 7 || got[0].Index != 2 {
			t.Errorf("told %v, want shard 2 of stripe 7", got)
		}
		time.Sleep(damageKept + time.Second)
		if got := d.list(); len(got) != 0 {
			t.Errorf("after %v still told %v", damageKept, got)
		}
		for i := range 2 * damageMax {
			d.add(chunk.ID{Stripe: chunk.StripeID(i)})
		}
		if got := d.list(); len(got) != damageMax {
			t.Errorf("told %d shards, want %d", len(got), damageMax)
		}
	})
}
