#!/usr/bin/env bash
# Three machines on one: each is a dosd in a network namespace with an address
# of its own, with the very commands that real machines take, and two mounts
# besides those of the machines, in which their tasks run.
# Needs root, iproute2, util-linux, /dev/fuse and dosd, dosctl, dosmount in PATH.
#
#   deploy/three-machines.sh up          a, b and c, mounted at $DIR/1 and $DIR/2
#   deploy/three-machines.sh status      dosctl status, and what is mounted
#   deploy/three-machines.sh join d      one more machine
#   deploy/three-machines.sh drain d     empty it and take it out again
#   deploy/three-machines.sh kill c      as when its power fails
#   deploy/three-machines.sh start c     as when it comes back
#   deploy/three-machines.sh ctl …       dosctl, as the administrator
#   deploy/three-machines.sh down        all away, with the data
#
# DIR (default /tmp/dos-three) has everything; EC (default 2+1) is the code.
set -euo pipefail

readonly dir=${DIR:-/tmp/dos-three} ec=${EC:-2+1}
readonly net=${NET:-10.77.0} port=7600
readonly ns=${TAG:-dos3}- bridge=${TAG:-dos3}

die() { echo "three-machines: $*" >&2; exit 1; }
say() { echo "== $*"; }

# Runs a command on a machine.
on() {
  local name=$1
  shift
  nsenter --net="/run/netns/$ns$name" -- "$@"
}

number() { printf '%d' "'$1" | awk '{ print $1 - 96 }'; } # a is 1
address() { echo "$net.$(number "$1"):$port"; }
machines() { for d in "$dir"/machine/*/; do basename "$d"; done; }
cluster() { # the addresses of all, with commas
  local list=()
  for m in $(machines); do list+=("$(address "$m")"); done
  (IFS=,; echo "${list[*]}")
}
ctl() { dosctl --cluster "$(cluster)" --identity "$dir/identity" "$@"; }

# A network namespace is the machine, a bridge the switch between them; this
# machine has a plug in it too, for the mounts.
wire() {
  [[ -e /sys/class/net/$bridge ]] || {
    ip link add "$bridge" type bridge
    ip addr add "$net.254/24" dev "$bridge"
    ip link set "$bridge" up
  }
  [[ -e /run/netns/$ns$1 ]] && return
  ip netns add "$ns$1"
  ip link add "$bridge$1" type veth peer name eth0 netns "$ns$1"
  ip -n "$ns$1" addr add "$net.$(number "$1")/24" dev eth0
  ip -n "$ns$1" link set lo up
  ip -n "$ns$1" link set eth0 up
  ip link set "$bridge$1" master "$bridge" up
}

# start NAME [what is said the first time only]
start() {
  local name=$1 home=$dir/machine/$1
  shift
  wire "$name"
  mkdir -p "$home"
  local command=(dosd --data "$home/data" --listen "$(address "$name")" --name "$name" --mount "$home/dos" "$@")
  echo "$name# ${command[*]}"
  setsid nsenter --net="/run/netns/$ns$name" -- "${command[@]}" >"$home/out" 2>>"$home/log" </dev/null &
  echo $! >"$home/pid"
  await "machine $name" serves "$name"
}
serves() {
  running "$1" || { tail -1 "$dir/machine/$1/log" >&2; die "machine $1 did not start"; }
  grep -q serving "$dir/machine/$1/out"
}

# await WHAT COMMAND…: until it succeeds.
await() {
  local what=$1
  shift
  for ((i = 0; i < 600; i++)); do
    "$@" >/dev/null && return
    sleep 0.1
  done
  die "$what: not in a minute; see $dir/machine/*/log"
}

running() { [[ -e $dir/machine/$1/pid ]] && kill -0 "$(cat "$dir/machine/$1/pid")" 2>/dev/null; }
stopped() { ! running "$1"; }
crash() { # all that runs there ends at once, its tasks too
  ip netns pids "$ns$1" | xargs -r kill -KILL
  await "the end of $1" stopped "$1"
}
clear() { # a machine that crashed leaves its mount behind, dead
  ! grep -q " $dir/machine/$1/dos " /proc/mounts || umount -l "$dir/machine/$1/dos"
}

first() { on a dosctl --data "$dir/machine/a/data" "$@"; }
token() { # for a machine, in a file that only root reads: arguments are no secret
  mkdir -p "$dir/machine/$1"
  echo "a# dosctl token create >token"
  (umask 077; first token create >"$dir/machine/$1/token")
}
begun() { first status 2>/dev/null; }
whole() { [[ $(ctl status --long 2>/dev/null | head -1) == "health ok" ]]; }
voters() { ctl status --long 2>/dev/null | grep "^meta .* members $1 alive $1 "; }
listed() { ctl node list 2>/dev/null | grep "^$1 "; }
empty() { ctl node list 2>/dev/null | grep "^$1  *empty "; }

up() {
  [[ -e $dir ]] && die "$dir is there already; first: $0 down"
  mkdir -p "$dir"
  say "the first machine founds the cluster"
  start a --bootstrap --ec "$ec"
  await "the cluster" begun
  say "the others join it, each with a token: dosctl token create"
  token b
  start b --join "@$dir/machine/b/token"
  token c
  start c --join "@$dir/machine/c/token"
  say "an identity for who mounts and administers: dosctl login"
  first token create --client --rights admin | ctl login -
  say "two mounts"
  for n in 1 2; do
    echo "# dosmount -d --cluster $(cluster) --identity $dir/identity $dir/$n"
    dosmount -d --cluster "$(cluster)" --identity "$dir/identity" "$dir/$n"
  done
  await "three copies of the metadata" voters 3
  await "full redundancy" whole
  status
}

status() {
  say "dosctl --cluster $(cluster) --identity $dir/identity status"
  ctl status
  say "mounts"
  grep " $dir/" /proc/mounts | cut -d' ' -f1-3 || true
}

join() {
  token "$1"
  start "$1" --join "@$dir/machine/$1/token"
  await "machine $1 in the list" listed "$1"
  ctl node list
}

drain() {
  ctl node drain "$1"
  await "nothing on machine $1" empty "$1"
  ctl node remove "$1"
  await "the end of $1" stopped "$1"
  rm -rf --one-file-system "${dir:?}/machine/$1"
  ip netns del "$ns$1"
  ctl node list
}

down() {
  local n m
  for n in 1 2; do
    ! mountpoint -q "$dir/$n" || umount "$dir/$n"
  done
  [[ -d $dir/machine ]] && for m in $(machines); do
    ! running "$m" || kill "$(cat "$dir/machine/$m/pid")" # all at once
  done
  [[ -d $dir/machine ]] && for m in $(machines); do
    await "the end of $m" stopped "$m"
    clear "$m"
    ip netns del "$ns$m"
  done
  [[ ! -e /sys/class/net/$bridge ]] || ip link del "$bridge"
  rm -rf --one-file-system "$dir"
}

for tool in dosd dosctl dosmount ip nsenter; do
  command -v "$tool" >/dev/null || die "$tool is not in PATH"
done
[[ $(id -u) == 0 ]] || die "only root can do this"
case "${1:-} $#" in
"up 1" | "status 1" | "down 1") "$1" ;;
"join 2" | "drain 2") "$1" "$2" ;;
"kill 2") crash "$2" ;;
"start 2") start "$2" ;;
"ctl "*) shift; ctl "$@" ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac
