#!/bin/bash
# DPDK's example l3fwd as a vhost-user back end that routes between DIR/a.sock and DIR/b.sock by longest prefix, with 64
# routes, on core 0, until SIGTERM. L3FWD names the program: it is in Debian's source package of dpdk,
#   apt-get source dpdk; cd dpdk-*/examples/l3fwd; sed -i 's/RTE_ETH_RX_OFFLOAD_CHECKSUM/0/' main.c; make shared
# where the edit takes out what net_vhost does not offer: the program asks for checksums and would not start.
#   L3FWD=…/build/l3fwd l3fwd.sh DIR
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"
[ -x "$L3FWD" ] || { echo "L3FWD names no program" >&2; exit 1; }
reserve_pages 300
dir=$1
# As benches/src/chain.rs has them for a router alone: clients are at port 0, servers at port 1.
{
  echo "R198.18.0.0/16 0"
  echo "R198.19.0.0/16 1"
  for ((i = 0; i < 62; i++)); do echo "R10.$((100 + i)).0.0/$((16 + i % 9)) 1"; done
} > "$dir/routes.4"
printf 'R2001:db8:1::/48 0\nR2001:db8:2::/48 1\n' > "$dir/routes.6"
exec "$L3FWD" --in-memory --single-file-segments --no-pci --no-telemetry --iova-mode=va -m 384 --lcores 0@0 --file-prefix "l3fwd$$" \
  --vdev "net_vhost0,iface=$dir/a.sock,queues=1" --vdev "net_vhost1,iface=$dir/b.sock,queues=1" -- \
  -p 0x3 -P --lookup=lpm --config="(0,0,0),(1,0,0)" --rule_ipv4="$dir/routes.4" --rule_ipv6="$dir/routes.6" --parse-ptype \
  --eth-dest=0,02:00:00:00:01:02 --eth-dest=1,02:00:00:00:02:02
