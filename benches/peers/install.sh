#!/bin/bash
# Installs DPDK and OVS-DPDK from Debian, as root. Nothing is started.
set -e
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
apt-get install -y -qq --no-install-recommends dpdk dpdk-dev openvswitch-switch openvswitch-switch-dpdk
