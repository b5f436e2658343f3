package nodes

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"dos/meta"
)

// command executes a line of NODE/ctl.
func command(ctx context.Context, n node, line string) error {
	verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	rest = strings.TrimSpace(rest)
	yes, no := true, false
	switch verb {
	case "drain":
		return n.admin.Drain(ctx, n.name, rest, true)
	case "hold":
		return n.admin.Change(ctx, n.name, Change{Hold: &yes, Why: rest})
	case "weight":
		weight, err := parseWeight(rest)
		if err != nil {
			return err
		}
		return n.admin.Change(ctx, n.name, Change{Weight: &weight})
	}
	switch {
	case rest != "":
	case verb == "resume":
		if err := n.admin.Change(ctx, n.name, Change{Hold: &no}); err != nil {
			return err
		}
		return n.admin.Drain(ctx, n.name, "", false)
	case verb == "remove":
		return n.admin.Remove(ctx, n.name)
	}
	return fmt.Errorf("%.80q is none of drain [WHY], hold [WHY], resume, weight W, remove: %w", line, meta.Invalid)
}

// parseWeight reads a weight as hundredths.
func parseWeight(text string) (uint32, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0.01 && f <= 100) {
		return 0, fmt.Errorf("%.40q is not a weight from 0.01 to 100: %w", text, meta.Invalid)
	}
	return uint32(math.Round(f * 100)), nil
}

// label executes a line of NODE/labels.
func label(ctx context.Context, n node, line string) error {
	words := strings.Fields(line)
	what := Change{Label: words[0]}
	switch gone, is := strings.CutPrefix(words[0], "-"); {
	case is && gone != "" && len(words) == 1:
		what.Label = gone
	case !is && len(words) <= 2:
		value := strings.Join(words[1:], "")
		what.Value = &value
	default:
		return fmt.Errorf("%.80q is neither NAME, NAME VALUE nor -NAME: %w", line, meta.Invalid)
	}
	return n.admin.Change(ctx, n.name, what)
}

// say answers a line that is written to join.
func (j join) say(ctx context.Context, line string) (string, error) {
	words := strings.Fields(line)
	var reply string
	var err error
	switch {
	case words[0] == "new" && len(words) <= 2:
		reply, err = j.admin.Token(ctx, strings.Join(words[1:], ""))
	case len(words) == 1:
		reply, err = j.admin.Joined(ctx, words[0])
	default:
		err = fmt.Errorf("%.40q is neither new, new NAME nor a token: %w", line, meta.Invalid)
	}
	return reply + "\n", err
}
