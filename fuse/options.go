package fuse

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options are the mount options of mount(8) that reach us. The zero value is
// what a plain mount means.
type Options struct {
	ReadOnly   bool
	Sync       bool   // every write is durable before write(2) returns
	AllowOther bool   // users other than the one who mounts may use it
	Source     string // what mount(8) and df show as the device; "dos" if empty

	flags uintptr // of mount(2), as the options say
	clear uintptr // flags that the options take away
}

// flag says what an option does to the flags of mount(2).
type flag struct{ set, clear uintptr }

var flags = map[string]flag{
	"ro":            {set: unix.MS_RDONLY},
	"rw":            {clear: unix.MS_RDONLY},
	"sync":          {set: unix.MS_SYNCHRONOUS},
	"async":         {clear: unix.MS_SYNCHRONOUS},
	"dirsync":       {set: unix.MS_DIRSYNC},
	"noatime":       {set: unix.MS_NOATIME},
	"atime":         {clear: unix.MS_NOATIME},
	"nodiratime":    {set: unix.MS_NODIRATIME},
	"diratime":      {clear: unix.MS_NODIRATIME},
	"relatime":      {set: unix.MS_RELATIME},
	"norelatime":    {clear: unix.MS_RELATIME},
	"strictatime":   {set: unix.MS_STRICTATIME},
	"nostrictatime": {clear: unix.MS_STRICTATIME},
	"dev":           {clear: unix.MS_NODEV},
	"nodev":         {set: unix.MS_NODEV},
	"suid":          {clear: unix.MS_NOSUID},
	"nosuid":        {set: unix.MS_NOSUID},
	"exec":          {clear: unix.MS_NOEXEC},
	"noexec":        {set: unix.MS_NOEXEC},
	"nosymfollow":   {set: unix.MS_NOSYMFOLLOW},
}

// ignored are options for mount(8), init systems and fstab, not for us.
// default_permissions is always on.
var ignored = map[string]bool{
	"defaults": true, "default_permissions": true, "auto": true, "noauto": true, "user": true, "nouser": true,
	"users": true, "owner": true, "group": true, "_netdev": true, "nofail": true, "silent": true, "loud": true,
}

// ParseOptions reads the arguments of -o, each a list with commas. An option
// that is not known is an error that names it.
func ParseOptions(lists ...string) (Options, error) {
	var o Options
	for _, list := range lists {
		for opt := range strings.SplitSeq(list, ",") {
			if err := o.add(strings.TrimSpace(opt)); err != nil {
				return Options{}, err
			}
		}
	}
	o.ReadOnly = o.flags&unix.MS_RDONLY != 0
	o.Sync = o.flags&unix.MS_SYNCHRONOUS != 0
	return o, nil
}

func (o *Options) add(opt string) error {
	name, value, hasValue := strings.Cut(opt, "=")
	if fl, ok := flags[opt]; ok {
		o.flags = o.flags&^fl.clear | fl.set
		o.clear = o.clear&^fl.set | fl.clear
		return nil
	}
	switch {
	case opt == "", ignored[opt], strings.HasPrefix(opt, "x-"), name == "comment":
		return nil
	case opt == "allow_other":
		o.AllowOther = true
		return nil
	case name == "fsname" && hasValue && value != "":
		o.Source = value
		return nil
	}
	return fmt.Errorf("unknown mount option %q; known are %s", opt, known)
}

const known = "ro rw sync async dirsync [no]atime relatime strictatime [no]dev [no]suid [no]exec nosymfollow allow_other default_permissions fsname=NAME"

// direct returns the flags for mount(2). Without MS_MGC_VAL go-fuse takes
// zero flags to mean its own default, nosuid and nodev.
func (o Options) direct() uintptr {
	return syscall.MS_MGC_VAL | o.bits()
}

func (o Options) bits() uintptr {
	b := o.flags
	if o.ReadOnly {
		b |= unix.MS_RDONLY
	}
	if o.Sync {
		b |= unix.MS_SYNCHRONOUS
	}
	return b
}

// helper returns the options as fusermount3 takes them. It adds nosuid and
// nodev by itself and refuses their opposites. How access times are kept is
// left out: we keep them as we do whatever it says.
func (o Options) helper() ([]string, error) {
	list := []string{"default_permissions"}
	bits := o.bits()
	if o.clear&(unix.MS_NODEV|unix.MS_NOSUID) != 0 {
		return nil, fmt.Errorf("the mount options dev and suid are for root")
	}
	for _, opt := range []string{"ro", "sync", "dirsync", "noatime", "nodiratime", "noexec"} {
		if bits&flags[opt].set != 0 {
			list = append(list, opt)
		}
	}
	if bits&unix.MS_NOSYMFOLLOW != 0 {
		return nil, fmt.Errorf("the mount option nosymfollow is for root")
	}
	return list, nil
}
