package locks

import (
	"fmt"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/named"
	"dos/procfs"
)

// Render says who has a lock and who waits, and its settings.
func Render(info named.Info, now time.Time) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	l := info.Lock
	switch {
	case info.Lent != 0: // whoever decides there could not be asked
		line("state lent")
		line("holder session %d", info.Lent)
	case len(l.Holds) == 0:
		line("state free")
	default:
		line("state held")
		line("mode %s", mode(l.Mode()))
	}
	for _, c := range l.Holds {
		if info.Lent != 0 {
			break
		}
		line("holder %s", who(c))
		line("token %d", c.Token)
		if c.ID != "" {
			line("id %s", c.ID)
			line("ttl %.1f", max(0, time.Duration(c.Expires-meta.At(now)).Seconds()))
		}
	}
	if wait := time.Duration(l.Shut - meta.At(now)); wait > 0 {
		line("shut %.1f", wait.Seconds())
	}
	line("waiters %d", len(l.Waits))
	for i, c := range l.Waits {
		line("waiter %d %s %s", i+1, mode(c.Mode), who(c))
	}
	if l.Limit > 0 {
		line("limit %d", l.Limit)
	}
	if l.Delay > 0 {
		line("delay %s", l.Delay)
	}
	if l.Fenced {
		line("fenced yes")
	}
	if l.Value != "" {
		line("value %s", l.Value)
	}
	return b.String()
}

func mode(m meta.LockMode) string {
	switch m {
	case meta.Shared:
		return "shared"
	case meta.Exclusive:
		return "exclusive"
	}
	return "none"
}

func who(c named.Claim) string {
	return fmt.Sprintf("%s pid %d uid %d cmd %s since %s", c.Who.Node, c.Who.PID, c.Who.UID, c.Who.Cmd, time.Unix(0, int64(c.Since)).UTC().Format(time.RFC3339))
}

var manual = procfs.Help{
	About: "/dos/locks: locks that have names, for all machines",
	Topics: []procfs.Topic{
		{Name: "NAME", Text: "a lock: opening makes it, flock(1) and flock(2) lock it, closing or dying frees it.\n" +
			"It is gone when nobody has it and nothing is set. Reading says who has it.", Examples: []string{
			"flock /dos/locks/deploy echo mine",
			"flock -n /dos/locks/deploy echo mine || echo busy",
			"exec 9<>/dos/locks/deploy; flock 9; cat /dos/locks/deploy 9>&-; exec 9>&-",
		}},
		{Name: "DIR/NAME", Text: "the same in a directory, which mkdir makes and rmdir removes", Examples: []string{"mkdir /dos/locks/site; flock /dos/locks/site/deploy echo mine; rmdir /dos/locks/site"}},
		{Name: "acquire", Text: "written to a lock, waits like flock; `try` does not wait; `release` gives up", Examples: []string{
			"exec 9<>/dos/locks/deploy; echo acquire >&9; echo release >&9; exec 9>&-",
			"exec 9<>/dos/locks/deploy; echo 'try shared' >&9; exec 9>&-",
		}},
		{Name: "id", Text: "with an id the lock belongs to the id for its time to live, not to the descriptor", Examples: []string{
			"echo 'acquire id job7 ttl 60s' >/dos/locks/nightly",
			"echo 'renew job7' >/dos/locks/nightly",
			"echo 'release job7' >/dos/locks/nightly",
		}},
		{Name: "settings", Text: "limit N: so many may have it; delay D: so long nobody gets it after a holder was lost;\n" +
			"value TEXT: for elections; 0 or nothing resets; rm resets all", Examples: []string{
			"echo 'limit 3' >/dos/locks/slots; rm /dos/locks/slots",
			"echo 'delay 10s' >/dos/locks/leader; echo 'value node-a' >/dos/locks/leader; rm /dos/locks/leader",
		}},
		{Name: "onloss", Text: "SIGNAL: sent to whoever opened the descriptor, when what it has is lost", Examples: []string{
			"exec 9<>/dos/locks/deploy; flock 9; echo 'onloss TERM' >&9; exec 9>&-",
		}},
		{Name: "break", Text: "takes the lock from whoever has it; for root", Examples: []string{"echo break >/dos/locks/deploy"}},
		{Name: ".hold/NAME", Text: "open waits for the lock, read gives the token, close frees it;\n" +
			".hold/NAME@5s waits 5 s, @0 does not wait", Examples: []string{"(read -r token; echo $token) </dos/locks/.hold/deploy"}},
		{Name: ".watch/NAME", Text: "a line for each change: held token=18 node=…, free, lost, value …", Examples: []string{"timeout 1 cat /dos/locks/.watch/deploy"}},
		{Name: "fence", Text: "a file with user.dos.fence changes only through a mount that has the lock, by a\n" +
			"grant with that token or a later one, or that had it last; else ESTALE", Examples: []string{
			"(read -r token; setfattr -n user.dos.fence -v x:$token FILE; echo done >FILE) </dos/locks/.hold/x",
		}},
	},
}
