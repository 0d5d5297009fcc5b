# Runs in the lab's outer namespaces: the networks, the bus and the iSCSI target.
# In: LAB (state folder), LAB_ADDRESS, TENANT_ADDRESS, MORE_ADDRESSES (network=address ...), NATS_STORE
set -eu

mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /srv
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
umount -R /sys 2>/dev/null || true # cgroups and all: this is another network's /sys
mount -t sysfs sysfs /sys
mkdir -p /run/lock /srv/sterna/tgt /srv/sterna/bus
mount --bind "$LAB/bus" /srv/sterna/bus
hostname sterna-lab
mount --bind "$LAB/hosts/etc-hosts" /etc/hosts
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 || true

ip link set lo up
for bridge in mgmt tenant lan phys; do
    ip link add "$bridge" type bridge forward_delay 0 stp_state 0 mcast_snooping 0
    ip link set "$bridge" up
done
ip address add "$LAB_ADDRESS/24" dev mgmt
ip address add "$TENANT_ADDRESS/24" dev tenant
for more in $MORE_ADDRESSES; do
    ip address add "${more#*=}/24" dev "${more%%=*}"
done
sysctl -qw net.ipv4.neigh.tenant.retrans_time_ms=50 || true # a guest that just came up is found soon

start() { # NAME COMMAND...: a daemon with its log
    name=$1
    shift
    setsid "$@" </dev/null >>"$LAB/logs/$name.log" 2>&1 &
}
start nats nats-server -c "$LAB/nats.conf" -a "$LAB_ADDRESS" -p 4222 -js -sd "$LAB/nats"
TGT_IPC_SOCKET=/srv/sterna/tgt/socket start tgtd tgtd -f --iscsi portal="$LAB_ADDRESS:3260"
