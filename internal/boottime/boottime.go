// Package boottime is the clock that leases and sessions are measured with: it
// never jumps, and unlike Go's monotonic clock it goes on while the machine is
// suspended (clock_gettime(2), CLOCK_BOOTTIME). Its values mean nothing on
// another machine.
package boottime

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since the machine was started.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("boottime: %v", err)) // since Linux 2.6.39 it cannot fail
	}
	return time.Duration(ts.Nano())
}
