#!/usr/bin/env bash
# Forwards 64- and 1500-byte frames from vhost-user to vhost-user by chainplane and by DPDK testpmd's vhost, in turn, with
# the same driver stub on the other core, and prints each round's Mpps and the ratio of each pair.
#
#   benches/against-testpmd.sh [ROUNDS] [SECONDS]       needs root, dpdk-dev and free 2 MiB pages (it asks for 512)
set -eu
rounds=${1:-10} seconds=${2:-3}
cd "$(dirname "$0")/.."
cargo build --quiet --release -p chainplane -p chainplane-benches
target=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
back=
stop() { if [ -n "$back" ]; then kill "$back" 2>/dev/null || true; wait "$back" 2>/dev/null || true; back=; fi; }
trap 'stop; rm -rf "$work"' EXIT
[ "$(cat /proc/sys/vm/nr_hugepages)" -ge 512 ] || echo 1024 > /proc/sys/vm/nr_hugepages

cat > "$work/0.yaml" <<YAML
version: 1
workers: [{ cores: [0], idle: busy }]
control: { socket: $work/control.sock }
ports:
  a: { vhost-user: { socket: $work/a.sock } }
  b: { vhost-user: { socket: $work/b.sock } }
chains: { direct: [a, b] }
YAML
sed '/^chains/d' "$work/0.yaml" > "$work/4.yaml"
cat >> "$work/4.yaml" <<YAML
functions:
  edge:
    firewall:
      default: { outbound: allow, inbound: drop }
      rules: [{ allow: tcp, direction: inbound, to: 203.0.113.10, ports: [80, 443] }]
  frontend: { load-balancer: { address: "203.0.113.10:80/tcp", backends: [{ address: 10.0.1.2 }] } }
  egress: { nat: { pool: 203.0.113.2, inside: [10.0.0.0/8] } }
  core:
    router:
      interfaces:
        in: { address: 10.0.1.1/24, mac: "02:00:00:00:01:01", neighbours: { 10.0.1.2: "02:00:00:00:01:02" } }
        out: { address: 198.51.100.1/24, mac: "02:00:00:00:02:01", neighbours: { 198.51.100.2: "02:00:00:00:02:02" } }
chains:
  in: [a, core.in]
  out: [core.out, frontend, egress, edge, b]
YAML

until_there() { for _ in $(seq 100); do [ -S "$work/a.sock" ] && [ -S "$work/b.sock" ] && return; sleep 0.1; done; echo "no sockets" >&2; exit 1; }
drive() { "$target/stub" "$work/a.sock" "$work/b.sock" --core 1 --seconds "$seconds" "$@"; }
ours() { # FUNCTIONS, then the stub's options
  "$target/chainplane" run "$work/$1.yaml" >/dev/null 2>&1 & back=$!
  until_there; drive --functions "$@"; stop
}
testpmd() {
  dpdk-testpmd -m 512 --in-memory --single-file-segments --no-pci --no-telemetry --file-prefix against -l 1,0 --main-lcore 1 \
    --vdev "net_vhost0,iface=$work/a.sock,queues=1" --vdev "net_vhost1,iface=$work/b.sock,queues=1" \
    -- --forward-mode=io --auto-start --total-num-mbufs=16384 --nb-cores=1 --burst=64 < <(sleep 1000) >"$work/testpmd.log" 2>&1 & back=$!
  until_there; drive "$@"; stop; rm -f "$work"/[ab].sock
}
mpps() { sed 's/mpps=\([0-9.]*\).*empty=\(.*\)/\1 \2/'; }

printf '%-6s %-12s %18s %18s %18s %8s %8s\n' size driver 'testpmd (empty)' '0 functions' '4 functions' ratio-0 ratio-4
for case in '64 ' '64 --no-merge' '64 --rewrite' '1500 ' '1500 --rewrite'; do
  set -- $case
  for _ in $(seq "$rounds"); do
    read -r peer peer_empty < <(testpmd --size "$@" | mpps)
    read -r zero zero_empty < <(ours 0 --size "$@" | mpps)
    read -r four four_empty < <(ours 4 --size "$@" | mpps)
    printf '%-6s %-12s %10s (%5s) %10s (%5s) %10s (%5s) %8s %8s\n' "$1" "${2:-indices}" "$peer" "$peer_empty" "$zero" "$zero_empty" "$four" "$four_empty" \
      "$(awk "BEGIN{printf \"%.2f\", $zero/$peer}")" "$(awk "BEGIN{printf \"%.2f\", $four/$peer}")"
  done
done
