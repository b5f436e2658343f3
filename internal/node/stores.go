package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"dos/chunk"
	chunkdisk "dos/chunk/disk"
	"dos/internal/disk"
	"dos/meta/members"
	"dos/procfs/cluster"
)

type store struct {
	id   chunk.StoreID
	path string
	node *chunkdisk.Store
}

type stores struct {
	e        *Embedded
	list     []*store
	groups   []chunk.Group
	repaired func() bool
	ready    chan struct{}
}

func newStores(e *Embedded, list []members.Store, groups []chunk.Group) (*stores, error) {
	s := &stores{e: e, groups: groups, ready: make(chan struct{})}
	if err := os.MkdirAll(filepath.Join(e.data.path, "chunk"), 0o700); err != nil {
		return nil, err
	}
	for _, m := range list {
		s.list = append(s.list, &store{id: m.ID, path: m.Path})
	}
	return s, nil
}

func (s *stores) Ready(ctx context.Context) error { <-s.ready; return nil }
func (s *stores) Run(ctx context.Context) error {
	for _, st := range s.list {
		c := chunkdisk.Config{FS: disk.Real{}, Cluster: fmt.Sprintf("%x", s.e.data.cluster), Store: st.id}
		d, err := chunkdisk.Open(st.path, c)
		if err != nil {
			if _, err = chunkdisk.Create(st.path, c); err != nil {
				return err
			}
			if d, err = chunkdisk.Open(st.path, c); err != nil {
				return err
			}
		}
		st.node = d
	}
	close(s.ready)
	<-ctx.Done()
	for _, st := range s.list {
		st.node.Close()
	}
	return nil
}
func (s *stores) Store(id chunk.StoreID) (chunk.Store, bool) {
	st := s.list[id-1]
	return st.node, st.node != nil
}
func (s *stores) Stores() (ids []chunk.StoreID) {
	for _, st := range s.list {
		ids = append(ids, st.id)
	}
	return
}
func (s *stores) Group(id chunk.StripeID) chunk.Group { return groupOf(s.groups, id) }
func (s *stores) Code() chunk.Code                    { return s.e.data.code }
func (s *stores) live() int                           { return len(s.list) }
func (s *stores) where(id chunk.StoreID) string       { return s.list[id-1].path }
func (s *stores) disk(id chunk.StoreID) string        { return "x" }
func (s *stores) status(ctx context.Context) (list []cluster.Store) {
	for _, st := range s.list {
		c := cluster.Store{ID: uint32(st.id), Path: st.path, State: cluster.Up}
		if u, err := st.node.Usage(ctx); err == nil {
			c.Capacity, c.Free, c.Used, c.Shards = u.Capacity, u.Free, u.Used, u.Shards
		}
		list = append(list, c)
	}
	return
}
func (s *stores) scrub() cluster.Scrub { return cluster.Scrub{} }
