// Package services has programs on three mounts of a cluster use locks, values, queues
// and calls as files, while what they run on is killed, hangs or is cut off, and
// checks that all they were told is linearizable.
package services

import (
	"flag"
	"os"
	"testing"
	"time"

	"dos/test/cluster"
)

var long = flag.Bool("long", false, "more rounds and more operations")

// wholeLimit bounds how long all may take to take part again.
const wholeLimit = 2 * time.Minute

func TestMain(m *testing.M) {
	if path := os.Getenv(callerEnv); path != "" {
		keepCalling(path, os.Args[1])
		return
	}
	os.Exit(cluster.Main(m))
}

// three is a cluster of three machines, each with all roles.
func three(t *testing.T) *cluster.Cluster {
	t.Helper()
	cluster.NeedFuse(t)
	cluster.Need(t, "flock")
	return cluster.Three(t, cluster.Founded, "2+1")
}
