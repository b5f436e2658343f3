package redis

import "strings"

// A key is one name in a table, a bucket or among the queues, so what a name cannot
// have is written as %XX there.

var (
	escapes   = strings.NewReplacer("%", "%25", "/", "%2F", "\x00", "%00")
	unescapes = strings.NewReplacer("%25", "%", "%2F", "/", "%00", "\x00", "%2E", ".")
)

// noKey is the name of the key without a byte.
const noKey = "%"

func nameOf(key string) string {
	switch {
	case key == "":
		return noKey
	case key[0] == '.':
		return "%2E" + escape(key[1:])
	}
	return escape(key)
}

func escape(key string) string {
	if !strings.ContainsAny(key, "%/\x00") {
		return key
	}
	return escapes.Replace(key)
}

func keyOf(name string) string {
	if name == noKey {
		return ""
	}
	if strings.IndexByte(name, '%') < 0 {
		return name
	}
	return unescapes.Replace(name)
}
