// Package task is the jobs of the cluster: what was submitted, which machine runs it,
// and what has become of it. It knows no processes and no files; an agent on each
// machine runs what is assigned to it.
package task
