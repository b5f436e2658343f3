package rpc

import "dos/procfs"

var help = procfs.Help{
	About: "/dos/rpc: calls between processes, on whatever machines they are.",
	Topics: []procfs.Topic{
		{Name: "SVC/", Text: "mkdir makes a service, rmdir removes one that nobody serves. Who may search the directory\nmay call, who may write to it may serve", Examples: []string{"mkdir /dos/rpc/upper"}},
		{Name: "SVC/serve", Text: "opening waits for a call; read the request, write the reply, close. The request of a shell\nis a line. Closing without a reply, or being killed, is EPROTO for who called; if who\ncalled gave up, reading and writing are ECANCELED", Examples: []string{"(exec 3<>/dos/rpc/upper/serve; read -r request <&3; echo \"${request^^}\" >&3) &\nuntil ls /dos/rpc/upper/instances | grep -q .; do :; done  # it is there\nexec 3<>/dos/rpc/upper/call; echo hello >&3; cat <&3; exec 3>&-"}},
		{Name: "SVC/serve@5s", Text: "the same, for 5 seconds at most; serve@0 does not wait"},
		{Name: "SVC/call", Text: "write a request, a line or `len N` and N bytes, and read the reply to its end; then the\nnext one may be written. ECONNREFUSED if nobody serves, ETIMEDOUT if nothing comes for the\ntimeout, EPROTO if there is no reply, EHOSTDOWN if the machine that serves was lost"},
		{Name: "SVC/register", Text: "as long as it is open, calls go to a server at tcp://HOST:PORT or http://HOST:PORT/PATH, as\nthis machine reaches it: a line is a service's instance, with workers=N calls at a time, 16.\nBy http a call is a POST. By tcp a request that is a line is sent as one, else as `len N` and\nN bytes; the reply is a line too, or `len N` and N bytes; calls follow each other", Examples: []string{"exec 4>/dos/rpc/upper/register; echo http://127.0.0.1:8000/upper >&4; sleep 0.1; exec 4>&-"}},
		{Name: "by HTTP", Text: "POST /rpc/SVC at every machine's port, with the identity that mounts (curl --cert FILE --key FILE\n-k --http1.1 https://HOST:PORT/rpc/SVC -d REQUEST), or of a mount that is its own cluster at DIR/sock\n(curl --unix-socket DIR/sock http://dos/rpc/SVC -d REQUEST); ?user=UID calls as that user"},
		{Name: "SVC/instances/", Text: "who serves: a file each", Examples: []string{"ls /dos/rpc/upper/instances"}},
		{Name: "SVC/status", Text: "instances, calls that wait or are under way (load), calls that were begun since it is there", Examples: []string{"cat /dos/rpc/upper/status"}},
		{Name: "SVC/ctl", Text: "balance least-busy|round-robin|random; timeout TIME, of each wait of a call: to be taken, for\nthe reply to begin, for it to go on; retries N, of a call that was certainly not begun", Examples: []string{"echo 'timeout 5s' >/dos/rpc/upper/ctl; cat /dos/rpc/upper/ctl"}},
	},
}
