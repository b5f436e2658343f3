// Package metrics tells Prometheus how a dos does: the whole of it, and the process
// that answers. It owns the names of the series and knows nothing of where their
// values come from. Series are made when they are asked for, so that they cost nothing
// else and are as fresh as what they are made of.
package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"dos/meta/task"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// A Source is what is known of a dos.
type Source interface {
	Status(ctx context.Context) (cluster.Status, error)
	Names(ctx context.Context) ([]string, error)
	Node(ctx context.Context, name string) (nodes.Node, error)
}

// askWait bounds how long the source may take: Prometheus gives up after ten seconds.
const askWait = 8 * time.Second

// Metrics are the series of one dos.
type Metrics struct{ whole, all *prometheus.Registry }

// New returns the metrics of a source, and of its tasks.
func New(s Source, tasks func(context.Context) (task.Status, error)) *Metrics {
	m := &Metrics{prometheus.NewRegistry(), prometheus.NewRegistry()}
	c := collector{s, tasks}
	m.whole.MustRegister(c)
	m.all.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Text returns the series of the dos in Prometheus' text format.
func (m *Metrics) Text(context.Context) (string, error) {
	families, err := m.whole.Gather()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return "", fmt.Errorf("metrics: %s: %w", f.GetName(), err)
		}
	}
	return b.String(), nil
}

// Handler serves them, and those of this process.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.all, promhttp.HandlerOpts{})
}

// A series is one value, or one for each of some things.
type series[T any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(of T) float64
}

func gauge[T any](name, help string, labels []string, value func(T) float64) series[T] {
	return series[T]{prometheus.NewDesc("dos_"+name, help, labels, nil), prometheus.GaugeValue, value}
}

func counter[T any](name, help string, labels []string, value func(T) float64) series[T] {
	return series[T]{prometheus.NewDesc("dos_"+name+"_total", help, labels, nil), prometheus.CounterValue, value}
}

func (s series[T]) send(to chan<- prometheus.Metric, of T, labels ...string) {
	to <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(of), labels...)
}

// collector makes the series of a source; it is a prometheus.Collector.
type collector struct {
	source Source
	tasks  func(context.Context) (task.Status, error)
}

// Describe says nothing: which stores and nodes there are changes.
func (collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askWait)
	defer cancel()
	s, err := c.source.Status(ctx)
	reached := 1.0
	if err != nil {
		slog.Warn("metrics: the status is not known", "err", err)
		reached = 0
	}
	to <- prometheus.MustNewConstMetric(answers, prometheus.GaugeValue, reached)
	if err == nil {
		whole(to, s)
	}
	names, err := c.source.Names(ctx)
	if err != nil {
		slog.Warn("metrics: the nodes are not known", "err", err)
	}
	for _, name := range names {
		n, err := c.source.Node(ctx, name)
		if err != nil { // it was removed just now
			continue
		}
		for _, one := range ofNode {
			one.send(to, n, name)
		}
		for _, m := range ofMemory {
			to <- prometheus.MustNewConstMetric(memory, prometheus.GaugeValue, float64(m.value(n.Memory)), name, m.kind)
		}
	}
	st, err := c.tasks(ctx)
	if err != nil {
		slog.Warn("metrics: the tasks are not known", "err", err)
		return
	}
	tasksSeries(to, st)
}

func tasksSeries(to chan<- prometheus.Metric, st task.Status) {
	for _, s := range task.States() {
		if int(s) < len(st.Counts) {
			to <- prometheus.MustNewConstMetric(taskStates, prometheus.GaugeValue, float64(st.Counts[s]), s.String())
		}
	}
	to <- prometheus.MustNewConstMetric(submitted, prometheus.CounterValue, float64(st.Submitted))
	for _, n := range st.Nodes {
		for _, one := range ofOffer {
			one.send(to, n, n.Offer.Node)
		}
	}
}

func whole(to chan<- prometheus.Metric, s cluster.Status) {
	for _, one := range ofStatus {
		one.send(to, s)
	}
	h := s.Health()
	for _, word := range []string{cluster.OK, cluster.Degraded, cluster.Endangered, cluster.DataLost, cluster.NoQuorum} {
		is := 0.0
		if h.Word == word {
			is = 1
		}
		to <- prometheus.MustNewConstMetric(health, prometheus.GaugeValue, is, word)
	}
	for _, one := range ofStripes {
		to <- prometheus.MustNewConstMetric(stripes, prometheus.GaugeValue, float64(one.value(s.Stripes)), one.state)
	}
	to <- prometheus.MustNewConstMetric(build, prometheus.GaugeValue, 1, s.Version)
	for _, st := range s.Stores {
		for _, one := range ofStore {
			one.send(to, st, fmt.Sprint(st.ID), st.Node)
		}
	}
}
