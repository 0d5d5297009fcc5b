# Runs in the outer namespaces: connects one host to both networks.
# In: HOST, INDEX, HOST_PID (as seen here)
set -eu

for network in mgmt tenant; do
    case $network in mgmt) inside=mgmt0 outside=m$INDEX ;; *) inside=uplink outside=t$INDEX ;; esac
    ip link add "$outside" type veth peer name "$inside" netns "$HOST_PID"
    ip link set "$outside" master "$network" up
done
# User-space Open vSwitch hands half-made checksums and oversized segments on: let the kernel finish them first.
ethtool -K "t$INDEX" tx off tso off gso off gro off >/dev/null
