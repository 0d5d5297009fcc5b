"""The agents' own checks (`SourceChecks`, `DestinationChecks`) over a definition of the corpus."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from lxml import etree

from sterna.adapters.libvirt.xml.describe import describe_domain
from sterna.adapters.libvirt.xml.references import references_of
from sterna.adapters.libvirt.xml.sparse_disks import refuse_holes
from sterna.adapters.network.native import NativeNetwork
from sterna.agent.answers import Answers
from sterna.agent.source_checks import SourceChecks
from sterna.domain.claims import cold_disks, left_behind
from sterna.domain.jobs import blocked_refusal, disk_job_refusal
from sterna.domain.model import Data, GuestState, Refusal, Vm
from sterna.domain.next_start import next_start
from sterna.domain.objective import Asked, objective
from sterna.domain.references import translations
from sterna.migration.context import HostPorts
from sterna.sim.world.clock import SimClock
from tests.corpus import running
from tests.corpus.catalogue import Definition, elements, tools
from tests.corpus.hosts import ADDRESSES, DESTINATION, SOURCE, Resources, looked_at
from tests.corpus.ports import Files, Journal, Libvirt, Switches, Volumes, sized, text

Element = etree._Element


@dataclass(frozen=True)
class Verdict:
    """What a plan says of a definition."""

    vm: Vm
    """With `local` of each disk decided."""
    refusals: tuple[Refusal, ...]
    listens: dict[str, str]
    """Addresses that are translated."""
    live: Element
    migratable: Element

    @property
    def codes(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys(refusal.code for refusal in self.refusals))

    @property
    def moves(self) -> bool:
        """Nothing speaks against it."""
        return not self.refusals

    @property
    def ways(self) -> tuple[str, ...]:
        """In what way it moves, in words."""
        found = []
        if any(disk.local and not disk.carried for disk in self.vm.disks):
            found.append("disks copied")
        if any(disk.carried for disk in self.vm.disks):
            found.append("medium sent along")
        if any(left_behind(disk) for disk in self.vm.disks):
            found.append("medium left behind")
        if self.listens:
            found.append("listen address translated")
        if any(nic.plug == "hostdev" for nic in self.vm.nics):
            found.append("virtual function taken away for the copy")
        return (*found, *(["with a warning"] if self.vm.unjudged else []))


class _Client:
    """The destination's agent, called in the same process."""

    def __init__(self, answers: Answers, hypervisor: Libvirt) -> None:
        self._answers, self._hypervisor = answers, hypervisor

    async def call(self, host: str, method: str, params: Data, **_: Any) -> Data:
        """As `rpc.client.RpcClient.call`."""
        if method == "describe_host":
            return {"host": (await self._hypervisor.host()).model_dump(mode="json")}
        request = SimpleNamespace(params=params, sender=SOURCE, migration_id="")
        answer: Data = await getattr(self._answers, method)(request)
        return answer


def _described(definition: Definition, live: Element, migratable: Element) -> Vm:
    """As `adapters/libvirt/queries.py` reads a running, persistent domain."""
    vm, inactive = describe_domain(live), describe_domain(definition.domain)
    solid = refuse_holes(live)
    disks = tuple(sized(disk, definition.media) for disk in vm.disks)
    disks = tuple(d.model_copy(update={"holes_kept": False}) if d.target in solid else d for d in disks)
    return vm.model_copy(
        update={
            "state": GuestState.RUNNING,
            "disks": disks,
            "cold": cold_disks(vm.disks, inactive.disks),
            "next_start": next_start(vm, inactive),
            "references": references_of(migratable, definition.domain),
        }
    )


async def judge(definition: Definition, *, shared: bool) -> Verdict:
    """What the plan says, with the VM's files on storage of each host's own, or on storage that both see."""
    setting = definition.setting(shared=shared)
    live = running.live(definition.domain, definition.bases)
    migratable = running.migratable(definition.domain)
    vm = _described(definition, live, migratable)
    vm = vm.model_copy(update={"references": tuple(looked_at(ref, setting) for ref in vm.references)})
    jobs = [disk_job_refusal(vm.name, disk.target, "copy", ready=True) for disk in vm.disks if disk.mirrored]
    blocked = (*jobs, *(blocked_refusal(vm.name, reason) for reason in blockers(live)))
    here = Libvirt(SOURCE, setting, vm, text(migratable), blocked)
    there = Libvirt(DESTINATION, setting)
    tokens: set[str] = set()
    source, destination = (
        _ports(each, Files(each.name, setting, tokens), definition.provider) for each in (here, there)
    )
    journal = cast(Any, Journal())
    client = cast(Any, _Client(Answers(destination, journal), there))
    wanted, _ = objective(Asked())
    assert wanted is not None
    seen, _, refusals = await SourceChecks(source, journal, client).check(vm.uuid, DESTINATION, wanted)
    listens = translations(vm.references, Resources(setting))
    return Verdict(seen, tuple(refusals), dict(listens), live, migratable)


def _ports(hypervisor: Libvirt, files: Files, provider: str) -> HostPorts:
    return HostPorts(
        name=hypervisor.name,
        address=ADDRESSES[hypervisor.name],
        uri="qemu+tls://{}/system".format,
        hypervisor=cast(Any, hypervisor),
        vif=cast(Any, Switches()),
        network=NativeNetwork(),
        volumes=(cast(Any, Volumes(provider)),),
        storage=cast(Any, files),
        clock=SimClock(),
        sealing=cast(Any, None),
    )


@cache
def verdicts() -> dict[tuple[str, bool], Verdict]:
    """Of every definition, by its id and whether its files are on storage that both hosts see."""

    async def all_of_them() -> dict[tuple[str, bool], Verdict]:
        cases = [(each, shared) for each in (*tools(), *elements()) for shared in (False, True)]
        return {(each.id, shared): await judge(each, shared=shared) for each, shared in cases}

    return asyncio.run(all_of_them())


INVTSC = "State blocked by non-migratable CPU device (invtsc flag)"
# What QEMU 10.0 itself lists (`query-migrate`, `blocked-reasons`), as its source has it: devices whose state is
# marked `unmigratable`, and callers of `migrate_add_blocker`.
_BLOCKING = (
    ("cpu[@mode='host-passthrough'][@migratable='off']", INVTSC),
    ("devices/channel[@type='qemu-vdagent']", "The vdagent chardev doesn't yet support migration"),
    ("devices/sound[@model='virtio']", "non-migratable device 'virtio-sound'"),
    ("devices/crypto", "non-migratable device 'virtio-crypto'"),
    ("devices/video/model[@type='virtio']/acceleration[@accel3d='yes']", "virgl is not yet migratable"),
    ("features/hyperv[@mode='passthrough']", "'hv-passthrough' CPU flag prevents migration"),
    ("devices/hostdev[@type='mdev']", "VFIO migration is not supported in kernel"),
    ("devices/interface[@type='vdpa']", "vhost-vdpa: the device does not log what the guest dirties"),
    ("devices/sound[@model='usb']", "non-migratable device 'usb-audio'"),
    ("launchSecurity", "SEV: Migration is not implemented"),
)
_FORMATS = re.compile(r"vmdk|vdi|vpc|vhdx|qcow|parallels|vvfat")


def blockers(live: Element) -> Iterator[str]:
    """QEMU's reasons against migrating that guest."""
    yield from (reason for place, reason in _BLOCKING if live.find(place) is not None)
    if any(shared.get("role") != "master" for shared in live.iterfind("devices/shmem")):
        yield "Migration is disabled when using feature 'peer mode' in device 'ivshmem'"
    for disk in live.iterfind("devices/disk"):
        driver = disk.find("driver")
        form = (driver.get("type") or "") if driver is not None else ""
        if _FORMATS.fullmatch(form):
            yield f"The {form} format used by node 'libvirt-1-format' does not support live migration"
    tsc = live.find("clock/timer[@name='tsc'][@frequency]")
    if tsc is None and live.find("cpu/feature[@name='invtsc'][@policy='require']") is not None:
        yield INVTSC
