#!/usr/bin/env bash
# Forwards frames from vhost-user to vhost-user by chainplane and by DPDK testpmd's vhost (io forward, no function), in
# turn, with the same driver stub on the other core. Needs root, dpdk-dev and free 2 MiB pages (it asks for them).
#
#   benches/against-testpmd.sh [--rounds N] [--seconds N] [--results FILE] [CASE …]
#
# Each round of a case is a line in FILE (default: against-testpmd.txt), with the time that a cache line takes between the
# two cores before and after it. Rounds that are there already are not run again, so an interrupted run goes on; a round
# runs every case once. At the end it prints a table of all that is in FILE. Ten rounds of everything take 20 minutes.
set -eu
rounds=10 seconds=2 results=against-testpmd.txt chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --results) results=$2; shift 2 ;;
    -*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) chosen+=("$1"); shift ;;
  esac
done
# What each case is stands in benches/src/case.rs. `rewrite` writes and reads every buffer; without it the driver only moves indices.
cases=(64 64-rewrite 64-no-merge 64-ring-256 64-packed 64-packed-rewrite 1518 1518-rewrite large large-rewrite 64-four-functions 64-four-functions-10k 64-eight-functions
  1518-four-functions large-four-functions 64-idle-ports)
[ ${#chosen[@]} -eq 0 ] || cases=("${chosen[@]}")
results=$(realpath "$results")
cd "$(dirname "$0")/.."
cargo build --quiet --release -p chainplane -p chainplane-benches
target=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
back=''
# testpmd ends when its input does.
mkfifo "$work/input"; exec 9<>"$work/input"
stop() { if [ -n "$back" ]; then kill -INT "$back" 2>/dev/null || true; wait "$back" 2>/dev/null || true; back=; fi; }
trap 'stop; rm -rf "$work"' EXIT
[ "$(cat /proc/sys/vm/nr_hugepages)" -ge 768 ] || echo 1024 > /proc/sys/vm/nr_hugepages

until_there() { for _ in $(seq 200); do [ -S "$work/a.sock" ] && [ -S "$work/b.sock" ] && return; sleep 0.05; done; echo "no sockets" >&2; exit 1; }
drive() { "$target/stub" "$work/a.sock" "$work/b.sock" "${@:2}" --case "$1" --core 1 --seconds "$seconds" | sed -E 's/mpps=([0-9.]+) gbps=([0-9.]+).*empty=([0-9]+)%.*/\1 \2 \3/'; }
# Mpps, Gbit/s, share of the driver's turns without anything received, cycles a packet while the back end was busy.
ours() { # CASE, then idle sockets
  "$target/chain" "$1" "$work" "{ cores: [0], idle: busy }" > "$work/$1.yaml"
  "$target/chainplane" run "$work/$1.yaml" >/dev/null 2>&1 & back=$!
  until_there
  local moved; moved=$(drive "$@")
  local json; json=$("$target/chainplane" show --json --socket "$work/control.sock")
  echo "$moved $(awk -v ghz="$ghz" -F'[:,]' '/"busy-ns"/{ns+=$2} /"rx-packets"/{n+=$2} END{printf "%.0f", n ? ns * ghz / n : 0}' <<< "$json")"
  stop
}
testpmd() {
  rm -f "$work"/[ab].sock
  dpdk-testpmd -m 512 --in-memory --single-file-segments --no-pci --no-telemetry --file-prefix against -l 1,0 --main-lcore 1 \
    --vdev "net_vhost0,iface=$work/a.sock,queues=1,tso=1,legacy-ol-flags=1" --vdev "net_vhost1,iface=$work/b.sock,queues=1,tso=1,legacy-ol-flags=1" \
    -- --forward-mode=io --auto-start --total-num-mbufs=65536 --nb-cores=1 --burst=64 --record-core-cycles <&9 >"$work/testpmd.log" 2>&1 9<&- & back=$!
  until_there
  local moved; moved=$(drive "$@")
  stop; rm -f "$work"/[ab].sock
  echo "$moved $(sed -nE 's/.*CPU cycles\/packet=([0-9]+).*/\1/p' "$work/testpmd.log" | tail -1 | grep . || echo 0)"
}
distance() { "$target/distance" 0 1 | sed 's/ns=//'; }
ghz=$(awk '/cpu MHz/{print $4 / 1000; exit}' /proc/cpuinfo)

for round in $(seq "$rounds"); do
  for case in "${cases[@]}"; do
    grep -q "^$case $round " "$results" 2>/dev/null && continue
    before=$(distance) idlers=()
    [ "$case" != 64-idle-ports ] || for n in $(seq 0 63); do idlers+=("$work/idle$n.sock"); done
    # For idle ports the measure is ourselves without them; in every other round the order is turned round.
    peer() { if [ "$case" = 64-idle-ports ]; then ours 64; else testpmd "$case"; fi; }
    if [ $((round % 2)) -eq 1 ]; then
      peer=$(peer); own=$(ours "$case" "${idlers[@]}")
    else
      own=$(ours "$case" "${idlers[@]}"); peer=$(peer)
    fi
    echo "$case $round $peer $own $before $(distance)" | tee -a "$results"
  done
done

echo
echo "testpmd: DPDK $(dpkg-query -W -f='${Version}' dpdk); $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), ${ghz} GHz, $(date -u +%F)"
echo
echo "| case | unit | peer: median (lowest–highest) | chainplane | ratio of pairs: median (lowest, highest) | busy cycles a packet: peer, chainplane | driver's empty turns: peer, chainplane | rounds | line between cores, ns |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
awk '
function sorted(list, n, i, j, t) { for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j-1] > list[j]; j--) { t = list[j]; list[j] = list[j-1]; list[j-1] = t } }
function pick(column, which, i, list) { delete list; for (i = 1; i <= n; i++) list[i] = value[column, i] + 0; sorted(list, n); return which == "low" ? list[1] : which == "high" ? list[n] : n % 2 ? list[(n+1)/2] : (list[n/2] + list[n/2+1]) / 2 }
function flush_case(big, u, p, o) {
  if (!n) return
  big = name ~ /^large/; u = big ? "Gbit/s" : "Mpps"; p = big ? 4 : 3; o = big ? 8 : 7
  for (i = 1; i <= n; i++) value["r", i] = value[p, i] ? value[o, i] / value[p, i] : 0
  printf "| %s | %s | %.1f (%.1f–%.1f) | %.1f (%.1f–%.1f) | **%.2f** (%.2f, %.2f) | %.0f, %.0f | %.0f %%, %.0f %% | %d | %d–%d |\n", name, u, pick(p, "mid"), pick(p, "low"), pick(p, "high"), pick(o, "mid"), pick(o, "low"), pick(o, "high"), pick("r", "mid"), pick("r", "low"), pick("r", "high"), pick(6, "mid"), pick(10, "mid"), pick(5, "mid"), pick(9, "mid"), n, pick(11, "low"), pick(12, "high")
  n = 0
}
$1 != name { flush_case(); name = $1 }
{ n++; for (c = 3; c <= NF; c++) value[c, n] = $c }
END { flush_case() }' < <(sort -s -k1,1 -V "$results")
echo
echo "The peer of 64-idle-ports is chainplane without them. A case with -rewrite: the driver writes and reads every buffer; else it only moves indices."
