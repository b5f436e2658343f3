package cluster

import (
	"context"
	"iter"
	"strings"

	"dos/meta"
	"dos/procfs"
)

// Settings are those of the cluster.
type Settings interface {
	// Settings returns all of them, in a stable order.
	Settings(ctx context.Context) ([]Setting, error)
	// Configure changes one; an empty value is its default.
	Configure(ctx context.Context, name, value string) error
}

// A Setting is one of them and the value that it has.
type Setting struct{ Name, Value string }

// The nodes of config are comparable, as their directory.
type (
	configDir struct {
		settings Settings
		owner    uint32
	}
	configFile struct {
		configDir
		name string
	}
)

func (d configDir) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "config", Mode: meta.TypeDir | 0o555}, nil
}

func (d configDir) find(ctx context.Context, name string) (Setting, error) {
	list, err := d.settings.Settings(ctx)
	for _, s := range list {
		if s.Name == name {
			return s, nil
		}
	}
	if err == nil {
		err = meta.NotExist
	}
	return Setting{}, err
}

func (d configDir) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	_, err := d.find(ctx, name)
	return configFile{d, name}, err
}

func (d configDir) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		list, err := d.settings.Settings(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, s := range list {
			if !yield(configFile{d, s.Name}.info(s), nil) {
				return
			}
		}
	}
}

func (f configFile) info(s Setting) procfs.Info {
	return procfs.Info{Name: f.name, Mode: meta.TypeFile | 0o644, UID: f.owner, Size: int64(len(s.Value) + 1)}
}

func (f configFile) Stat(ctx context.Context) (procfs.Info, error) {
	s, err := f.find(ctx, f.name)
	return f.info(s), err
}

// defaultWord is written to take a setting back.
const defaultWord = "default"

func (f configFile) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	ctx = context.WithoutCancel(ctx) // opening waits for nobody
	return procfs.Control{
		Settings: func(ctx context.Context) (string, error) {
			s, err := f.find(ctx, f.name)
			return s.Value + "\n", err
		},
		Do: func(ctx context.Context, line string) error {
			value := strings.TrimSpace(line)
			if value == defaultWord {
				value = ""
			}
			return f.settings.Configure(ctx, f.name, value)
		},
	}.Open(ctx, how)
}
