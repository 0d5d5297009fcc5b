"""Two hosts that are set up alike, for the agents' own checks: what of a definition's names is where. Pure.

Alike means: what an operator sets up host by host is on both (bridges, libvirt's networks and filters, firmware,
kernels, devices, system folders, huge pages). What belongs to one VM is on the source only, unless the disks are
on storage that both hosts see: its disks, what they stand on, its media, other files beside them, its own folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from sterna.domain.hosts import Abilities, HostFacts
from sterna.domain.references import Form, Kind, Lan, Reference, Thing

GIB = 1 << 30
SOURCE, DESTINATION = "alpha", "beta"
ADDRESSES = {SOURCE: "10.40.0.11", DESTINATION: "10.40.0.12"}
NETWORK = "10.40.0.0/24"
INITIATORS = {name: f"iqn.2026-11.example:{name}" for name in ADDRESSES}

CAPABILITIES = """<capabilities><guest><os_type>hvm</os_type><arch name='x86_64'>
<emulator>/usr/bin/qemu-system-x86_64</emulator>
<machine>pc-q35-10.0</machine><machine>pc-i440fx-10.0</machine><machine>pc-q35-9.2</machine>
<machine>pc-q35-8.2</machine><machine>pc-q35-7.2</machine><machine>pc-q35-6.2</machine><machine>pc-i440fx-6.2</machine>
<machine>q35</machine><machine>pc</machine><machine>microvm</machine>
<domain type='qemu'/><domain type='kvm'/></arch></guest></capabilities>"""
"""Of both hosts' libvirt; the emulator's path is what it is named by in the corpus."""
EMULATORS = frozenset({"", "/usr/bin/qemu-system-x86_64"})

NETWORKS = {
    "default": Lan(forward="nat"),
    "vagrant-libvirt": Lan(forward="nat"),
    "mk-minikube": Lan(),
    "routed-lab": Lan(forward="route"),
    "office": Lan(forward="bridge"),
    "tenants": Lan(forward="bridge", port="openvswitch"),
    "uplinks": Lan(forward="bridge"),
    "fast": Lan(forward="hostdev"),
}
"""libvirt's networks, defined alike on both hosts."""
ACTUAL = {
    "default": ("network", {"bridge": "virbr0"}),
    "vagrant-libvirt": ("network", {"bridge": "virbr1"}),
    "mk-minikube": ("network", {"bridge": "virbr2"}),
    "routed-lab": ("network", {"bridge": "virbr3"}),
    "office": ("bridge", {"bridge": "br0"}),
    "tenants": ("bridge", {"bridge": "br-int"}),
    "uplinks": ("direct", {"dev": "ens1f0", "mode": "bridge"}),
    "fast": ("hostdev", {}),
}
"""What libvirt makes of a NIC on each: the type, and the attributes of its source, in the live definition."""
BRIDGES = {
    "bridge": frozenset({"br0", "br1", "br-lan", "ovirtmgmt", "storage", "vmbr0", "virbr0", "brq4f0c"}),
    "ovs": frozenset({"br-int", "br-ex", "ovsbr0"}),
}
"""By the kind of bridge."""
PARENTS = frozenset({"eno1", "ens1f0", "ens1f1", "bond0"})
NEVER_SHARED = ("/dev/", "/run/", "/var/run/", "/tmp/")
FUNCTIONS = {"0000:81:02.3": "physnet1", "0000:81:02.4": "physnet1"}


@dataclass(frozen=True)
class Setting:
    """One case: whose files are where."""

    shared: bool
    """The VM's files are on storage that both hosts see, under the same names."""
    own: frozenset[str]
    """Its own files, and folders of its own."""
    instances_dir: str
    """Of both agents."""
    on_both: frozenset[str] = frozenset()
    """Of its own files those that each host has, with the same content: an installation's CD in a library."""
    own_folder: str = ""
    """A folder of the VM on each host's own storage, wherever its disks are."""

    def is_shared(self, path: str) -> bool:
        """Is it on storage that both hosts see?"""
        apart = bool(self.own_folder) and path.startswith(self.own_folder)
        if not self.shared or apart or path in self.on_both:
            return False
        return path.startswith(f"{self.instances_dir}/") or not path.startswith(NEVER_SHARED)

    def is_own(self, path: str) -> bool:
        """Does it belong to the VM: a file of it, in a folder of it, or beside its disks?"""
        return any(path == each or path.startswith(f"{each}/") for each in self.own)


def facts(name: str, instances_dir: str) -> HostFacts:
    """Its description of itself."""
    return HostFacts(
        name=name,
        host_uuid=f"0b7a3c1e-0000-4000-8000-0000000000{len(name):02x}",
        address=ADDRESSES[name],
        libvirt_version=11_003_000,
        qemu_version=10_000_002,
        memory_total_bytes=1024 * GIB,
        memory_free_bytes=768 * GIB,
        cpus=64,
        initiator=INITIATORS[name],
        instances_dir=instances_dir,
        disk_free_bytes=2048 * GIB,
        abilities=Abilities(userfaultfd=True, userfaultfd_hugepages=True, tls=True, zstd=True, locked_memory=True),
    )


def looked_at(ref: Reference, setting: Setting) -> Reference:
    """The reference with what the source has of it."""
    if ref.kind is Kind.ADDRESS:
        here = ref.name == ADDRESSES[SOURCE]
        return ref.model_copy(update={"own": here, "network": NETWORK if here else ""})
    if ref.kind is Kind.NETWORK and ref.lan is not None:
        return ref.model_copy(update={"lan": NETWORKS.get(ref.name)})
    if ref.kind in (Kind.FILE, Kind.FIRMWARE, Kind.ARGUMENT):
        return ref.model_copy(update={"thing": _thing(ref.name)})
    return ref


def _thing(path: str) -> Thing:
    if path.startswith("/dev/"):
        return Thing(form=Form.DEVICE)
    return Thing(form=Form.FILE, size=len(path), digest=path, inode=7, modified_ns=1)


@dataclass
class Resources:
    """`domain.references.HostResources` of the destination."""

    setting: Setting
    name: str = DESTINATION
    address: str = ADDRESSES[DESTINATION]
    here: frozenset[str] = field(default=frozenset({"0.0.0.0", "::", "127.0.0.1", "localhost", ""}))

    def makes(self, folder: str) -> bool:
        """Its VMs' own folders, which P8 makes."""
        return str(PurePosixPath(folder).parent) == self.setting.instances_dir

    def thing(self, path: str, *, digest: bool = False) -> Thing:
        """What an operator sets up is there; what is the VM's own only on shared storage."""
        shared, own = self.setting.is_shared, self.setting.is_own
        if path.startswith("/sys/class/fc/"):  # the hosts have no Fibre Channel
            return Thing(folder=False)
        if not own(path) or shared(path) or path in self.setting.on_both:
            return _thing(path)
        folder = str(PurePosixPath(path).parent)
        return Thing(folder=shared(folder) or not own(folder))

    def bindable(self, address: str, port: int = 0, *, udp: bool = False) -> str:
        """Nothing has a port."""
        return "" if address in self.here | {self.address} else "address"

    def addresses_in(self, network: str) -> tuple[str, ...]:
        """One network joins the hosts."""
        return (self.address,) if network == NETWORK else ()

    def reaches(self, address: str, port: int) -> bool:
        """A server of the site answers, the source's own loopback does not."""
        return not address.startswith("127.")

    def listening(self, path: str) -> bool:
        """Daemons of the host listen at their sockets."""
        return not self.setting.is_own(path)

    def user_of(self, path: str) -> str:
        """Nobody."""
        return ""

    def network(self, name: str) -> str:
        """All are started."""
        return "active" if name in NETWORKS else ""

    def lan(self, name: str, portgroup: str) -> Lan | None:
        """As on the source."""
        return NETWORKS.get(name)

    def has_filter(self, name: str) -> bool:
        """libvirt's own, and the site's."""
        return True

    def has_secret(self, uuid: str) -> bool:
        """Secrets are made for a VM, on its host."""
        return False

    def cpus(self) -> frozenset[int]:
        """64."""
        return frozenset(range(64))

    def nodes(self) -> frozenset[int]:
        """Two."""
        return frozenset({0, 1})

    def free_pages(self, size_kib: int, nodes: frozenset[int]) -> int | None:
        """Enough of 2 MiB and 1 GiB."""
        return {2048: 1 << 20, 1 << 20: 1 << 11}.get(size_kib)

    def cid_user(self, cid: str) -> str:
        """Nobody."""
        return ""

    def security_models(self) -> frozenset[str]:
        """Debian's."""
        return frozenset({"apparmor", "dac"})

    def allocates_cache(self) -> bool:
        """resctrl is mounted."""
        return True
