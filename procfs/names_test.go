package procfs

import (
	"strings"
	"testing"
)

// Each name is one key, and each key that a name can hold is one name.
func TestNames(t *testing.T) {
	for name, key := range map[string]string{
		"a": "a", "50%": "50%", "a%41": "a%41", "%00": "\x00", "%25": "%", "%2500": "%00", "%2525": "%25", "x%00y": "x\x00y",
	} {
		if got := KeyPart(name); got != key {
			t.Errorf("the name %q is the key %q, want %q", name, got, key)
		}
	}
	for _, key := range []string{"a", "%", "%%", "50%", "a\x00b", "%00", "%25", "%2500", "%2", "%\x00"} {
		if got := KeyPart(KeyName(key)); got != key || strings.Contains(KeyName(key), "\x00") {
			t.Errorf("the key %q is the name %q, which is the key %q", key, KeyName(key), got)
		}
	}
}
