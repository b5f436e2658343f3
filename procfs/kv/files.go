package kv

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/kv"
	"dos/meta/txn"
	"dos/procfs"
)

// Stat gives .txn to those who may write the table, and .scan and .watch to those
// who may read it.
func (f file) Stat(ctx context.Context) (procfs.Info, error) {
	t, err := f.kv.Table(ctx, f.table)
	if err != nil {
		return procfs.Info{}, plain(err)
	}
	info := procfs.Info{Name: f.name, UID: t.UID, GID: t.GID, Mtime: t.Mtime}
	switch f.name {
	case ".ctl":
		info.Mode, info.Size = 0o644, int64(len(settings(t)))
	case ".status":
		info.Mode, info.Size = 0o444, int64(len(status(t)))
	case ".txn":
		info.Mode = likeDir(t.Mode, toWrite)
	default:
		info.Mode = likeDir(t.Mode, toRead)
	}
	info.Mode |= meta.TypeFile
	return info, nil
}

func settings(t kv.Table) string {
	ttl, quota := "none", "none"
	if t.TTL > 0 {
		ttl = t.TTL.String()
	}
	if t.Quota > 0 {
		quota = strconv.FormatInt(t.Quota, 10)
	}
	return fmt.Sprintf("ttl %s\nquota %s\n", ttl, quota)
}

func status(t kv.Table) string {
	return fmt.Sprintf("keys %d\nbytes %d\nrevision %d\n%s", t.Count, t.Bytes, t.Rev, settings(t))
}

func (f file) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	switch f.name {
	case ".ctl":
		return procfs.Control{Do: f.control, Settings: func(ctx context.Context) (string, error) {
			t, err := f.kv.Table(ctx, f.table)
			return settings(t), err
		}}.Open(ctx, how)
	case ".status":
		t, err := f.kv.Table(ctx, f.table)
		if err != nil {
			return nil, err
		}
		return procfs.OpenText(how, status(t))
	case ".txn":
		t := transaction{dir: f.dir, by: how.Caller}
		return procfs.Transaction{Say: t.say}.Open(ctx, how)
	case ".scan":
		return procfs.Transaction{Say: func(ctx context.Context, line string) (string, error) {
			return f.scan(ctx, how.Caller, line)
		}}.Open(ctx, how)
	}
	return f.watch(ctx, how)
}

// control executes a line of .ctl.
func (f file) control(ctx context.Context, line string) error {
	words := strings.Fields(line)
	if len(words) != 2 {
		return fmt.Errorf("%q is not `ttl 5m` or `quota 10m`: %w", line, meta.Invalid)
	}
	req := kv.SetTable{Name: f.table}
	switch none := words[1] == "none"; words[0] {
	case "ttl":
		ttl := time.Duration(0)
		if !none {
			var err error
			if ttl, err = procfs.Duration(words[1]); err != nil {
				return err
			}
		}
		req.TTL = &ttl
	case "quota":
		quota := int64(0)
		if !none {
			var err error
			if quota, err = meta.ParseSize(words[1]); err != nil {
				return err
			}
		}
		req.Quota = &quota
	default:
		return fmt.Errorf("there is no setting %q: %w", words[0], meta.Invalid)
	}
	return f.kv.SetTable(ctx, req)
}

// A transaction collects steps until it is told to commit.
type transaction struct {
	dir
	by    procfs.Caller
	steps []txn.Step
	// refused is why a step was: then none is done. Shells write a line at a time, and
	// go on with the next one.
	refused error
}

// say takes a line.
func (t *transaction) say(ctx context.Context, line string) (string, error) {
	verb, rest, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
	switch verb {
	case "commit":
		steps, refused := t.steps, t.refused
		t.steps, t.refused = nil, nil
		if refused != nil {
			return "", fmt.Errorf("nothing is done, for a step was refused: %w", refused)
		}
		answers, err := t.kv.Commit(ctx, steps)
		if err != nil {
			return "", err
		}
		for _, step := range steps {
			if done := t.others[step.Verb].Done; done != nil {
				done(step)
			}
		}
		return committed(steps, answers), nil
	case "abort":
		t.steps, t.refused = nil, nil
		return "", nil
	}
	if t.refused != nil {
		return "", fmt.Errorf("after a step that was refused: %w", t.refused)
	}
	t.refused = t.step(ctx, verb, rest)
	return "", t.refused
}

// step takes a step, VERB OBJECT and the rest, which for if are words and for others
// data. A key that begins with a slash names its table.
func (t *transaction) step(ctx context.Context, verb, rest string) error {
	object, data, _ := strings.Cut(rest, " ")
	step := txn.Step{Verb: verb, Args: []string{object}, Data: []byte(data)}
	switch verb {
	case "if", "put", "del":
		if table, absolute := strings.CutPrefix(object, "/"); absolute {
			step.Args[0] = table
		} else {
			step.Args[0] = t.table + "/" + object
		}
	}
	if verb != "put" && data == "" {
		step.Data = nil
	}
	if verb == "if" || verb == "del" {
		step.Args, step.Data = append(step.Args, strings.Fields(data)...), nil
	}
	if verb == "put" {
		step.Data = append(step.Data, '\n') // as echo does
	}
	if len(t.steps) == txn.StepsMax {
		return fmt.Errorf("more than %d steps: %w", txn.StepsMax, meta.TooLarge)
	}
	if err := t.mayStep(ctx, t.by, &step); err != nil {
		return err
	}
	t.steps = append(t.steps, step)
	return nil
}

func committed(steps []txn.Step, answers []string) string {
	var b strings.Builder
	b.WriteString("committed\n")
	for i, answer := range answers {
		if answer != "" {
			fmt.Fprintf(&b, "%s %s %s\n", steps[i].Verb, steps[i].Args[0], answer)
		}
	}
	return b.String()
}

// scanMax is how many values a line of .scan gives if it does not say.
const scanMax = 1000

// scan answers a line of .scan: pairs of words.
func (f file) scan(ctx context.Context, by procfs.Caller, line string) (string, error) {
	words := strings.Fields(line)
	if len(words) == 1 && words[0] == "all" {
		words = nil
	}
	if len(words)%2 != 0 {
		return "", fmt.Errorf("%q is not `all` or `from A to B limit N`: %w", line, meta.Invalid)
	}
	req := kv.Scan{Table: f.table, Data: true}
	limit := scanMax
	for i := 0; i < len(words); i += 2 {
		switch word := words[i+1]; words[i] {
		case "from":
			req.From = word
		case "to":
			req.To = word
		case "prefix":
			req.From, req.To = word, after(word)
		case "limit":
			var err error
			if limit, err = strconv.Atoi(word); err != nil || limit < 1 {
				return "", fmt.Errorf("limit %q: %w", word, meta.Invalid)
			}
		default:
			return "", fmt.Errorf("%q is not from, to, prefix or limit: %w", words[i], meta.Invalid)
		}
	}
	var b strings.Builder
	for limit > 0 {
		req.Limit = min(limit, kv.ListMax)
		reply, err := f.kv.Scan(ctx, req)
		if err != nil {
			return "", err
		}
		for _, e := range reply.Entries {
			req.From = e.Key + "\x00"
			if !by.May(e.UID, e.GID, e.Mode, toRead) {
				continue
			}
			if e.Blob != nil {
				if e, err = f.kv.Get(ctx, f.table, e.Key); err != nil {
					continue // it went meanwhile
				}
			}
			limit--
			fmt.Fprintf(&b, "%s\t%d\t%s\n", procfs.EscapeValue(e.Key), e.Version, procfs.EscapeValue(string(e.Data)))
			if b.Len() > replyMax {
				return "", fmt.Errorf("more than %d bytes: ask with a limit: %w", replyMax, meta.TooLarge)
			}
		}
		if !reply.More {
			break
		}
	}
	return b.String(), nil
}

// replyMax bounds a scan, in bytes.
const replyMax = 4 << 20

// after is the first key that does not begin with prefix; "" if there is none.
func after(prefix string) string {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return string(end[:i+1])
		}
	}
	return ""
}

// watch opens .watch.
func (f file) watch(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	now, err := f.kv.Scan(ctx, kv.Scan{Table: f.table, Limit: 1})
	if err != nil {
		return nil, err
	}
	from := now.Rev
	next := func(ctx context.Context) (string, error) {
		reply, err := f.kv.Follow(ctx, f.table, from)
		if err != nil {
			return "", err
		}
		from = reply.Rev
		var b strings.Builder
		for _, c := range reply.Changes {
			fmt.Fprintf(&b, "%d %s %s\n", c.Rev, verbs[c.Verb], procfs.EscapeValue(c.Key))
		}
		return b.String(), nil
	}
	return procfs.Following{Next: next, Do: func(_ context.Context, line string) error {
		after, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(line, "after ")), 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not `after REVISION`: %w", line, meta.Invalid)
		}
		from = after
		return nil
	}}.Open(how)
}

var verbs = map[kv.Verb]string{kv.WasPut: "put", kv.WasDeleted: "del", kv.WasExpired: "expired"}
