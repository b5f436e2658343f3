package redis

// match says whether a key is as a pattern of Redis says: * and ? stand for any bytes
// and any one, [a-c] and [^a] for one of some, and a backslash takes the meaning of the
// next. It takes time of the product of both lengths at most.
func match(pattern []byte, key string) bool {
	p, k := 0, 0
	star, mark := -1, 0 // where to go on if this way leads nowhere
	for k < len(key) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, mark = p, k
				p++
				continue
			}
			if n, ok := one(pattern[p:], key[k]); ok {
				p += n
				k++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, k = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one says whether a byte is what a pattern begins with, and how long that is.
func one(p []byte, c byte) (n int, ok bool) {
	switch p[0] {
	case '?':
		return 1, true
	case '\\':
		if len(p) > 1 {
			return 2, p[1] == c
		}
	case '[':
		return class(p, c)
	}
	return 1, p[0] == c
}

func class(p []byte, c byte) (n int, ok bool) {
	i := 1
	not := i < len(p) && p[i] == '^'
	if not {
		i++
	}
	for ; i < len(p) && p[i] != ']'; i++ {
		switch {
		case p[i] == '\\' && i+1 < len(p):
			i++
			ok = ok || p[i] == c
		case i+2 < len(p) && p[i+1] == '-':
			from, to := min(p[i], p[i+2]), max(p[i], p[i+2])
			i += 2
			ok = ok || from <= c && c <= to
		default:
			ok = ok || p[i] == c
		}
	}
	if i < len(p) {
		i++
	}
	return i, ok != not
}
