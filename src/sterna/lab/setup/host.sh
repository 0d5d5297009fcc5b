# Runs in a host's namespaces: its folders, its network, its Open vSwitch, its libvirt.
# In: LAB (state folder), HOST, ADDRESS, SECOND_ADDRESS, GUEST_IMAGE, VLAN, DATAPATH
set -eu
own=$LAB/hosts/$HOST

hostname "$HOST"
umount -R /sys 2>/dev/null || true # cgroups and all: this is another network's /sys
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/openvswitch /run/srv
mount -t tmpfs -o mode=755 tmpfs /run/srv
cd /run/srv
mkdir -p sterna/shared sterna/instances sterna/state sterna/tgt sterna/guest
mount --bind "$LAB/shared" sterna/shared
mount --bind "$own/instances" sterna/instances
mount --bind "$own/state" sterna/state
mount --bind /srv/sterna/tgt sterna/tgt
mount --bind "$GUEST_IMAGE" sterna/guest
mount -o remount,bind,ro sterna/guest
cd /
mount --bind "$LAB/hosts/etc-hosts" /etc/hosts
mount --move /run/srv /srv
mount --bind "$own/etc/libvirt" /etc/libvirt
mount --bind "$own/lib/libvirt" /var/lib/libvirt
mount --bind "$own/cache/libvirt" /var/cache/libvirt
mount --bind "$own/log/libvirt" /var/log/libvirt

sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 || true
ip link set lo up
ip link set mgmt0 up
ip link set uplink up
ip link add br-lan type bridge forward_delay 0 stp_state 0 mcast_snooping 0
ip link set lan0 master br-lan up
ip link set br-lan up
ip link set phys0 up
ip link set phys1 up
ip address add "$ADDRESS/24" dev mgmt0
ip address add "$SECOND_ADDRESS/24" dev mgmt0 # another way for a memory stream
ethtool -K uplink tx off tso off gso off gro off >/dev/null

mkdir -p /run/sshd
/usr/sbin/sshd -f /etc/libvirt/ssh/sshd_config -o "ListenAddress=$ADDRESS" # for libvirt's qemu+ssh
virtlogd -d
libvirtd -d --listen # slowest of all to be ready: looks at the installed QEMUs first
ovsdb-tool create "$own/openvswitch/conf.db" /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server "$own/openvswitch/conf.db" --remote=punix:/run/openvswitch/db.sock -vconsole:off --pidfile --detach --no-chdir \
    --log-file="$own/log/ovsdb-server.log" --unixctl=/run/openvswitch/ovsdb-server.ctl
ovs-vsctl --no-wait init -- set Open_vSwitch . external_ids:system-id="$HOST" external_ids:hostname="$HOST"
ovs-vswitchd --pidfile --detach --no-chdir -vconsole:off \
    --log-file="$own/log/ovs-vswitchd.log" --unixctl=/run/openvswitch/ovs-vswitchd.ctl
ovs-vsctl --timeout=20 add-br br-int -- set bridge br-int datapath_type="$DATAPATH" fail_mode=standalone \
    -- add-port br-int uplink tag="$VLAN"
