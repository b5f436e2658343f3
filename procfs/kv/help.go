package kv

import "dos/procfs"

var help = procfs.Help{
	About: "/dos/kv: small values in tables, the same on all machines at once, synced.",
	Topics: []procfs.Topic{
		{Name: "TABLE/", Text: "mkdir makes a table, rmdir removes an empty one; owner and mode count", Examples: []string{
			"mkdir /dos/kv/users; chmod 770 /dos/kv/users"}},
		{Name: "TABLE/KEY", Text: "a value, up to 1 MiB, stored whole when it is closed. A writer that a\nsignal kills stores nothing. Shells do not see an error of close: up to\n64 KiB it was checked before; for more use cp, or dosctl kv put", Examples: []string{
			"echo 5 > /dos/kv/users/ann; cat /dos/kv/users/ann",
			"echo more >> /dos/kv/users/ann",
			"(set -C; echo me > /dos/kv/users/first)    # only if it does not exist",
			"mv /dos/kv/users/first /dos/kv/users/one; rm /dos/kv/users/one",
			"setfattr -n user.dos.ttl -v 5m /dos/kv/users/ann   # then it goes; touch renews",
			"V=$(getfattr --absolute-names --only-values -n user.dos.version /dos/kv/users/ann)\nexec 3> /dos/kv/users/ann; setfattr -n user.dos.version -v $V /dos/kv/users/ann\necho 6 >&3 || echo somebody was faster; exec 3>&-"}},
		{Name: "TABLE/.ctl", Text: "ttl of new values, quota in bytes; none takes it away", Examples: []string{
			"echo quota 10m > /dos/kv/users/.ctl; cat /dos/kv/users/.ctl"}},
		{Name: "TABLE/.status", Text: "keys, bytes, the revision of the last change", Examples: []string{
			"cat /dos/kv/users/.status"}},
		{Name: "TABLE/.scan", Text: "not listed; all, or pairs of from KEY, to KEY, prefix P, limit N:\nlines of key, version and value with tabs between, in order", Examples: []string{
			"exec 3<>/dos/kv/users/.scan; echo prefix a limit 10 >&3; cat <&3; exec 3>&-"}},
		{Name: "TABLE/.watch", Text: "not listed; waits for changes: revision, put, del or expired, key. With\n`after N` written first, from there; ESTALE if that is too long ago", Examples: []string{
			"timeout 60 cat /dos/kv/users/.watch"}},
		{Name: "TABLE/.txn", Text: "not listed; steps, then commit: all or nothing, also if a step is refused;\nabort forgets them. if KEY version N, if KEY absent, if KEY present,\nput KEY VALUE, del KEY; /TABLE/KEY is of another.\nfence LOCK:TOKEN: it is still held. push QUEUE TEXT, or send QUEUE and what\nits file send takes; EAGAIN if it is full. ack QUEUE[/groups/G] [NUMBER]: the\nmessage that you have by a lease or pop; with the number that inflight shows,\none of another process of yours", Examples: []string{
			"exec 3<>/dos/kv/users/.txn\nprintf 'if ann present\\nput bob 7\\ndel ann\\ncommit\\n' >&3 && cat <&3; exec 3>&-",
			"mkdir /dos/queues/todo /dos/queues/done; echo build >/dos/queues/todo/push\nexec 3<>/dos/queues/todo/lease; read -r job <&3; exec 4<>/dos/kv/users/.txn\nprintf 'ack todo\\nput last %s\\npush done %s\\ncommit\\n' $job $job >&4; exec 3>&- 4>&-"}},
	},
}
