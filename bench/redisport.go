package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// portRequests is how many requests one cell of the port has, portClients how many
	// clients they come from, and portPipeline how many are sent at once with pipelining.
	portRequests = 200_000
	portClients  = 50
	portPipeline = 16
)

// portName is what all of these cells are called.
const portName = "port"

// portTests are what redis-benchmark measures, by its names.
var portTests = []string{"set", "get", "incr"}

// portCells are the cells of the port: a database, and a pipeline's length.
var portCells = []struct {
	name     string
	db       int
	pipeline int
}{
	{"port cache", 1, 1}, {"port cache -P 16", 1, portPipeline}, {"port kv", 0, 1}, {"port kv -P 16", 0, portPipeline},
}

// redisPort measures the port for Redis of an embedded dos beside Redis itself, which
// keeps all in memory, with the benchmark of Redis.
func redisPort(ctx context.Context, work string, quick bool, say func(who, cell string, v float64)) (err error) {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	point := filepath.Join(work, "port")
	dos, err := start(ctx, point, filepath.Join(work, "dosmount"), "--data", filepath.Join(work, "port-data"), "--redis", addr, point)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(&dos)) }()
	theirs, err := freeAddr()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(theirs)
	if err != nil {
		return err
	}
	redis := exec.CommandContext(ctx, "redis-server", "--bind", host, "--port", port, "--dir", work, "--save", "", "--appendonly", "no")
	if err := redis.Start(); err != nil {
		return err
	}
	defer func() {
		redis.Process.Kill() //nolint:errcheck // it has nothing to keep
		redis.Wait()         //nolint:errcheck // it was killed
	}()
	n := portRequests
	if quick {
		n /= 20
	}
	for _, cell := range portCells {
		for who, addr := range map[string]string{"dos": addr, "redis": theirs} {
			requests := n
			if cell.db == 0 { // each waits for the disk
				requests /= 10
			}
			if err := redisBenchmark(ctx, addr, cell.db, cell.pipeline, requests, func(test string, v float64) {
				say(who, cell.name+" "+test, v)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// redisBenchmark runs redis-benchmark, and tells of requests a second.
func redisBenchmark(ctx context.Context, addr string, db, pipeline, requests int, say func(test string, v float64)) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "redis-benchmark", "-h", host, "-p", port, "--dbnum", strconv.Itoa(db), "-P", strconv.Itoa(pipeline),
		"-n", strconv.Itoa(requests), "-c", strconv.Itoa(portClients), "-r", "10000", "-d", "100", "--csv", "-t", strings.Join(portTests, ","))
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	lines, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	told := 0
	for _, line := range lines {
		v, err := strconv.ParseFloat(line[1], 64)
		if err != nil {
			continue // the heading
		}
		say(strings.ToLower(line[0]), v)
		told++
	}
	if told != len(portTests) {
		return fmt.Errorf("%s tells of %d tests, not %d:\n%s", cmd, told, len(portTests), out)
	}
	return nil
}
