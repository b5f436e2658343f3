package queues

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/queue"
	"dos/procfs"
)

// settingsText is what ctl says, in lines that it also takes.
func settingsText(st queue.Status) string {
	s := st.Settings
	var b strings.Builder
	durable := durables[0]
	if s.Memory {
		durable = durables[1]
	}
	fmt.Fprintf(&b, "durable %s\nmax %d\nfull %s\nack %v\nattempts %d\n", durable, s.Max, fulls[s.Full], s.Ack, s.Attempts)
	dead := s.Dead
	if dead == "" {
		dead = "-"
	}
	fmt.Fprintf(&b, "dead %s\norder %s\n", dead, orders[s.Order])
	switch {
	case s.KeepBytes > 0:
		fmt.Fprintf(&b, "keep %dk\n", s.KeepBytes>>10)
	case s.KeepFor > 0:
		fmt.Fprintf(&b, "keep %v\n", s.KeepFor)
	default:
		b.WriteString("keep 0\n")
	}
	if s.Paused {
		b.WriteString("pause\n")
	}
	if _, on := st.Group(""); !on {
		b.WriteString("default off\n")
	}
	return b.String()
}

func statusText(ctx context.Context, f file) (string, error) {
	st, _, err := f.at.status(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	var out int64
	for _, g := range st.Groups {
		out += g.Out
	}
	fmt.Fprintf(&b, "depth %d\ninflight %d\ndelayed %d\ndead %d\nmessages %d\nbytes %d\n", st.Depth(), out, st.Delayed, st.Dead, st.Messages, st.Bytes)
	if st.Messages > 0 {
		fmt.Fprintf(&b, "oldest %s\n", time.Since(st.Oldest.Std()).Round(time.Millisecond))
	}
	window := queue.RateWindow.Seconds()
	fmt.Fprintf(&b, "pushed %d\nexpired %d\ndropped %d\npush/s %.1f\nack/s %.1f\n", st.Pushed, st.Expired, st.Dropped, float64(st.PushRate)/window, float64(st.AckRate)/window)
	b.WriteString(durability(st))
	for _, g := range st.Groups {
		name := g.Name
		if name == "" {
			name = "-"
		}
		fmt.Fprintf(&b, "group %s next %d ready %d out %d later %d parked %d waiting %d done %d\n", name, g.Cursor, g.Ready, g.Out, g.Later, g.Parked, g.Waiters, g.Done)
	}
	return b.String(), nil
}

// durability says what becomes of a message whose write has returned.
func durability(st queue.Status) string {
	h := st.Home
	if !st.Settings.Memory || h == nil {
		return "durability fsync, which means that a message is committed and synced by a majority of the metadata members before its write returns\n"
	}
	var b strings.Builder
	switch {
	case h.Primary.Session == 0:
		b.WriteString("durability memory of no machine: none that holds queues answers\n")
	case h.Backup.Session == 0:
		fmt.Fprintf(&b, "durability memory of machine %s alone: lost when it stops or restarts\n", h.Primary.Node)
	default:
		fmt.Fprintf(&b, "durability memory of machines %s and %s before the write returns: lost when both stop or restart before another one has a copy, which the survivor makes\n", h.Primary.Node, h.Backup.Node)
	}
	fmt.Fprintf(&b, "home %s %s epoch %d\nlost %d", orNobody(h.Primary.Node), orNobody(h.Backup.Node), h.Epoch, h.Lost)
	if h.Lost > 0 && h.LostAt != 0 {
		fmt.Fprintf(&b, " last %s", h.LostAt.Std().UTC().Format(time.RFC3339))
	}
	b.WriteString("\n")
	return b.String()
}

func orNobody(node string) string {
	if node == "" {
		return "-"
	}
	return node
}

func groupStatusText(ctx context.Context, f file) (string, error) {
	_, g, err := f.at.status(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("depth %d\nready %d\ninflight %d\nlater %d\nparked %d\nwaiting %d\ndone %d\nnext %d\n",
		g.Depth(), g.Ready, g.Out, g.Later, g.Parked, g.Waiters, g.Done, g.Cursor), nil
}

// peekMax bounds the messages that peek shows.
const peekMax = 100

func peekText(ctx context.Context, f file) (string, error) {
	list, err := f.at.room.queues.Read(ctx, queue.Read{Name: f.at.queue, Group: f.at.group, Undone: true, Limit: peekMax})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, m := range list.Messages {
		if m.Got.Size > 0 {
			fmt.Fprintf(&b, "# message %d has %d bytes, which pop gives\n", m.Got.Number, m.Got.Size)
			continue
		}
		b.WriteString(text(m.Got))
	}
	return b.String(), nil
}

func inflightText(ctx context.Context, f file) (string, error) {
	list, err := f.at.room.queues.Flights(ctx, queue.Flights{Name: f.at.queue, Group: f.at.group, Limit: queue.ListMax})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, m := range list.List {
		fmt.Fprintf(&b, "%d attempt %d session %d until %s by %s\n", m.Number, m.Attempt, m.Session, m.Until.Std().UTC().Format(time.RFC3339), m.Consumer)
	}
	return b.String(), nil
}

// openLog opens all messages that are kept, as lines one after the other.
func openLog(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	st, _, err := f.at.status(ctx)
	if err != nil {
		return nil, err
	}
	if !st.Settings.Keeps() {
		return procfs.OpenText(how, "")
	}
	return &logHandle{file: f, begin: st.Begin}, nil
}

// A logHandle reads the log from where it began when it was opened.
type logHandle struct {
	file  file
	begin int64

	mu   sync.Mutex
	last uint64 // the large message that was loaded last,
	text string // and its line; both guarded by mu
}

// line returns a message as a line.
func (h *logHandle) line(ctx context.Context, m queue.Got) (string, error) {
	if len(m.Parts) == 0 {
		return string(m.Body) + "\n", nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != m.Number {
		if err := h.file.at.room.queues.Load(ctx, &m); err != nil {
			return "", err
		}
		h.last, h.text = m.Number, string(m.Body)+"\n"
	}
	return h.text, nil
}

func (h *logHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		at := h.begin + off + int64(n)
		// Byte 0 is that of the first message.
		list, err := h.file.at.room.queues.Read(ctx, queue.Read{Name: h.file.at.queue, Byte: at, Limit: queue.ListMax})
		if err != nil {
			return n, err
		}
		got := 0
		for _, m := range list.Messages {
			line, err := h.line(ctx, m.Got)
			if err != nil {
				return n, err
			}
			if skip := at + int64(got) - m.Byte; skip < int64(len(line)) && skip >= 0 {
				got += copy(p[n+got:], line[skip:])
			}
			if n+got == len(p) {
				break
			}
		}
		if n += got; got == 0 || !list.More {
			break
		}
	}
	return n, nil
}

func (*logHandle) WriteAt(context.Context, []byte, int64) (int, error) { return 0, meta.Permission }
func (*logHandle) Close(context.Context) error                         { return nil }

var manual = procfs.Help{
	About: "/dos/queues: queues and logs. Consumers of one group share its messages; each group sees them all.",
	Topics: []procfs.Topic{
		{Name: "Q/", Text: "mkdir makes a queue, rmdir removes an empty one", Examples: []string{"mkdir /dos/queues/jobs"}},
		{Name: "Q/push", Text: "one line is one message; it is committed and synced when the write returns", Examples: []string{"echo build >/dos/queues/jobs/push"}},
		{Name: "Q/pop", Text: "opening takes one message, or waits for one; closing acknowledges it if it was read to\nits end and the reader was not killed, else it is at the head again", Examples: []string{"read -r job </dos/queues/jobs/pop; echo \"$job\""}},
		{Name: "Q/pop@5s", Text: "the same, for 5 seconds at most; pop@0 does not wait"},
		{Name: "Q/lease", Text: "opening takes one message; what is written says what becomes of it: ack, nack [TIME],\nextend TIME or dead; closing gives back what was not acknowledged", Examples: []string{"echo test >/dos/queues/jobs/push; exec 3<>/dos/queues/jobs/lease; read -r job <&3; echo ack >&3; exec 3>&-"}},
		{Name: "Q/stream", Text: "messages line by line; each is acknowledged when the next is read", Examples: []string{"echo a >/dos/queues/jobs/push; read -r job </dos/queues/jobs/stream"}},
		{Name: "Q/send", Text: "a message with options key= prio= delay= dedup= expires= token=LOCK:N; its id is read back", Examples: []string{"exec 3<>/dos/queues/jobs/send; echo 'delay=1s dedup=x hello' >&3; read -r id <&3; exec 3>&-"}},
		{Name: "Q/put/ANY", Text: "a whole file of up to 64 MiB is one message. What is larger than 64 KiB is sent when\nit is closed, of which a shell sees no error: cp does, and dosctl up to 64 KiB", Examples: []string{"cp /etc/hostname /dos/queues/jobs/put/x"}},
		{Name: "Q/peek", Text: "the next messages, without taking them", Examples: []string{"cat /dos/queues/jobs/peek"}},
		{Name: "Q/status", Text: "how much there is, who has it, how safe it is", Examples: []string{"cat /dos/queues/jobs/status /dos/queues/jobs/inflight"}},
		{Name: "Q/ctl", Text: "durable fsync|memory: memory is fast, see status for what it is worth; the other files are\nthe same, but put takes 64 KiB at most, and keep, dead Q2, token= and kv's .txn are not for it;\nmax N; full block|reject|drop-old; ack TIME; attempts N; dead Q2|-; order fifo|priority|key;\nkeep 7d|10g|0; pause; resume; purge; default on|off: whether who pops without a group takes part", Examples: []string{"echo 'keep 7d' >/dos/queues/jobs/ctl"}},
		{Name: "Q/log", Text: "all messages that are kept", Examples: []string{"cat /dos/queues/jobs/log"}},
		{Name: "Q/dead/ID", Text: "messages that were given up; rm removes one. A large message whose bytes are lost with\ntoo many stores becomes one when it is taken, and the next is given out: reading it is EIO", Examples: []string{"ls /dos/queues/jobs/dead"}},
		{Name: "Q/groups/G/", Text: "mkdir makes a group with its own pop, lease, stream, status and ctl: seek first|last|N|TIME", Examples: []string{"mkdir /dos/queues/jobs/groups/audit; echo 'seek first' >/dos/queues/jobs/groups/audit/ctl"}},
	},
}
