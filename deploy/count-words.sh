#!/usr/bin/env bash
# Counts the words of the files in /dos/texts, on all machines. Any one of them may die meanwhile.
set -euo pipefail; cd "${1:-/dos}" # a task runs where it was submitted, on whichever machine
mkdir cache/words queues/words kv/words; echo 0 >kv/words/total
counts() { # FILE: how often it has each word, from the cache; what is not there, or not any more, is counted
	exec 5<>"cache/words/.fill/${1##*/}"; local all; all=$(cat <&5)
	[[ $all ]] || { all=$(tr -s '[:space:]' '\n' <"$1" | sort | uniq -c); echo "$all" >&5; }
	exec 5>&-; echo "$all"
}
submit() { # OPTIONS: its input is the script of a task, whose number is id
	exec 3<>tasks/new; printf '#!/bin/bash\n#DOS retries=3 %s\n' "$*" >&3
	echo 'set -euo pipefail; shopt -s inherit_errexit' >&3; declare -f counts >&3; cat >&3
	read -r id <&3; exec 3>&-
}
submit name=count array=0-$(($(ls texts | wc -l) - 1)) cpu=0.2 <<'TASK'
texts=(texts/*); words=$(counts "${texts[DOS_ARRAY_INDEX]}" | awk '{ n += $1 } END { print n }')
echo "dedup=$DOS_TASK_ID $words" >queues/words/send # one message, also if a machine dies and this runs again
TASK
submit name=sum array=0-2 after=ok:"$id" <<'TASK'
exec 9<locks/.hold/words; read -r token <&9 # one of the three adds; if its machine dies, the next one goes on
until grep -qx 'depth 0' queues/words/status; do
	exec 3<>queues/words/lease 4<>kv/words/.txn; read -r words <&3; read -r total <kv/words/total
	# All or nothing, and only while the lock is held: so a message that comes twice is counted once.
	printf 'fence words:%s\nack words\nput total %d\ncommit\n' "$token" $((total + words)) >&4; exec 3>&- 4>&-
done
TASK
submit name=table after=ok:"$id" <<'TASK'
for text in texts/*; do counts "$text"; done | awk '{ n[$2] += $1 } END { for (w in n) print n[w], w }' | sort -nr >words.txt
TASK
read -r status <"tasks/$id/wait"; cat kv/words/total; head -3 words.txt; exit "$status"
