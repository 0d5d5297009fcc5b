# Runs in the outer namespaces: connects one host to the networks: management, the guests' behind Open vSwitch (tenant)
# and behind a Linux bridge (lan), and two devices of its own for macvtaps.
# In: HOST, INDEX, HOST_PID (as seen here)
set -eu

for inside in mgmt0 uplink lan0 phys0 phys1; do
    case $inside in
    mgmt0) network=mgmt outside=m$INDEX ;;
    uplink) network=tenant outside=t$INDEX ;;
    lan0) network=lan outside=l$INDEX ;;
    phys0) network=phys outside=p$INDEX ;;
    phys1) network=phys outside=q$INDEX ;;
    esac
    ip link add "$outside" type veth peer name "$inside" netns "$HOST_PID"
    ip link set "$outside" master "$network" up
done
# User-space Open vSwitch hands half-made checksums and oversized segments on: let the kernel finish them first.
ethtool -K "t$INDEX" tx off tso off gso off gro off >/dev/null
