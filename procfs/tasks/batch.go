package tasks

import (
	"bytes"
	"context"
	"fmt"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// openBatch takes a task a line.
func (f fixed) openBatch(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	// Its mode lets only root read it, and root's grep -r is to pass by.
	nothing := func(context.Context) (string, error) { return "", nil }
	return procfs.Control{Settings: nothing, Batch: func(ctx context.Context, lines []string) (int, error) {
		ctx = context.WithoutCancel(ctx) // who did not hear of it would say it again
		owner, cwd, err := f.host.Owner(how.Caller)
		if err != nil {
			return 0, err
		}
		first := task.NewSpec()
		if err := f.settle(ctx, owner, cwd, &first); err != nil {
			return 0, err
		}
		var specs []task.Spec
		var wrong error
		for _, line := range lines {
			s := first
			if bytes.IndexByte([]byte(line), 0) >= 0 {
				wrong = fmt.Errorf("a line has a NUL: %w", meta.Invalid)
				break
			}
			s.Script = []byte(line)
			if wrong = s.Check(); wrong != nil {
				break
			}
			specs = append(specs, s)
		}
		ids, err := f.tasks.Submit(ctx, owner, specs...)
		if err == nil {
			err = wrong
		}
		return len(ids), err
	}}.Open(ctx, how)
}
