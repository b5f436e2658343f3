package procfs

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"dos/meta"
)

// Duration reads how long, as in `30s`, `7d` or, in seconds, `10`.
func Duration(text string) (time.Duration, error) {
	days, isDays := strings.CutSuffix(text, "d")
	seconds := text
	unit := time.Second
	if isDays {
		seconds, unit = days, 24*time.Hour
	}
	if n, err := strconv.ParseUint(seconds, 10, 63); err == nil {
		if n > uint64(maxDuration/unit) {
			return 0, fmt.Errorf("%s is too long: %w", text, meta.Invalid)
		}
		return time.Duration(n) * unit, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxDuration {
		return 0, fmt.Errorf("%q is not a duration such as 5s: %w", text, meta.Invalid)
	}
	return d, nil
}

// maxDuration is some hundred years less than what a time.Duration holds, so that
// adding one to a time of this century does not overflow.
const maxDuration = 100 * 365 * 24 * time.Hour
