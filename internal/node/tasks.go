package node

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"dos/internal/tasktree"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/meta/task"
)

// nearOf returns what says which machines have how many bytes of a file, each shard
// where it is read from first.
func nearOf(files client.Files, known func() members.Map) func(context.Context, meta.Ino) (map[string]int64, error) {
	return func(ctx context.Context, ino meta.Ino) (map[string]int64, error) {
		node := make(map[uint32]string)
		for _, s := range known().Stores {
			node[uint32(s.ID)] = s.Node
		}
		a, err := files.Attr(ctx, ino)
		if err != nil {
			return nil, err
		}
		has := make(map[string]int64)
		for off, looks := int64(0), 0; off < a.Size && looks < nearLooks; looks++ {
			l, err := files.Layout(ctx, ino, off, a.Size-off)
			if err != nil {
				return nil, err
			}
			for _, s := range l.Stripes {
				for i, id := range s.Stores {
					if i < int(s.Code.K) || s.Code.K == 1 { // of a copy each is whole
						has[node[uint32(id)]] += int64(s.Len) / int64(max(1, s.Code.K))
					}
				}
			}
			if l.End <= off {
				break
			}
			off = l.End
		}
		delete(has, "")
		return has, nil
	}
}

// nearLooks bounds the parts of a file that are looked at: the beginning of one that is
// larger stands for all of it.
const nearLooks = 16

// tasksOn lists the tasks that a machine runs now.
func tasksOn(t client.Tasks) func(ctx context.Context, node string) ([]string, error) {
	return func(ctx context.Context, node string) ([]string, error) {
		var list []string
		err := t.Each(ctx, task.List{Node: node}, func(one task.Task) error {
			list = append(list, one.ID.String())
			return nil
		})
		return list, err
	}
}

// tasksOf are the tasks of a user that have not ended, a line each.
func tasksOf(t client.Tasks) func(ctx context.Context, uid uint32) (string, error) {
	return func(ctx context.Context, uid uint32) (string, error) {
		var b strings.Builder
		err := t.Each(ctx, task.List{UID: &uid}, func(one task.Task) error {
			if !one.State.Ended() {
				fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprint(one.ID, " ", one.State, " ", one.Name)))
			}
			return nil
		})
		return b.String(), err
	}
}

// clearEvery is the pause between two looks for tasks that were forgotten.
const clearEvery = 2 * time.Second

// clearTasks removes what tasks wrote that were forgotten, until ctx ends.
func clearTasks(ctx context.Context, caller client.Caller) error {
	tick := time.NewTicker(clearEvery)
	defer tick.Stop()
	t, files := client.Tasks{Caller: caller}, client.Files{Caller: caller}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		jobs, err := t.Forgotten(ctx)
		var done []uint64
		for _, job := range jobs {
			if err = tasktree.Clear(ctx, files, job); err != nil {
				break
			}
			done = append(done, job)
		}
		if len(done) > 0 {
			if e := t.Cleared(ctx, done...); err == nil {
				err = e
			}
		}
		if err != nil && ctx.Err() == nil {
			slog.Warn("node: what forgotten tasks wrote is still there", "err", err)
		}
	}
}
