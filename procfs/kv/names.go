package kv

import "strings"

// A name of a file cannot hold a zero byte, which is %00 in it. So that each name is
// one key, a percent sign before 00 or 25 is %25; others stand for themselves.

func part(name string) string {
	return strings.NewReplacer("%00", "\x00", "%25", "%").Replace(name)
}

func nameOf(part string) string {
	return strings.NewReplacer("\x00", "%00", "%00", "%2500", "%25", "%2525").Replace(part)
}

// lastName is the name of the last part of a key.
func lastName(key string) string {
	key = strings.TrimSuffix(key, "/")
	return nameOf(key[strings.LastIndexByte(key, '/')+1:])
}

// escape makes a value one field of a line: without the newline at its end, which
// echo puts there, and with backslashes before what would end the field.
func escape(val string) string {
	return strings.NewReplacer("\\", `\\`, "\n", `\n`, "\t", `\t`, "\x00", `\0`).Replace(strings.TrimSuffix(val, "\n"))
}
