package procfs

import (
	"context"
	"strings"

	"dos/meta"
)

// Text is a read-only file (class S) whose contents are made anew by every open.
func Text(name string, text func(context.Context) (string, error)) File {
	return &textFile{name, text}
}

type textFile struct {
	name string
	text func(context.Context) (string, error)
}

func (f *textFile) called() string { return f.name }

func (f *textFile) Stat(ctx context.Context) (Info, error) {
	text, err := f.text(ctx)
	return Info{Name: f.name, Mode: meta.TypeFile | 0o444, Size: int64(len(text))}, err
}

func (f *textFile) Open(ctx context.Context, how Open) (Handle, error) {
	text, err := f.text(ctx)
	if err != nil {
		return nil, err
	}
	return OpenText(how, text)
}

// OpenText opens a snapshot (class S).
func OpenText(how Open, text string) (Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	return textHandle(text), nil
}

// textHandle is a Sizer: its text does not change after the open.
type textHandle string

func (h textHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return strings.NewReader(string(h)).ReadAt(p, off)
}
func (textHandle) WriteAt(context.Context, []byte, int64) (int, error) { return 0, meta.Permission }
func (textHandle) Close(context.Context) error                         { return nil }
func (h textHandle) Size() int64                                       { return int64(len(h)) }

// Fixed is a read-only file that always says the same. It is comparable.
type Fixed struct{ Name, Text string }

func (f Fixed) Stat(context.Context) (Info, error) {
	return Info{Name: f.Name, Mode: meta.TypeFile | 0o444, Size: int64(len(f.Text))}, nil
}

func (f Fixed) Open(_ context.Context, how Open) (Handle, error) { return OpenText(how, f.Text) }
