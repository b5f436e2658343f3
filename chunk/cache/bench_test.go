package cache

import (
	"fmt"
	"sync/atomic"
	"testing"
)

const benchKeys = 1 << 17

func benchCache(b *testing.B, p Policy) (*Cache, Bucket, []string) {
	c, at := newOne(b, Config{Limit: 256 << 20}, Settings{Policy: p})
	keys := make([]string, benchKeys)
	for i := range keys {
		keys[i] = fmt.Sprintf("some/key/%d", i)
		c.mustSet(b, at, keys[i])
	}
	b.ReportAllocs()
	b.ResetTimer()
	return c, at, keys
}

// BenchmarkGet reads entries of 100 bytes; by one, and by as many as there are cores.
func BenchmarkGet(b *testing.B) {
	for name, p := range map[string]Policy{"lru": LRU, "lfu": LFU, "fifo": FIFO} {
		b.Run(name, func(b *testing.B) {
			c, at, keys := benchCache(b, p)
			buf := make([]byte, 0, 128)
			for i := range b.N {
				if _, err := c.Get(at, keys[i*7919%benchKeys], buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		c, at, keys := benchCache(b, LRU)
		var start atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			buf := make([]byte, 0, 128)
			for i := int(start.Add(1)) * 1000; pb.Next(); i++ {
				if _, err := c.Get(at, keys[i*7919%benchKeys], buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkSet overwrites entries of 100 bytes, and adds them to a cache that is full.
func BenchmarkSet(b *testing.B) {
	value := make([]byte, 100)
	b.Run("over", func(b *testing.B) {
		c, at, keys := benchCache(b, LRU)
		for i := range b.N {
			if _, err := c.Set(at, keys[i*7919%benchKeys], value, Write{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("full", func(b *testing.B) {
		c, at, keys := benchCache(b, LRU)
		if err := c.SetLimit(MinLimit); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for i := range b.N {
			if _, err := c.Set(at, keys[i*7919%benchKeys], value, Write{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
