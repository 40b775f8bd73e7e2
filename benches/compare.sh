#!/usr/bin/env bash
# Measures chainplane beside others: the same guests, one contestant after the other in every round, and the order turned
# round in every other one. Needs root, two cores with nothing else to do, what benches/peers/install.sh installs, and
# free 2 MiB pages (it asks for them). Back end on core 0, guests on core 1.
#
#   benches/compare.sh [--rounds N] [--seconds N] [--results FILE] [--table] [CASE …]
#
# Each trial is a line in FILE (default: compare.txt). Trials that are there already are not run again, so an interrupted
# run goes on. At the end, or with --table at once, it prints a table of all that is in FILE. What a case is, and what the
# driver does, stands in benches/src/case.rs; contestants are below. L3FWD names the program of DPDK's example.
set -eu
# Per case: chainplane first, then what it is held against. `ours:CASE` is chainplane in another case.
declare -A contestants=(
  [64]='ours testpmd' [64-rewrite]='ours testpmd' [64-no-merge]='ours testpmd' [64-ring-256]='ours testpmd'
  [64-packed]='ours testpmd' [64-packed-rewrite]='ours testpmd' [1518]='ours testpmd' [1518-rewrite]='ours testpmd'
  [large]='ours testpmd' [large-rewrite]='ours testpmd' [64-idle-ports]='ours ours:64' [64-virtio-user]='ours testpmd'
  [64-four-functions]='ours testpmd ovs-chain ours:64' [64-four-functions-10k]='ours testpmd'
  [64-packed-four-functions]='ours testpmd'
  [64-four-functions-1m]='ours ours:64-four-functions-spread ours:64-spread' [64-eight-functions]='ours ours:64-one-function'
  [1518-four-functions]='ours ours:1518 testpmd' [large-four-functions]='ours ours:large testpmd'
  [1518-rewrite-four-functions]='ours ours:1518-rewrite testpmd' [large-rewrite-four-functions]='ours ours:large-rewrite testpmd'
  [64-router]='ours l3fwd'
)
cases=(64-four-functions 64-four-functions-10k 64-four-functions-1m 64-eight-functions 1518-four-functions large-four-functions)
rounds=10 seconds=2 results=compare.txt table='' chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --results) results=$2; shift 2 ;;
    --table) table=1; shift ;;
    -*) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) chosen+=("$1"); shift ;;
  esac
done
[ ${#chosen[@]} -eq 0 ] || cases=("${chosen[@]}")
for case in "${cases[@]}"; do [ -n "${contestants[$case]:-}" ] || { echo "no such case: $case; there are: ${!contestants[*]}" >&2; exit 2; }; done
results=$(realpath "$results")
cd "$(dirname "$0")/.."
ghz=$(awk '/cpu MHz/{print $4 / 1000; exit}' /proc/cpuinfo)
target=${CARGO_TARGET_DIR:-target}/release

start() { # LOG COMMAND…: as the back end; what is read from descriptor 9 never ends, which testpmd needs
  setsid "${@:2}" <&9 > "$1" 2>&1 9<&- & echo $! > "$work/pid"
  echo -20 > "/proc/$!/autogroup" 2>/dev/null || true
}
stop() { # also what a trial left that was cut off
  local pid
  if pid=$(cat "$work/pid" 2>/dev/null); then
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    for _ in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.05; done
  fi
  rm -f "$work"/*.sock "$work/pid"
}
until_there() { for _ in $(seq 400); do [ -e "$1" ] && return; sleep 0.05; done; echo "no $1" >&2; return 1; }

# A back end starts by `start_NAME CASE` in $work; `busy_NAME` prints the cycles that it was busy and the packets it took.
start_ours() {
  "$target/chain" "${1%-virtio-user}" "$work" "{ cores: [0], idle: busy }" > "$work/ours.yaml"
  start "$work/log" "$target/chainplane" run "$work/ours.yaml"
  until_there "$work/a.sock" && until_there "$work/b.sock"
}
busy_ours() { "$target/chainplane" show --json --socket "$work/control.sock" | awk -v ghz="$ghz" -F'[:,]' '/"busy-ns"/{ns+=$2} /"rx-packets"/{n+=$2} END{printf "%.0f %.0f", ns * ghz, n}'; }
start_testpmd() {
  local vhost=queues=1,tso=1,legacy-ol-flags=1
  start "$work/log" dpdk-testpmd -m 512 --in-memory --single-file-segments --no-pci --no-telemetry --file-prefix against -l 1,0 --main-lcore 1 \
    --vdev "net_vhost0,iface=$work/a.sock,$vhost" --vdev "net_vhost1,iface=$work/b.sock,$vhost" \
    -- --forward-mode=io --auto-start --total-num-mbufs=65536 --nb-cores=1 --burst=64 --record-core-cycles
  until_there "$work/a.sock" && until_there "$work/b.sock"
}
start_ovs-chain() { rm -rf "$work/ovs"; mkdir "$work/ovs"; start "$work/log" benches/peers/ovs.sh chain "$work/ovs"; until_there "$work/ovs/ready"; }
start_l3fwd() { start "$work/log" benches/peers/l3fwd.sh "$work"; until_there "$work/a.sock" && until_there "$work/b.sock"; }

# Mpps, Gbit/s, share of frames lost, share of the driver's turns without anything received, and busy cycles a packet.
trial() { # CONTESTANT CASE
  local name=${1%%:*} case=$2 sockets=("$work/a.sock" "$work/b.sock") line='' word opened='' cycles=0 n
  [ "$name" = "$1" ] || case=${1#*:}
  [ "$case" != 64-idle-ports ] || for n in $(seq 0 63); do sockets+=("$work/idle$n.sock"); done
  [ "$name" != ovs-chain ] || sockets=("$work/ovs/a.sock" "$work/ovs/b.sock" --server)
  "start_$name" "$case"
  if [ "$case" = 64-virtio-user ]; then
    line=$(benches/peers/virtio-user.sh "$work/a.sock" "$work/b.sock" "$seconds")
  else
    while read -r word; do
      line=$word
      [ "$word" != open ] || [ "$name" != ours ] || opened=$(busy_ours)
    done < <("$target/stub" --case "$case" "${sockets[@]}" --core 1 --seconds "$seconds" 2>&1)
  fi
  [ "$name" != ours ] || cycles=$(echo "${opened:-0 0} $(busy_ours)" | awk '{printf "%.0f", ($4 > $2) ? ($3 - $1) / ($4 - $2) : 0}')
  stop
  [ "$name" != testpmd ] || cycles=$(sed -nE 's/.*CPU cycles\/packet=([0-9]+).*/\1/p' "$work/log" | tail -1)
  [[ $line == mpps=* ]] || { echo "$1 in $2: $line" >&2; tail -n 3 "$work/log" >&2; line='mpps=0 gbps=0 lost=0% empty=0%'; }
  echo "$(sed -E 's/mpps=([0-9.]+) gbps=([0-9.]+).*lost=([0-9.]+)% empty=([0-9]+)%.*/\1 \2 \3 \4/' <<< "$line") ${cycles:-0}"
}

if [ -z "$table" ]; then
  [ -n "${BUILT:-}" ] || cargo build --quiet --release -p chainplane -p chainplane-benches --bins
  work=$(mktemp -d)
  mkfifo "$work/input"; exec 9<>"$work/input"
  trap 'stop; rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM
  [ "$(cat /proc/sys/vm/nr_hugepages)" -ge 1024 ] || echo 1024 > /proc/sys/vm/nr_hugepages
  for round in $(seq "$rounds"); do
    for case in "${cases[@]}"; do
      order=(${contestants[$case]})
      [ $((round % 2)) -eq 1 ] || order=($(printf '%s\n' "${order[@]}" | tac))
      for contestant in "${order[@]}"; do
        if [ "$contestant" = l3fwd ] && [ -z "${L3FWD:-}" ]; then echo "l3fwd is left out: L3FWD does not name it" >&2; continue; fi
        grep -q "^$case $round $contestant " "$results" 2>/dev/null && continue
        before=$("$target/distance" 0 1)
        seen=$(trial "$contestant" "$case")
        after=$("$target/distance" 0 1)
        echo "$case $round $contestant $seen ${before#ns=} ${after#ns=}" | tee -a "$results"
      done
    done
  done
fi

echo
echo "DPDK $(dpkg-query -W -f='${Version}' dpdk 2>/dev/null); $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), ${ghz} GHz, $(date -u +%F)"
awk -f benches/compare.awk "$results"
