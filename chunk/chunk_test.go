package chunk

import "testing"

func TestCode(t *testing.T) {
	for _, test := range []struct {
		text string
		want Code
		ok   bool
	}{
		{"", Code{}, true},
		{"4+2", Code{K: 4, M: 2}, true},
		{"1+1", Code{K: 1, M: 1}, true},
		{"4", Code{}, false},
		{"4+2x", Code{}, false},
		{"0+2", Code{}, false},
		{"4+0", Code{}, false},
		{"31+2", Code{}, false},
		{"300+2", Code{}, false},
		{"-4+2", Code{}, false},
	} {
		if got, err := ParseCode(test.text); got != test.want || (err == nil) != test.ok {
			t.Errorf("ParseCode(%q) = %v, %v, want %v, success %v", test.text, got, err, test.want, test.ok)
		}
	}
}
