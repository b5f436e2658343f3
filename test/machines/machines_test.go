// Package machines runs dos on several machines, each a process with a network
// of its own, and breaks them as machines break: they are killed, hang, are cut
// off and lose their disks, one and two at a time. What mounts were told must
// stay true all the while.
package machines

import (
	"flag"
	"os"
	"testing"
	"time"

	"dos/test/cluster"
)

var long = flag.Bool("long", false, "all rounds (half an hour)")

// repairLimit bounds how long full redundancy may take to come back with as
// little data as there is here.
const repairLimit = 2 * time.Minute

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }
