"""The ports of two described hosts (`hosts.py`), as far as the agents' checks use them. Everything is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from sterna.adapters.files.instances_dir import InstancesDir
from sterna.adapters.files.targets import against, unremovable
from sterna.adapters.libvirt import emulators, start_check
from sterna.adapters.libvirt.xml import checks
from sterna.domain import resource_checks
from sterna.domain.claims import Claim, Sight, VolumeClaim
from sterna.domain.hosts import HostFacts
from sterna.domain.model import Disk, DiskKind, Nic, Refusal, SecretRef, Vm
from sterna.domain.plugs import BRIDGE, HOSTDEV, HYBRID, MACVTAP, OVS, no_bridge
from sterna.domain.secrets import Secret
from tests.corpus.hosts import (
    BRIDGES,
    CAPABILITIES,
    DESTINATION,
    EMULATORS,
    FUNCTIONS,
    PARENTS,
    Resources,
    Setting,
    facts,
)

CINDER = "cinder"
MAC_OF_PORT = "-4000-8000-0000000000aa"


@dataclass
class Libvirt:
    """One host's libvirt, as `ports.hypervisor` has it. `vm` and `migratable`: of the source's one guest."""

    name: str
    setting: Setting
    guest: Vm | None = None
    definition: str = ""
    blockers: tuple[Refusal, ...] = ()
    """What libvirt and QEMU have against the guest leaving."""

    async def vm(self, name_or_uuid: str) -> Vm:
        """The one guest."""
        assert self.guest is not None
        return self.guest

    async def host(self) -> HostFacts:
        """Its description."""
        return facts(self.name, self.setting.instances_dir)

    async def definition_without_devices(self, uuid: str) -> str:
        """As the real one makes it."""
        return start_check.without_devices(self.definition)

    async def check_definition(self, xml: str) -> list[Refusal]:
        """Both hosts have the same libvirt and QEMU, which runs it on the source."""
        return []

    async def host_cpu(self, vm: Vm) -> str:
        """Both hosts have the same CPU."""
        return ""

    async def check_peer(self, destination_uri: str) -> Refusal | None:
        """It answers."""
        return None

    async def check_outgoing(self, uuid: str) -> list[Refusal]:
        """No job is under way."""
        return list(self.blockers)

    async def check_incoming(self, vm: Vm) -> list[Refusal]:
        """The real checks of machine, emulator and of all that the definition names."""
        found = [] if vm.emulator in EMULATORS else [emulators.unknown(vm.emulator)]
        found += checks.against_capabilities(vm, CAPABILITIES)
        found += checks.against_next_start(vm, CAPABILITIES)
        return found + resource_checks.refusals(vm.references, Resources(self.setting))

    async def taken_for_local(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """What is shared, libvirt knows as shared."""
        return ()

    async def claims(self, besides: str = "") -> tuple[Claim, ...]:
        """There is no other VM."""
        return ()

    async def volume_claims(self, besides: str = "") -> tuple[VolumeClaim, ...]:
        """Nor has one a volume."""
        return ()

    async def secrets_like(self, refs: Sequence[SecretRef]) -> list[Secret]:
        """The source has each that its VM needs, with a value that may be read; the destination none."""
        if self.name == DESTINATION:
            return []
        made = "7a11c0de-0000-4000-8000-00000000000{}"
        return [
            Secret(uuid=ref.uuid or made.format(n), kind=ref.kind, usage=ref.usage or f"secret {n}", has_value=True)
            for n, ref in enumerate(refs)
        ]


@dataclass
class Files:
    """One host's files, as `ports.storage` has them."""

    name: str
    setting: Setting
    tokens: set[str] = field(default_factory=set)
    """Those left on storage that both hosts see: one set for both."""

    async def examine(self, disk: Disk) -> Disk:
        """Images' headers say what the definition says."""
        return disk

    async def leave_token(self, path: str, token: str) -> None:
        """Beside a file."""
        if self.setting.is_shared(path):
            self.tokens.add(token)

    async def drop_token(self, path: str, token: str) -> None:
        """Gone again."""
        self.tokens.discard(token)

    async def sight(self, path: str, token: str, place: int | None = None) -> Sight:
        """What this host sees."""
        everywhere = self.setting.is_shared(path) or path in self.setting.on_both or not self.setting.is_own(path)
        there = everywhere or self.name != DESTINATION
        return Sight(seen=token in self.tokens, file_inode=len(path) if there else None, size=1, same_device=True)

    async def sees_token(self, path: str, token: str) -> bool:
        """Is that storage shared?"""
        return token in self.tokens

    async def digest(self, path: str) -> str:
        """Files of one name have one content."""
        return path

    async def identity(self, path: str) -> str | None:
        """What is the VM's own is on the destination only if it is shared, or each host has one."""
        everywhere = self.setting.is_shared(path) or path in self.setting.on_both or not self.setting.is_own(path)
        return path if everywhere or self.name != DESTINATION else None

    async def data_bytes(self, disk: Disk) -> int | None:
        """Not measured."""
        return None

    async def check_sources(self, disks: tuple[Disk, ...]) -> list[Refusal]:
        """The real check."""
        return [r for disk in disks for r in unremovable(InstancesDir(self.setting.instances_dir), disk)]

    async def check_targets(self, disks: tuple[Disk, ...]) -> list[Refusal]:
        """The real check; a shared base is there, and there is room."""
        folder, found = InstancesDir(self.setting.instances_dir), []
        for disk in disks:
            plain = disk.model_copy(update={"backing_path": None}) if disk.backing_shared else disk
            found += against(folder, plain)
        return found

    async def used_by(self, files: tuple[str, ...], claims: tuple[Claim, ...], **_: bool) -> dict[str, tuple[str]]:
        """Nobody else."""
        return {}

    async def named_by(self, name: str, token: str, claims: tuple[Claim, ...], **_: bool) -> tuple[str, ...]:
        """Nobody."""
        return ()


class Switches:
    """NICs of one host, as `ports.vif` has them."""

    async def describe(self, nic: Nic) -> Nic | None:
        """As it is plugged: what its definition does not say, its switch does."""
        if nic.plug == HYBRID:
            bridge = (nic.port_id or "") and nic.bridge
            return nic.model_copy(update={"bridge": bridge or "br-int", "port_id": nic.port_id or _port_id(nic)})
        if nic.plug == HOSTDEV:
            return nic.model_copy(update={"physical_network": FUNCTIONS.get(nic.pci or "")})
        return nic if nic.plug in (OVS, BRIDGE, MACVTAP) else None

    async def check(self, nic: Nic) -> list[Refusal]:
        """The destination has the same bridges, devices and functions."""
        if nic.plug in (OVS, HYBRID):
            return [] if nic.bridge in BRIDGES["ovs"] else [no_bridge(nic)]
        if nic.plug == BRIDGE:
            return [] if nic.bridge in BRIDGES["bridge"] else [no_bridge(nic)]
        if nic.plug == MACVTAP and nic.parent not in PARENTS:
            return [Refusal(code="parent-missing", message=f"there is no network device {nic.parent}")]
        return []


def _port_id(nic: Nic) -> str:
    """Of a hybrid plug: its tap is named after it, as Nova does it."""
    begin = (nic.device or "").removeprefix("tap")
    return f"{begin}00{MAC_OF_PORT}" if begin else ""


class Volumes:
    """A host's volumes, as `ports.volume` has them: `handles` is as in the real adapters, and a service has each
    volume as it must be."""

    def __init__(self, provider: str) -> None:
        self._cinder = provider == CINDER

    def handles(self, disk: Disk) -> bool:
        """A disk of Cinder by its serial, else shared files, iSCSI and Ceph."""
        if self._cinder and disk.volume_id and len(disk.volume_id) == len("7a11c0de-0000-4000-8000-000000000000"):
            return disk.kind is not DiskKind.EMPTY
        network = disk.kind in (DiskKind.ISCSI, DiskKind.RBD)
        return network or (disk.kind is DiskKind.FILE and disk.local is False)

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        """The service has it as it must be; targets of other machines admit both hosts."""
        return []


class Journal:
    """Of an agent that has never migrated anything."""

    def holder(self, uuid: str) -> None:
        """No migration has the VM."""

    def settled(self, name: str) -> list[Any]:
        """Nothing."""
        return []

    def newest_epoch(self, uuid: str) -> int:
        """None was seen."""
        return 0

    def open(self) -> list[Any]:
        """None."""
        return []


def sized(disk: Disk, media: dict[str, int]) -> Disk:
    """With the sizes that libvirt would say. `media`: MiB of a medium, by its target."""
    if disk.kind is DiskKind.EMPTY:
        return disk
    size = media.get(disk.target, 1 if disk.medium else 20 << 10) << 20
    kept = disk.kind is DiskKind.FILE
    return disk.model_copy(
        update={"capacity_bytes": size, "allocation_bytes": size // 4, "length_bytes": size, "holes_kept": kept}
    )


def text(element: etree._Element) -> str:
    """XML."""
    return etree.tostring(element, encoding="unicode")
