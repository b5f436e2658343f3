package fuse

import (
	"context"
	"errors"
	"syscall"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
)

// errnos says each kind in the kernel's words. Several kinds may share a number
// where POSIX has no other word for them.
var errnos = map[meta.Kind]syscall.Errno{
	meta.NotExist:     syscall.ENOENT,
	meta.Exist:        syscall.EEXIST,
	meta.Invalid:      syscall.EINVAL,
	meta.Permission:   syscall.EACCES,
	meta.Busy:         syscall.EBUSY,
	meta.Expired:      syscall.EIO, // the outcome is unknown; ESTALE would make the kernel send it again
	meta.NoSpace:      syscall.ENOSPC,
	meta.Unavailable:  syscall.EIO, // no quorum: the outcome is unknown
	meta.NotDir:       syscall.ENOTDIR,
	meta.IsDir:        syscall.EISDIR,
	meta.NotEmpty:     syscall.ENOTEMPTY,
	meta.TooManyLinks: syscall.EMLINK,
	meta.NameTooLong:  syscall.ENAMETOOLONG,
	meta.TooLarge:     syscall.EFBIG,
	meta.NoAttr:       syscall.ENODATA,
	meta.Fixed:        syscall.EPERM,
	meta.Conflict:     syscall.ESTALE,
	meta.Lost:         syscall.EIO,
	meta.Gap:          syscall.EIO,
	meta.Unsupported:  syscall.ENOTSUP,
	meta.Quota:        syscall.EDQUOT,
	meta.TimedOut:     syscall.ETIMEDOUT,
	meta.Leased:       syscall.EAGAIN,
	meta.Deadlock:     syscall.EDEADLK,
	meta.WouldWait:    syscall.EAGAIN,
	meta.TooLong:      syscall.EMSGSIZE,
	meta.Protocol:     syscall.EPROTO,
	meta.Canceled:     syscall.ECANCELED,
	meta.HostDown:     syscall.EHOSTDOWN,
	meta.Fenced:       syscall.ESTALE,
	meta.Refused:      syscall.ECONNREFUSED,
}

// loud lists the kinds that a person should hear of whoever asked: the number
// that the program sees says too little.
var loud = map[meta.Kind]bool{
	meta.Lost:        true,
	meta.Unavailable: true,
	meta.Gap:         true,
	meta.Expired:     true,
}

// errno says err in the kernel's words. known is false for an error that has
// none: it must be logged, since its number says nothing.
func errno(err error) (number syscall.Errno, known bool) {
	var kind meta.Kind
	var direct syscall.Errno
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &kind):
		number, known = errnos[kind]
		if !known {
			return syscall.EIO, false
		}
		return number, !loud[kind]
	case errors.As(err, &direct) && direct != 0 && direct != syscall.ENOSYS: // ENOSYS would switch the operation off for good
		return direct, true
	case errors.Is(err, context.Canceled): // the caller was interrupted
		return syscall.EINTR, true
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT, false
	}
	return syscall.EIO, false
}

// nodeStatus is status for a request that names a stored node by its number. Where
// other mounts use the tree too, one may have taken its last name since the kernel
// looked it up: ESTALE makes the kernel look the path up again, where perhaps
// another file stands by now.
func (f *files) nodeStatus(op string, err error) raw.Status {
	if f.fs.Shared() && errors.Is(err, meta.NotExist) {
		return raw.Status(syscall.ESTALE)
	}
	return f.status(op, err)
}

// status answers err to the kernel. The number is all that the program at the
// other end sees, so the sentence behind it is kept for
// /dos/cluster/self/error, and logged when the number says too little.
func (f *files) status(op string, err error) raw.Status {
	if err == nil {
		return raw.OK
	}
	number, known := errno(err)
	if !known {
		f.log.Error("fuse: "+op+" failed", "errno", number.Error(), "err", err)
	}
	// A bare kind is an everyday answer ("does not exist") and says no more
	// than its number.
	if _, bare := err.(meta.Kind); f.failed != nil && (!bare || !known) && number != syscall.EINTR {
		f.failed(op, err)
	}
	return raw.Status(number)
}
