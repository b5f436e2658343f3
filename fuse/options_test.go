package fuse

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		in    []string
		bits  uintptr
		other bool
		src   string
	}{
		{nil, 0, false, ""},
		{[]string{""}, 0, false, ""},
		{[]string{"ro"}, unix.MS_RDONLY, false, ""},
		{[]string{"ro,rw"}, 0, false, ""},
		{[]string{"ro", "rw", "ro"}, unix.MS_RDONLY, false, ""},
		{[]string{"sync,noatime", "nodev,nosuid,noexec"}, unix.MS_SYNCHRONOUS | unix.MS_NOATIME | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC, false, ""},
		{[]string{"nosuid,suid,nodev,dev"}, 0, false, ""},
		{[]string{"allow_other,default_permissions,defaults,_netdev,nofail,noauto,x-systemd.automount,comment=hi"}, 0, true, ""},
		{[]string{"fsname=home, dirsync"}, unix.MS_DIRSYNC, false, "home"},
	} {
		o, err := ParseOptions(c.in...)
		if err != nil || o.bits() != c.bits || o.AllowOther != c.other || o.Source != c.src {
			t.Errorf("ParseOptions(%q) = %+v, %v, want bits %#x, allow_other %v, source %q", c.in, o, err, c.bits, c.other, c.src)
		}
		if o.ReadOnly != (c.bits&unix.MS_RDONLY != 0) || o.Sync != (c.bits&unix.MS_SYNCHRONOUS != 0) {
			t.Errorf("ParseOptions(%q): ReadOnly %v, Sync %v", c.in, o.ReadOnly, o.Sync)
		}
		if o.direct() == 0 {
			t.Errorf("%q: go-fuse takes zero flags for nosuid and nodev", c.in)
		}
	}
	for _, bad := range []string{"fly", "ro,fly=high", "allow_other=1", "fsname=", "fsname", "RO", "max_read=1", "allow_root"} {
		o, err := ParseOptions(bad)
		if err == nil {
			t.Errorf("ParseOptions(%q) = %+v, want an error", bad, o)
			continue
		}
		name := bad[strings.LastIndexByte(bad, ',')+1:]
		if !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("ParseOptions(%q): %v does not name %q", bad, err, name)
		}
	}
}

func TestHelperOptions(t *testing.T) {
	for in, want := range map[string][]string{
		"":                        {"default_permissions"},
		"ro,noatime,relatime":     {"default_permissions", "ro", "noatime"},
		"sync,noexec,nodev":       {"default_permissions", "sync", "noexec"},
		"dev":                     nil,
		"suid":                    nil,
		"nosymfollow":             nil,
		"dirsync,nodiratime,exec": {"default_permissions", "dirsync", "nodiratime"},
	} {
		o, err := ParseOptions(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.helper()
		if (err != nil) != (want == nil) || !slices.Equal(got, want) {
			t.Errorf("%q for fusermount3: %q, %v, want %q", in, got, err, want)
		}
	}
	if (Options{ReadOnly: true, Sync: true}).direct() != syscall.MS_MGC_VAL|unix.MS_RDONLY|unix.MS_SYNCHRONOUS {
		t.Error("fields that a program sets do not reach mount(2)")
	}
}
