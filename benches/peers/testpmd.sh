#!/bin/bash
# DPDK's testpmd as a vhost-user back end that forwards between DIR/a.sock and DIR/b.sock (io forward: no function at
# all), until SIGTERM. It runs on core 0.
#   testpmd.sh DIR        testpmd.sh --about
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"
if [ "$1" = --about ]; then
  echo "DPDK: $(version dpdk)"
  echo "testpmd: io forward, burst 64, queues of 1024, core 0"
  exit
fi
need dpdk-testpmd
reserve_pages 200
dir=$1
# testpmd ends when its standard input does, so it gets one that stays.
exec dpdk-testpmd --in-memory --single-file-segments --no-pci --no-telemetry --iova-mode=va -m 256 \
  --lcores 0@0,1@0 --file-prefix "peer$$" \
  --vdev "net_vhost0,iface=$dir/a.sock,queues=1" --vdev "net_vhost1,iface=$dir/b.sock,queues=1" \
  -- --nb-cores=1 --burst=64 --rxd=1024 --txd=1024 --total-num-mbufs=16384 --forward-mode=io --auto-start \
  --stats-period=3600 < <(sleep infinity)
