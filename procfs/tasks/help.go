package tasks

import "dos/procfs"

var manual = procfs.Help{
	About: "/dos/tasks: programs that run on the machines of the cluster.",
	Topics: []procfs.Topic{
		{Name: "new", Text: "one open is one task: what is written is its script. It is submitted when it is read, which\ngives its id, or closed. Text that begins with { is JSON with the same options,\nand #DOS lines of the script in it mean nothing", Examples: []string{
			"echo 'echo hello' >/dos/tasks/new",
			"exec 3<>/dos/tasks/new; echo 'echo from $(hostname)' >&3; read -r id <&3; exec 3>&-\ncat /dos/tasks/$id/wait; cat /dos/tasks/$id/stdout",
			"exec 3<>/dos/tasks/new; printf '#DOS array=0-2 name=count\\necho $DOS_ARRAY_INDEX\\n' >&3; read -r id <&3; exec 3>&-\ncat /dos/tasks/$id/wait; cat /dos/tasks/${id}_2/stdout",
		}},
		{Name: "#DOS", Text: "a line of a script that says how it is to run: cpu=2 mem=1g gpu=0 res=NAME:N label=ssd node=N\nprio=10 after=ok:12,any:13 array=0-99%10 at=TIME every=1h timeout=1h retries=3 hold name=N\nqueue=P cwd=DIR stdin=FILE env=A=1 near=FILE. A task runs as who submitted it, in the directory\nin which it was submitted, if that is in the tree, else in the tree's root", Examples: []string{
			"printf '#DOS cpu=0.5 mem=100m timeout=10s name=nap\\nsleep 0.1\\n' >/dos/tasks/new",
		}},
		{Name: "batch", Text: "one line is one task; many lines at once are one commit", Examples: []string{"seq 1 3 | sed 's/^/echo /' >/dos/tasks/batch"}},
		{Name: "status", Text: "how many tasks there are by state, what machines have and is used, and a line a task that\nhas not ended, with the reason why it waits", Examples: []string{"grep -E '^(running|pending)' /dos/tasks/status"}},
		{Name: "ID/", Text: "is the submitter's alone; rmdir forgets one that has ended. Element 3 of array 12 is 12_3", Examples: []string{"id=$(ls /dos/tasks/by-name/nap | tail -1); cat /dos/tasks/$id/wait@30s; rmdir /dos/tasks/$id"}},
		{Name: "ID/status", Text: "all that is known of it; state, reason, exit, node, usage, attempts and spec say one thing each.\nstate is held, pending, running, done, failed, cancelled or lost; exit is as a shell has it", Examples: []string{
			"exec 3<>/dos/tasks/new; echo 'exit 3' >&3; read -r id <&3; exec 3>&-\ncat /dos/tasks/$id/wait /dos/tasks/$id/state; grep started /dos/tasks/$id/status",
		}},
		{Name: "ID/stdout", Text: "what it has written so far, and stderr: tail -f works on every machine"},
		{Name: "ID/stdin", Text: "with stdin=- it reads what is written there; closing it is the end. Else it reads nothing", Examples: []string{"exec 3<>/dos/tasks/new; printf '#DOS stdin=-\\ntr a-z A-Z\\n' >&3; read -r id <&3; exec 3>&-\necho hello >/dos/tasks/$id/stdin; cat /dos/tasks/$id/wait; cat /dos/tasks/$id/stdout"}},
		{Name: "ID/wait", Text: "opening it waits until the task has ended; its content is the exit status. wait@5s waits 5 s"},
		{Name: "ID/ctl", Text: "cancel [KILL], hold, release, prio N, requeue, signal NAME, freeze, thaw", Examples: []string{"exec 3<>/dos/tasks/new; echo 'sleep 1000' >&3; read -r id <&3; exec 3>&-\necho cancel >/dos/tasks/$id/ctl; cat /dos/tasks/$id/wait"}},
		{Name: "ID/events", Text: "what became of it, as it happens; tasks/events tells of all", Examples: []string{"timeout 60 cat /dos/tasks/events"}},
		{Name: "by-state/", Text: "by-node/, by-name/ and by-user/ have links to the tasks", Examples: []string{"ls /dos/tasks/by-state/* /dos/tasks/by-user"}},
		{Name: "queues/P/", Text: "partitions; mkdir makes one. ctl takes weight N, max OPTIONS (tasks=10 cpu=8 mem=4g), user OPTIONS\n(what each user may have at once), timeout TIME, default TIME, preempt off|requeue|cancel,\nlabel L, share UID N, pause, resume; none takes a bound away", Examples: []string{"mkdir /dos/tasks/queues/night; echo 'max tasks=2 cpu=1' >/dos/tasks/queues/night/ctl\ncat /dos/tasks/queues/night/ctl /dos/tasks/queues/night/status; rmdir /dos/tasks/queues/night"}},
	},
}
