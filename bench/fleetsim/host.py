"""One simulated host: its agent's bus, journal and list of VMs, and what its beacon says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from bench.fleetsim.journal import SimJournal
from bench.fleetsim.made import MadeHost
from bench.fleetsim.truth import Truth
from sterna.domain.cpus import HostCpu
from sterna.domain.errors import SternaError
from sterna.domain.hosts import Abilities, HostFacts, VmSummary
from sterna.domain.model import Data, GuestState
from sterna.domain.sightings import text_of
from sterna.kit.digests import digest_of
from sterna.ports.bus import Bus, BusState, Handler, Incoming, Subscription
from sterna.ports.clock import Clock
from sterna.ports.records import Journal
from sterna.rpc.server import RpcServer
from sterna.rpc.subjects import event_subject, host_topic, token, vms_topic

if TYPE_CHECKING:
    from bench.fleetsim.outgoing import Outgoing


_OLDER = ("aes", "avx", "sse2")


def _cpu(newer: bool) -> HostCpu:
    model, features = ("newer", ("avx2", *_OLDER)) if newer else ("older", _OLDER)
    facts: Data = {"arch": "x86_64", "virt_type": "kvm", "vendor": "Intel"}
    return HostCpu(**facts, model=model, features=tuple(sorted(features)), models=("older",))


class HostBus:
    """One host's part of a connection that all share. Implements ports.bus.Bus. A dead host neither hears nor says
    anything."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self.alive = bus, True

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """See ports.bus.Bus."""

        async def hear(incoming: Incoming) -> None:
            if self.alive:
                await handler(_Heard(self, incoming))

        return await self._bus.subscribe(subject, hear)

    async def publish(self, subject: str, payload: bytes) -> None:
        """See ports.bus.Bus."""
        if self.alive:
            await self._bus.publish(subject, payload)

    def request(self, subject: str, payload: bytes) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See ports.bus.Bus."""
        return self._bus.request(subject, payload)

    def state(self) -> BusState:
        """See ports.bus.Bus."""
        return self._bus.state()

    async def close(self) -> None:
        """The connection is everybody's."""


class _Heard:
    """Implements ports.bus.Incoming."""

    def __init__(self, bus: HostBus, incoming: Incoming) -> None:
        self._bus, self._incoming = bus, incoming
        self.subject, self.payload = incoming.subject, incoming.payload

    async def reply(self, payload: bytes) -> None:
        """See ports.bus.Incoming."""
        if self._bus.alive:
            await self._incoming.reply(payload)


class SimHost:
    """A host, and its agent as others see it."""

    def __init__(self, made: MadeHost, number: int, bus: Bus, truth: Truth, clock: Clock) -> None:
        self.made, self.name, self._number, self._truth = made, made.name, number, truth
        self.bus = HostBus(bus)
        self.journal = SimJournal(clock)
        self._clock = clock
        self.server: RpcServer | None = None
        self.outgoing: dict[str, Outgoing] = {}
        """By migration: those that are driven now."""
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.declined: set[str] = set()
        """Migrations that are not to begin here, in this life of the agent."""
        self.refused: set[str] = set()
        """Migrations that are not to arrive here."""
        self.to_hint = self.to_list = False
        """Something is new in its journal, and among its VMs."""
        self._known: dict[str, VmSummary] = {}
        self._seq, self._digest = 0, ""
        self.facts = self._described()
        self._raw = self.facts.model_dump(mode="json")
        self._since = clock.now().isoformat()

    @property
    def alive(self) -> bool:
        """Has it power?"""
        return self.bus.alive

    def new_life(self) -> RpcServer:
        """Its agent starts."""
        self.bus.alive, self.journal.boot = True, uuid4().hex
        self._known, self._seq, self.declined = {}, 0, set()
        self.look()
        self.server = RpcServer(self.bus, self.name, cast(Journal, self.journal), self._clock)
        return self.server

    # ------------------------------------------------------------ what it says by itself

    def _described(self) -> HostFacts:
        made, number = self.made, self._number
        self.cpu = _cpu(made.newer)
        return HostFacts(
            name=made.name,
            host_uuid=f"00000000-0000-4000-8000-{number:012d}",
            address=f"10.{number // 65536}.{number // 256 % 256}.{number % 256}",
            libvirt_version=11_003_000,
            qemu_version=10_000_002,
            memory_total_bytes=made.memory_bytes,
            memory_free_bytes=made.memory_bytes,
            cpus=made.cpus,
            cpu_model=self.cpu.model,
            cpu_id=digest_of(self.cpu.text),
            instances_dir="/var/lib/libvirt/images",
            disk_free_bytes=2_000 << 30,
            abilities=Abilities(link_bytes_s=int(made.link_bytes_s), insecure=True),
        )

    def described(self) -> Data:
        """Its facts, as they are now."""
        return self._raw | {"memory_free_bytes": max(0, self._truth.free_bytes(self.name))}

    async def beat(self) -> None:
        """Send a beacon."""
        data: Data = {
            "name": self.name,
            "host": self.described(),
            "trouble": None,
            "warning": None,
            "boot": self.journal.boot,
            "version": "",
            "journal_last": len(self.journal.lines),
            "vms": {"seq": self._seq, "digest": self._digest},
            "revoked": 0,
            "bus_since": self._since,
        }
        await self.say(host_topic(self.name), data)

    async def say(self, topic: str, data: Data) -> None:
        """Send a hint. It may be lost."""
        payload = json.dumps({"v": 1, "sender": self.name, "data": data}, separators=(",", ":")).encode()
        with suppress(SternaError):  # the bus is away: the hint of a real agent is lost as well
            await self.bus.publish(event_subject(topic), payload)

    async def progress(self, migration: str, sample: Data) -> None:
        """A sample of a running copy."""
        data = {"sample": sample, "at": self._clock.now().isoformat(timespec="milliseconds")}
        await self.say(f"progress.{token(self.name)}.{migration}", data)

    async def flush(self) -> None:
        """Hint at what is new."""
        if self.to_hint:
            self.to_hint = False
            await self.say(f"journal.{token(self.name)}", {"last": len(self.journal.lines)})
        if self.to_list:
            self.to_list = False
            if change := self.look():
                await self.say(vms_topic(self.name), change)

    # ------------------------------------------------------------ its VMs

    def vms(self) -> list[VmSummary]:
        """As its hypervisor lists them."""
        return [self.summary(vm) for vm in sorted(self._truth.defined[self.name])]

    def summary(self, vm: str) -> VmSummary:
        """One of them."""
        made = self._truth.made.vms[vm]
        state = GuestState.SHUTOFF
        if self._truth.runs_on.get(vm) == self.name:
            state = GuestState.RUNNING
        elif vm in self._truth.holds[self.name]:
            state = GuestState.PAUSED
        return VmSummary(uuid=vm, name=made.name, state=state, memory_bytes=made.memory_bytes, vcpus=made.vcpus)

    def look(self) -> Data | None:
        """List the VMs; what has changed, None where nothing has."""
        vms = {vm.uuid: vm for vm in self.vms()}
        seen = [vm for uuid, vm in vms.items() if self._known.get(uuid) != vm]
        gone = sorted(self._known.keys() - vms.keys())
        if not (seen or gone) and self._seq:
            return None
        self._known, self._seq, self._digest = vms, self._seq + 1, digest_of(text_of(vms.values()))
        return self._counted() | {"seen": [vm.model_dump(mode="json") for vm in seen], "gone": gone}

    def _counted(self) -> Data:
        return {"boot": self.journal.boot, "seq": self._seq, "digest": self._digest}

    async def whole(self) -> Data:
        """The answer to `list_vms`. What has changed is told first."""
        if change := self.look():
            await self.say(vms_topic(self.name), change)
        return self._counted() | {"vms": [vm.model_dump(mode="json") for vm in self._known.values()]}
