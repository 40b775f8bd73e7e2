#!/bin/bash
# Two ports of any vhost-user back end driven by DPDK's virtio-user on core 1: testpmd sends what one port brings to the
# other, and puts 512 packets of 64 bytes into each direction at first. Prints `mpps=… gbps=… lost=0% empty=…`; frames that
# are lost do not come back, so that none are. The back end listens.
#   virtio-user.sh SOCKET_A SOCKET_B SECONDS
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"
need dpdk-testpmd
dir=$(mktemp -d)
mkfifo "$dir/input"; exec 7<>"$dir/input"
dpdk-testpmd --in-memory --single-file-segments --no-pci --no-telemetry --iova-mode=va -m 256 --lcores 0@1,1@1 --file-prefix "guest$$" \
  --vdev "net_virtio_user0,path=$1,queues=1,queue_size=1024" --vdev "net_virtio_user1,path=$2,queues=1,queue_size=1024" \
  -- -i --nb-cores=1 --rxd=1024 --txd=1024 --total-num-mbufs=16384 --forward-mode=io --record-burst-stats --no-lsc-interrupt <&7 > "$dir/log" 2>&1 7<&- &
guest=$!
trap 'kill $guest 2> /dev/null; wait $guest 2> /dev/null; rm -rf "$dir"' EXIT
echo -20 > /proc/$guest/autogroup 2> /dev/null
say() { echo "$*" >&7; }
for ((i = 0; i < 150; i++)); do grep -q 'testpmd>' "$dir/log" && break; sleep 0.1; done
say "start tx_first 16"
sleep 1.5
say "clear fwd stats all"; say "show port stats all"
sleep "$3"
say "show port stats all"; sleep 0.2
say stop; sleep 0.3; say quit
for ((i = 0; i < 50; i++)); do [ -d /proc/$guest ] || break; sleep 0.1; done
awk '
  /NIC statistics for port/ { port = $0; sub(/.*port /, "", port); sub(/ .*/, "", port) }
  /Rx-pps:/ { rate[port] = $2; seen[port]++ }
  /RX-bursts/ && match($0, /[0-9]+% of 0 pkts/) { empty += substr($0, RSTART, RLENGTH) / 2 }
  END {
    if (seen[0] < 2 || seen[1] < 2) { print "no statistics"; exit 1 }
    pps = rate[0] + rate[1]
    printf "mpps=%.3f gbps=%.2f lost=0%% empty=%d%%\n", pps / 1e6, pps * 64 * 8 / 1e9, empty
  }' "$dir/log"
