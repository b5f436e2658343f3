package meta

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseSize reads a number of bytes, as in `512`, `64k`, `10m`, `1g`.
func ParseSize(text string) (int64, error) {
	number, shift := text, 0
	for i, unit := range []string{"k", "m", "g", "t"} {
		if short, ok := strings.CutSuffix(text, unit); ok {
			number, shift = short, 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size such as 10m: %w", text, Invalid)
	}
	return int64(n) << shift, nil
}
