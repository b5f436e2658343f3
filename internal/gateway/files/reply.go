package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"dos/meta"
)

// A fileStatus is Hadoop's FileStatus.
type fileStatus struct {
	AccessTime       int64  `json:"accessTime"` // ms since 1970, as the next
	BlockSize        int64  `json:"blockSize"`  // bytes
	FileID           uint64 `json:"fileId"`
	Group            string `json:"group"`
	Length           int64  `json:"length"` // bytes
	ModificationTime int64  `json:"modificationTime"`
	Owner            string `json:"owner"`
	PathSuffix       string `json:"pathSuffix"`
	Permission       string `json:"permission"` // octal
	Replication      int    `json:"replication"`
	Symlink          string `json:"symlink,omitempty"`
	Type             string `json:"type"` // FILE, DIRECTORY, SYMLINK
}

// blockSize is that of HDFS: by it programs part their work. Here a file has no blocks.
const blockSize = 128 << 20

// names remember what users and groups are called, for one request.
type names struct{ users, groups map[uint32]string }

func newNames() names { return names{make(map[uint32]string), make(map[uint32]string)} }

func named(known map[uint32]string, id uint32, look func(string) (string, error)) string {
	name, ok := known[id]
	if !ok {
		text := strconv.FormatUint(uint64(id), 10)
		var err error
		if name, err = look(text); err != nil {
			name = text
		}
		known[id] = name
	}
	return name
}

// status is what Hadoop is told of something.
func (n names) status(suffix string, a meta.Attr) fileStatus {
	s := fileStatus{
		AccessTime: a.Atime.Std().UnixMilli(), ModificationTime: a.Mtime.Std().UnixMilli(), FileID: uint64(a.Ino),
		Owner: named(n.users, a.UID, func(id string) (string, error) {
			u, err := user.LookupId(id)
			if err != nil {
				return "", err
			}
			return u.Username, nil
		}),
		Group: named(n.groups, a.GID, func(id string) (string, error) {
			g, err := user.LookupGroupId(id)
			if err != nil {
				return "", err
			}
			return g.Name, nil
		}),
		PathSuffix: suffix, Permission: strconv.FormatUint(uint64(a.Mode&0o1777), 8), Type: "FILE",
	}
	switch a.Type() {
	case meta.TypeDir:
		s.Type = "DIRECTORY"
	case meta.TypeSymlink:
		s.Type = "SYMLINK"
	default:
		s.Length, s.BlockSize, s.Replication = a.Size, blockSize, 1
	}
	return s
}

func answer(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("files: %v", err)) // it has nothing that cannot be
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // who asked may be gone
}

// An exception is a failure in Hadoop's words.
type exception struct {
	status  int
	class   string // of Java
	message string
}

func (e exception) Error() string { return e.message }

const (
	fileNotFound = "java.io.FileNotFoundException"
	ioException  = "java.io.IOException"
)

// exceptions are those of kinds, by status and class; what is not there is an IOException.
var exceptions = map[meta.Kind]exception{
	meta.NotExist:    {404, fileNotFound, "File does not exist"},
	meta.Permission:  {403, "org.apache.hadoop.security.AccessControlException", "Permission denied"},
	meta.Fixed:       {403, "org.apache.hadoop.security.AccessControlException", "Permission denied"},
	meta.Exist:       {403, "org.apache.hadoop.fs.FileAlreadyExistsException", "File already exists"},
	meta.IsDir:       {403, "org.apache.hadoop.fs.FileAlreadyExistsException", "It already exists as a directory"},
	meta.NotDir:      {403, "org.apache.hadoop.fs.ParentNotDirectoryException", "Parent path is not a directory"},
	meta.NotEmpty:    {403, "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException", "Directory is not empty"},
	meta.Quota:       {403, "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "The quota is exceeded"},
	meta.Invalid:     {400, "java.lang.IllegalArgumentException", "Invalid argument"},
	meta.NameTooLong: {400, "java.lang.IllegalArgumentException", "A name is too long"},
	meta.Unsupported: {400, "java.lang.UnsupportedOperationException", "It is not supported"},
	meta.Unavailable: {503, "org.apache.hadoop.ipc.RetriableException", "The cluster cannot be reached"},
	meta.Expired:     {503, "org.apache.hadoop.ipc.RetriableException", "The session is over"},
	meta.TimedOut:    {503, "org.apache.hadoop.ipc.RetriableException", "The time is over"},
}

// except answers with a RemoteException.
func except(w http.ResponseWriter, path string, err error) {
	var e exception
	var kind meta.Kind
	switch {
	case errors.As(err, &e):
	case errors.As(err, &kind):
		known, ok := exceptions[kind]
		if e = known; !ok {
			e = exception{http.StatusForbidden, ioException, "Input/output error"}
		}
		e.message += ": " + path
		if _, bare := err.(meta.Kind); !bare || !ok {
			e.message += ": " + err.Error()
		}
	default:
		e = exception{http.StatusInternalServerError, ioException, path + ": " + err.Error()}
	}
	answer(w, e.status, map[string]any{"RemoteException": map[string]string{
		"exception": e.class[strings.LastIndexByte(e.class, '.')+1:], "javaClassName": e.class, "message": e.message,
	}})
}

// isKind says whether err is one of these.
func isKind(err error, kinds ...meta.Kind) bool {
	var kind meta.Kind
	return errors.As(err, &kind) && slices.Contains(kinds, kind)
}
