#!/bin/bash
# OVS-DPDK as a vhost-user back end, with two ports that connect to DIR/a.sock and DIR/b.sock, until SIGTERM. Its
# forwarding thread runs on core 0. PIPELINE:
#   fwd     port to port
#   l3      longest prefix among 64 routes, TTL, new MAC addresses
#   chain   64 ACL rules, connection tracking, source NAT, routing
#   ovs.sh PIPELINE DIR        ovs.sh --about
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"
if [ "$1" = --about ]; then
  echo "Open vSwitch: $(version openvswitch-switch-dpdk)"
  echo "DPDK: $(version dpdk)"
  echo "ovs: userspace datapath, one forwarding thread on core 0, megaflows and EMC as by default"
  exit
fi
PATH=$PATH:/usr/lib/openvswitch-switch-dpdk:/usr/lib/openvswitch-common:/usr/share/openvswitch/scripts
pipeline=$1 dir=$2
vswitchd=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
need ovsdb-server ovsdb-tool ovs-vsctl ovs-ofctl
[ -x "$vswitchd" ] || need ovs-vswitchd-dpdk
reserve_pages 400

export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir OVS_SYSCONFDIR=$dir
db=unix:$dir/db.sock
ovsdb-tool create "$dir/conf.db" /usr/share/openvswitch/vswitch.ovsschema || exit 1
ovsdb-server "$dir/conf.db" --remote="punix:$dir/db.sock" --unixctl="$dir/db.ctl" &
server=$!
trap 'kill $switch $server 2> /dev/null; wait; exit 0' TERM INT
for ((i = 0; i < 50; i++)); do [ -S "$dir/db.sock" ] && break; sleep 0.1; done
vsctl() { timeout 30 ovs-vsctl --db="$db" "$@"; }
vsctl --no-wait init
vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:dpdk-socket-mem=512 \
  other_config:dpdk-lcore-mask=0x2 other_config:pmd-cpu-mask=0x1 \
  "other_config:dpdk-extra=--in-memory --no-pci --iova-mode=va --no-telemetry"
# In a network namespace of its own: its tap `br0` may be somebody else's name.
unshare -n "$vswitchd" "$db" --unixctl="$dir/vs.ctl" --pidfile="$dir/vs.pid" &
switch=$!
port() { echo "-- add-port br0 $1 -- set Interface $1 type=dpdkvhostuserclient options:vhost-server-path=$dir/$1.sock ofport_request=$2"; }
# shellcheck disable=SC2046
vsctl add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure $(port a 1) $(port b 2) || exit 1

# The generator's hosts: inside 198.18.0.2 and following, outside 198.19.0.2.
to_b="mod_dl_src:02:00:00:00:02:01,mod_dl_dst:02:00:00:00:be:02"
to_a="mod_dl_src:02:00:00:00:01:01,mod_dl_dst:02:00:00:00:be:01"
routes() { # TABLE
  local i
  for ((i = 0; i < 62; i++)); do
    echo "table=$1,priority=$((100 + 16 + i % 9)),ip,nw_dst=10.$((100 + i)).0.0/$((16 + i % 9)),actions=dec_ttl,$to_b,output:2"
  done
  echo "table=$1,priority=115,ip,nw_dst=198.19.0.0/16,actions=dec_ttl,$to_b,output:2"
  echo "table=$1,priority=115,ip,nw_dst=198.18.0.0/16,actions=dec_ttl,$to_a,output:1"
}
rules() { # drop rules that the traffic never meets
  local i
  for ((i = 0; i < 64; i++)); do
    echo "table=1,priority=$((500 + i % 4 * 10)),udp,nw_src=172.$((16 + i % 16)).0.0/$((16 + i % 5)),tp_dst=$((7000 + i)),actions=drop"
  done
}
case $pipeline in
  fwd) printf 'in_port=1,actions=output:2\nin_port=2,actions=output:1\n' ;;
  l3) routes 0 ;;
  chain)
    rules
    cat << FLOWS
table=0,priority=10,ip,ct_state=-trk,actions=ct(table=1,zone=1,nat)
table=1,priority=300,ct_state=+trk+est,ip,actions=resubmit(,2)
table=1,priority=200,ct_state=+trk+new,in_port=1,ip,actions=ct(commit,zone=1,nat(src=192.0.2.1-192.0.2.64)),resubmit(,2)
FLOWS
    routes 2 ;;
  *) echo "no pipeline $pipeline" >&2; exit 2 ;;
esac > "$dir/flows"
timeout 30 ovs-ofctl -O OpenFlow13 add-flows "unix:$dir/br0.mgmt" "$dir/flows" || exit 1
touch "$dir/ready"
wait "$switch"
