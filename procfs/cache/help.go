package cache

import "dos/procfs"

var help = procfs.Help{
	About: "/dos/cache: entries in the memory of all machines. One may be gone at any time, and\nis never an old one: what was deleted or overwritten nobody gets any more.",
	Topics: []procfs.Topic{
		{Name: "BUCKET/", Text: "mkdir makes a bucket, rmdir removes an empty one; owner and mode count", Examples: []string{
			"mkdir /dos/cache/pages"}},
		{Name: "BUCKET/KEY", Text: "an entry, up to 4 MiB, stored whole when it is closed; no such file: a miss.\nA writer that a signal kills stores nothing. Directories are made with mkdir", Examples: []string{
			"echo hello > /dos/cache/pages/a; cat /dos/cache/pages/a; rm /dos/cache/pages/a",
			"cat /dos/cache/pages/b 2>/dev/null || date | tee /dos/cache/pages/b",
			"(set -C; echo me > /dos/cache/pages/first)     # only if it does not exist",
			"setfattr -n user.dos.ttl -v 5m /dos/cache/pages/first   # then it goes; 0: it stays",
			"V=$(getfattr --absolute-names --only-values -n user.dos.version /dos/cache/pages/first)\nexec 3> /dos/cache/pages/first; setfattr -n user.dos.version -v $V /dos/cache/pages/first\necho you >&3 || echo somebody was faster; exec 3>&-"}},
		{Name: "BUCKET/.fill/KEY", Text: "not listed; the entry if it is there. Else who opens it first to read and\nwrite finds it empty and fills it, while others who open it wait. If he\ndies, or closes it unwritten, the next one fills. Nonblocking: EAGAIN", Examples: []string{
			"exec 3<>/dos/cache/pages/.fill/b; V=$(cat <&3)\n[ \"$V\" ] || { V=$(date); printf %s \"$V\" >&3; }; exec 3>&-; echo \"$V\""}},
		{Name: "BUCKET/.incr/KEY", Text: "not listed; write a number to add, read the sum", Examples: []string{
			"exec 3<>/dos/cache/pages/.incr/hits; echo 1 >&3; read -r N <&3; exec 3>&-; echo $N"}},
		{Name: "BUCKET/.watch", Text: "not listed; waits for changes: set, del, expire, evict and the key, clear;\nlost: a machine came or went; missed N: you were too slow", Examples: []string{
			"timeout 60 cat /dos/cache/pages/.watch"}},
		{Name: "BUCKET/.ctl", Text: "max SIZE on all machines together, ttl TIME of new entries; none takes them\naway. policy lru, lfu or fifo: which goes first when there is no room. tier\nmemory, disk or both: where values are. replicas N: how many machines have an\nentry, so that it survives the others. clear drops all entries at once", Examples: []string{
			"echo ttl 60s > /dos/cache/pages/.ctl; echo clear > /dos/cache/pages/.ctl; cat /dos/cache/pages/.ctl"}},
		{Name: "BUCKET/.status", Text: "items, bytes of memory, hits, misses, evictions; also by machine", Examples: []string{
			"cat /dos/cache/pages/.status"}},
	},
}
