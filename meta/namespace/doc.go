// Package namespace is the tree of files as a deterministic machine.
package namespace
