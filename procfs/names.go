package procfs

import "strings"

// Keys are paths of names. A name of a file cannot hold a zero byte, which is %00 in it.
// So that each name is one part of a key, a percent sign before 00 or 25 is %25; others
// stand for themselves.

// KeyPart is the part of a key that a name stands for.
func KeyPart(name string) string {
	return strings.NewReplacer("%00", "\x00", "%25", "%").Replace(name)
}

// KeyName is the name of a part of a key.
func KeyName(part string) string {
	return strings.NewReplacer("\x00", "%00", "%00", "%2500", "%25", "%2525").Replace(part)
}

// KeyLast is the name of the last part of a key.
func KeyLast(key string) string {
	key = strings.TrimSuffix(key, "/")
	return KeyName(key[strings.LastIndexByte(key, '/')+1:])
}

// EscapeValue makes a value one field of a line: without the newline at its end, which
// echo puts there, and with backslashes before what would end the field.
func EscapeValue(val string) string {
	return strings.NewReplacer("\\", `\\`, "\n", `\n`, "\t", `\t`, "\x00", `\0`).Replace(strings.TrimSuffix(val, "\n"))
}
