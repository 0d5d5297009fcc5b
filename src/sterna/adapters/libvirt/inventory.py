"""`ports.hypervisor.Inventory`: reads of one host's libvirt."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import libvirt

from sterna.adapters.host import looks
from sterna.adapters.libvirt import abilities, cpus, emulators, replaced, shared_folders, start_check
from sterna.adapters.libvirt.claims import read_claims, read_volume_claims
from sterna.adapters.libvirt.definitions import Patience, definitions
from sterna.adapters.libvirt.host_cpu import HostCpus
from sterna.adapters.libvirt.observe import ASLEEP, observe, state_of
from sterna.adapters.libvirt.outgoing import against_leaving
from sterna.adapters.libvirt.qemu.schema import Schemas
from sterna.adapters.libvirt.queries import load_of, pid_of, read_vm, refusals_of
from sterna.adapters.libvirt.reference_facts import seen
from sterna.adapters.libvirt.resources import LibvirtHostResources, ask
from sterna.adapters.libvirt.session.connection import Connect, close_quietly, open_connection
from sterna.adapters.libvirt.session.host import HostSettings, LibvirtHost
from sterna.adapters.libvirt.xml.cloud import read_nova, read_volumes
from sterna.adapters.libvirt.xml.differences import changes_for
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.adapters.libvirt.xml.render import render_live
from sterna.domain import resource_checks
from sterna.domain.claims import Claim, VolumeClaim
from sterna.domain.copying import CopyPlan, GuestLoad
from sterna.domain.cpus import HostCpu
from sterna.domain.definition_changes import DefinitionChanges
from sterna.domain.errors import Permanent, Unreachable
from sterna.domain.hosts import Abilities, HostFacts, VmSummary
from sterna.domain.model import Observation, Refusal, Vm
from sterna.domain.references import Kind, translations
from sterna.kit.bounded import Bounded
from sterna.kit.digests import digest_of
from sterna.kit.threads import in_thread
from sterna.ports.hypervisor import COPYING, GuestEvent

_DIAL_S = 8.0
"""A peer that is up answers in milliseconds; a dropped SYN would be tried for two minutes."""
_DIALS = Bounded("sterna-dial-call")
"""libvirt connects without a time limit where a libvirtd accepts and never answers. So many calls per peer."""
_ROOM_S = 1.0
_ROOM = Bounded("sterna-free-space")
"""It takes some microseconds. On a dead NFS server it never ends."""


class LibvirtInventory(LibvirtHost):
    """Reads only."""

    def __init__(self, uri: str = "qemu:///system", settings: HostSettings | None = None) -> None:
        super().__init__(uri, settings)
        self._schemas, self._cpus = Schemas(), HostCpus()

    async def host(self) -> HostFacts:
        """The host's facts. Raises Unreachable, also while nothing is heard of its guests."""
        self._events.check_loop()
        facts, capabilities = await self._facts.run(self._host_facts)
        settings = Abilities(
            link_bytes_s=self._settings.link_bytes_s,
            transport=self._settings.transport,
            insecure=self._settings.insecure,
        )
        privileged = self._uri.startswith("qemu:///system")
        versions = abilities.Versions(facts.libvirt_version, facts.qemu_version)
        able = await abilities.read(
            parse_xml(capabilities), versions, self._schemas, privileged=privileged, settings=settings
        )
        return facts.model_copy(update={"abilities": able})

    async def vms(self) -> list[VmSummary]:
        """Every domain libvirt knows, running or not. Raises Unreachable."""

        def read(conn: Connect) -> list[VmSummary]:
            found = []
            patience = Patience(none=True)  # a list waits for no guest
            for domain in conn.listAllDomains():
                try:
                    found.append(_summary(domain, patience))
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                        raise  # else it ended while we looked
            return sorted(found, key=lambda vm: vm.name)

        return await self._details.run(read)

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        """See ports.hypervisor.Changes.changes. Raises Unreachable."""
        async with self._events.subscribe("") as events:
            yield _of_life(events)

    async def vm(self, name_or_uuid: str) -> Vm:
        """One VM from its LIVE definition (else the inactive one), sizes of its disks included.

        Raises NotFound, Unreachable.
        """
        vm, pid = await self._details.run(lambda conn: read_vm(conn, name_or_uuid), name_or_uuid)
        return vm.model_copy(update={"references": await seen(vm.references, self._settings, pid)})

    async def observe(self, uuid: str) -> Observation:
        """State, reason, job, epoch and evidence of one guest, now. Absent is an answer. Raises Unreachable."""
        return await self._looks.run(
            lambda conn: observe(conn, uuid, seen_running=self._events.seen_running(uuid)), uuid
        )

    async def claims(self, besides: str = "") -> tuple[Claim, ...]:
        """Every file that this libvirt's domains name, but those of `besides`. Raises Unreachable."""
        return await self._passes.run(lambda conn: read_claims(conn, besides))

    async def volume_claims(self, besides: str = "") -> tuple[VolumeClaim, ...]:
        """Every LUN that this libvirt's domains name, but those of `besides`. Raises Unreachable."""
        return await self._passes.run(lambda conn: read_volume_claims(conn, besides))

    async def check_incoming(self, vm: Vm) -> list[Refusal]:
        """What this hypervisor has against running `vm`; every reason at once. Changes nothing.

        Memory is not among them: the agent knows what other incoming guests were promised. Raises Unreachable;
        Temporary, with its name, where a file system or the look-up of a name gives no answer.
        """
        emulator = await emulators.target_of(vm.emulator)
        found = await self._ask(lambda conn: refusals_of(conn, vm, emulator))
        facts = await self._passes.run(lambda conn: ask(conn, vm.references, vm.uuid))
        made = posixpath.join(self._settings.instances_dir, vm.uuid) if self._settings.instances_dir else ""
        host = LibvirtHostResources(self._settings.name, self._settings.address, facts, made=made)
        for some in await looks.at_each(vm.references, lambda refs: resource_checks.refusals(refs, host)):
            found += some
        if not any(refusal.code == "uuid-taken" for refusal in found):
            self._events.forget(vm.uuid)  # whether it ran here on an earlier stay proves nothing for the next one
        return found

    async def check_outgoing(self, uuid: str) -> list[Refusal]:
        """What speaks against a copy of this guest beginning now. Raises NotFound, Unreachable."""

        def ask(conn: Connect) -> tuple[list[Refusal], str, dict[str, str], int | None]:
            domain = conn.lookupByUUIDString(uuid)
            against, name, pid = against_leaving(domain), domain.name(), pid_of(domain)
            return against, name, replaced.kept_open(parse_xml(domain.XMLDesc())) if pid else {}, pid

        against, name, files, pid = await self._ask_of(uuid, ask)
        return against + await replaced.refusals(name, files, pid)

    async def listens_for(self, vm: Vm) -> dict[str, str]:
        """See ports.hypervisor.Inventory.listens_for. Raises Temporary where a name is not looked up."""
        listens = [ref for ref in vm.references if ref.kind is Kind.ADDRESS]
        host = LibvirtHostResources(self._settings.name, self._settings.address)
        found = await looks.at_each(listens, lambda refs: translations(refs, host))
        return {old: new for some in found for old, new in some.items()}

    async def taken_for_local(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """See ports.hypervisor.Inventory.taken_for_local. Raises Temporary."""
        return await shared_folders.taken_for_local(paths)

    async def host_cpu(self, vm: Vm) -> str:
        """What a guest that sees this host's CPU as it is sees. Raises Unreachable, Permanent."""
        return await self._ask(lambda conn: cpus.host_cpu(conn, vm))

    async def own_cpu(self) -> HostCpu | None:
        """What this host's CPU gives its guests. Raises Unreachable."""
        return await self._facts.run(lambda conn: self._cpus.read(conn, conn.getCapabilities()))

    async def compare_cpu(self, vm: Vm, cpu: str) -> list[Refusal]:
        """What of another host's CPU this host lacks. Raises Unreachable, Permanent, Temporary."""
        emulator = await emulators.target_of(vm.emulator)

        def compare(conn: Connect) -> list[Refusal]:
            known = emulators.is_known(vm.emulator, emulator, conn.getCapabilities())
            return cpus.compare(conn, vm, cpu) if known else []  # else `check_incoming` refuses it

        return await self._ask(compare)

    async def measure_load(self, uuid: str, seconds: int) -> None:
        """Begin to measure what the guest dirties. Raises NotFound, Permanent, Unreachable."""
        await self._ask_of(uuid, lambda conn: conn.lookupByUUIDString(uuid).startDirtyRateCalc(seconds, 0))

    async def load(self, uuid: str) -> GuestLoad | None:
        """What was measured last. Raises NotFound, Permanent, Unreachable."""
        return await self._ask_of(uuid, lambda conn: load_of(conn, uuid))

    async def check_postcopy(self) -> list[Refusal]:
        """Why no guest could arrive here by post-copy. Raises Unreachable."""

        def ask(conn: Connect) -> tuple[str, abilities.Versions]:
            return conn.getCapabilities(), abilities.Versions(conn.getLibVersion(), conn.getVersion())

        capabilities, versions = await self._ask(ask)
        if abilities.may_handle_faults(parse_xml(capabilities), versions):
            return []
        message = f"{self._settings.name} does not let QEMU handle page faults, as post-copy needs it"
        fix = (
            "sysctl vm.unprivileged_userfaultfd=1 there, or give QEMU /dev/userfaultfd (libvirt 10.1, QEMU 8.0; in "
            "`cgroup_device_acl` of qemu.conf where that is set), or migrate without --may postcopy"
        )
        return [Refusal(code="postcopy-impossible", message=message, fix=fix)]

    async def definition_for(self, uuid: str, plan: CopyPlan) -> str:
        """The definition the destination would be given, without secrets. Raises NotFound, Permanent."""

        def render(conn: Connect) -> str:
            return render_live(conn.lookupByUUIDString(uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE), plan)

        return await self._ask_of(uuid, render)

    async def definition_changes(self, uuid: str, plan: CopyPlan) -> DefinitionChanges:
        """See ports.hypervisor.Renderings.definition_changes. Raises NotFound, Permanent, Unreachable."""

        def compare(conn: Connect) -> DefinitionChanges:
            domain, readable = conn.lookupByUUIDString(uuid), libvirt.VIR_DOMAIN_XML_MIGRATABLE
            cold = domain.XMLDesc(readable | libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else None
            return changes_for(domain.XMLDesc(readable), cold, plan)

        return await self._ask_of(uuid, compare)

    async def persistent_definition(self, uuid: str) -> str:
        """See ports.hypervisor.Inventory.persistent_definition. Raises NotFound, Unreachable."""

        def read(conn: Connect) -> str:
            domain = conn.lookupByUUIDString(uuid)
            return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if domain.isPersistent() else ""

        return await self._ask_of(uuid, read)

    async def definition_without_devices(self, uuid: str) -> str:
        """See ports.hypervisor.Inventory.definition_without_devices. Raises NotFound, Unreachable."""

        def read(conn: Connect) -> str:
            domain = conn.lookupByUUIDString(uuid)
            if not domain.isActive():
                return ""
            return start_check.without_devices(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))

        return await self._details.run(read, uuid)

    async def check_definition(self, xml: str) -> list[Refusal]:
        """Does this libvirt make a QEMU's command line of it, and has it the huge pages? Raises Unreachable,
        Temporary; Permanent where it is no XML."""
        named = emulators.of_definition(xml)
        target = await emulators.target_of(named)

        def check(conn: Connect) -> list[Refusal]:
            if not emulators.is_known(named, target, conn.getCapabilities()):
                return [emulators.unknown(named)]
            return start_check.against_definition(conn, xml)

        return await self._ask(check)

    async def check_peer(self, destination_uri: str) -> Refusal | None:
        """Can this host dial the other's libvirtd, and is it another one? None where all is well."""

        def dial() -> str:
            conn = open_connection(destination_uri)
            try:
                return _host_uuid(conn)
            finally:
                close_quietly(conn)

        fix = "check that libvirtd listens there, and that no firewall is between"
        try:
            async with asyncio.timeout(_DIAL_S):
                peer = await in_thread(lambda: _DIALS.call(dial, _DIAL_S, of=destination_uri), name="sterna-dial")
        except TimeoutError:
            return Refusal(
                code="peer-unreachable",
                message=f"{destination_uri} gave no answer within {_DIAL_S:g} s",
                fix=fix,
            )
        except (Unreachable, libvirt.libvirtError) as error:
            return Refusal(code="peer-unreachable", message=str(error), fix=fix)
        if peer == await self._ask(_host_uuid):
            message = f"{destination_uri} has this host's own UUID, {peer}: libvirt refuses to migrate to itself"
            fix = "set host_uuid in its libvirtd.conf, restart its libvirtd, then `sterna host pin HOST UUID`"
            return Refusal(code="peer-same-host", message=message, fix=fix)
        return None

    def _host_facts(self, conn: Connect) -> tuple[HostFacts, str]:
        """The facts, and libvirt's capabilities they are taken from."""
        capabilities = conn.getCapabilities()
        host = parse_xml(capabilities).find("host")
        memory, cpu = _meminfo(), self._cpus.read(conn, capabilities)
        own = self._settings
        facts = HostFacts(
            name=own.name or conn.getHostname(),
            host_uuid=host.findtext("uuid", "") if host is not None else "",
            address=own.address,
            libvirt_version=conn.getLibVersion(),
            qemu_version=conn.getVersion(),
            memory_total_bytes=memory["MemTotal"],
            memory_free_bytes=memory["MemAvailable"],
            cpus=conn.getInfo()[2],
            cpu_model=host.findtext("cpu/model", "") if host is not None else "",
            cpu_id=digest_of(cpu.text) if cpu is not None else "",
            initiator=own.initiator,
            instances_dir=own.instances_dir,
            disk_free_bytes=_free_bytes(own.instances_dir),
        )
        return facts, capabilities


async def _of_life(events: AsyncIterator[GuestEvent]) -> AsyncIterator[None]:
    """Without what a copy says of itself."""
    async for event in events:
        if event.kind not in COPYING:
            yield


def _host_uuid(conn: Connect) -> str:
    return parse_xml(conn.getCapabilities()).findtext("host/uuid", "")


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    with open("/proc/meminfo") as lines:
        return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def _free_bytes(directory: str) -> int | None:
    """None where the directory is missing or its file system does not answer: the rest of the host is described."""
    try:
        numbers = _ROOM.call(lambda: os.statvfs(directory), _ROOM_S)
    except (OSError, RuntimeError):  # a TimeoutError is an OSError; RuntimeError: no thread is left
        return None
    return numbers.f_bavail * numbers.f_frsize


def _summary(domain: Any, patience: Patience) -> VmSummary:
    """Raises libvirtError, also where the domain has ended since."""
    memory_kib, vcpus = domain.info()[1], domain.info()[3]
    state, reason = state_of(domain)
    summary = VmSummary(
        uuid=domain.UUIDString(),
        name=domain.name(),
        state=state,
        memory_bytes=memory_kib * 1024,
        vcpus=vcpus,
        asleep=reason == ASLEEP,
    )
    try:
        definition = parse_xml(next(definitions(domain, patience)))
    except Permanent:  # one definition that cannot be read hides no other VM
        return summary
    return summary.model_copy(update={"nova": read_nova(definition), "volumes": read_volumes(definition)})
