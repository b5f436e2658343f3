package cluster

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"testing"
)

// A Result is how a command ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a command to its end.
func Run(tb testing.TB, name string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), upLimit)
	defer cancel()
	return runToEnd(ctx, tb, exec.CommandContext(ctx, name, args...))
}

// RunOrdinary runs a command to its end as Nobody.
func RunOrdinary(tb testing.TB, name string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), upLimit)
	defer cancel()
	return runToEnd(ctx, tb, Ordinary(ctx, tb, name, args...))
}

func runToEnd(ctx context.Context, tb testing.TB, cmd *exec.Cmd) Result {
	tb.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		tb.Fatalf("%s: %v (%v)\n%s", cmd, err, ctx.Err(), stderr.String())
	}
	return Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
