"""A thousand hosts' agents in one process, as light as their messages allow: they speak the product's own protocol
over one connection to a real NATS server. Used by `records.py`.

What they do not have is a hypervisor: a migration is a script of journal entries, a copy is a stream of samples.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from uuid import uuid4

from sterna.adapters.nats.bus import NatsBus
from sterna.domain.copying import JobSample
from sterna.domain.errors import NotFound, SternaError
from sterna.domain.hosts import HostFacts, VmSummary
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Data, GuestState, Vm
from sterna.domain.sightings import text_of
from sterna.kit.digests import digest_of
from sterna.ports.bus import Incoming
from sterna.rpc.envelope import Event, Reply, Request, decode_request, encode
from sterna.rpc.subjects import event_subject

GIB = 2**30
SAMPLE_EVERY_S = 0.5
NOTE_EVERY_S = 5.0
"""A copy's next pass, as its source writes it down."""
SLICES = 50
"""Beacons go out in so many portions a second: real hosts do not beat in step."""


def now() -> str:
    """As agents write it into their journals."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Host:
    """One simulated host."""

    number: int
    boot: str = field(default_factory=lambda: uuid4().hex)
    vms: dict[str, VmSummary] = field(default_factory=dict)
    journal: list[Entry] = field(default_factory=list)
    migrations: dict[str, Migration] = field(default_factory=dict)
    seq: int = 1
    """Of the changes of its VMs."""
    digest: str = ""

    def count(self) -> None:
        """Its VMs have changed."""
        self.seq, self.digest = self.seq + 1, digest_of(text_of(self.vms.values()))

    @property
    def name(self) -> str:
        """Its agent's name."""
        return f"host{self.number}"

    def facts(self) -> HostFacts:
        """What its beacon says; free memory is never the same twice."""
        return HostFacts(
            name=self.name,
            host_uuid=f"00000000-0000-4000-8000-{self.number:012d}",
            address=f"10.{self.number // 65536}.{self.number // 256 % 256}.{self.number % 256}",
            libvirt_version=11_003_000,
            qemu_version=10_000_002,
            memory_total_bytes=512 * GIB,
            memory_free_bytes=128 * GIB + random.randrange(GIB),  # noqa: S311
            cpus=128,
            cpu_model="EPYC-Milan",
            instances_dir="/var/lib/libvirt/images",
            disk_free_bytes=2_000 * GIB,
        )

    def write(self, migration: Migration, role: Role, kind: Kind, **more: object) -> None:
        """One more journal entry."""
        seq = len(self.journal) + 1
        values: Data = {"row": "", "name": "", "data": {}} | more
        self.journal.append(
            Entry(
                seq=seq,
                migration_id=migration.id,
                epoch=migration.epoch,
                role=role,
                kind=kind,
                at=now(),
                mono_ms=time.monotonic() * 1000,
                boot=self.boot,
                **values,
            )
        )
        self.migrations.setdefault(migration.id, migration)


class Crowd:
    """All hosts, on one bus."""

    def __init__(self, bus: NatsBus, hosts: int, vms: int) -> None:
        self._bus = bus
        self.hosts = {host.name: host for host in map(Host, range(1, hosts + 1))}
        numbers = count(1)
        for host in self.hosts.values():
            for _ in range(vms):
                vm = _vm(next(numbers))
                host.vms[vm.uuid] = vm
            host.count()
        self.calls: dict[str, int] = {}
        """Calls of the controllers so far, by method."""
        self._copies: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> list[asyncio.Task[None]]:
        """Answer calls and send beacons until the tasks are cancelled."""
        await self._bus.subscribe("sterna.agent.*.call.*", self._on_call)
        return [asyncio.create_task(self._beat())]

    async def _beat(self) -> None:
        everyone = list(self.hosts.values())
        began, turn = time.monotonic(), 0
        while True:
            for host in everyone[turn % SLICES :: SLICES]:
                await self._announce(host, f"host.{host.name}", self._beacon(host))
            turn += 1
            await asyncio.sleep(max(0.0, began + turn / SLICES - time.monotonic()))

    def _beacon(self, host: Host) -> Data:
        return {
            "name": host.name,
            "host": host.facts().model_dump(mode="json"),
            "trouble": None,
            "boot": host.boot,
            "journal_last": len(host.journal),
            "vms": {"seq": host.seq, "digest": host.digest},
            "bus_since": "2026-11-29T11:00:00+00:00",
        }

    async def _announce(self, host: Host, topic: str, data: Data) -> None:
        payload = json.dumps({"v": 1, "sender": host.name, "data": data}, separators=(",", ":")).encode()
        await self._bus.publish(event_subject(topic), payload)

    # ------------------------------------------------------------ calls

    async def _on_call(self, incoming: Incoming) -> None:
        request = decode_request(incoming.payload)
        host = self.hosts.get(incoming.subject.split(".")[2])
        if host is None:
            return
        self.calls[request.method] = self.calls.get(request.method, 0) + 1
        try:
            reply = Reply(kind="result", id=request.id, data=await self._answer(host, request))
        except SternaError as error:
            reply = Reply.of_error(request.id, error)
        await incoming.reply(encode(reply))

    async def _answer(self, host: Host, request: Request) -> Data:
        params = request.params
        match request.method:
            case "list_vms":
                vms = [vm.model_dump(mode="json") for vm in host.vms.values()]
                return {"vms": vms, "boot": host.boot, "seq": host.seq, "digest": host.digest}
            case "show_vm":
                if params["vm"] not in host.vms:
                    raise NotFound(f"no VM {params['vm']} on {host.name}")
                return {"vm": Vm(**host.vms[params["vm"]].model_dump()).model_dump(mode="json")}
            case "journal_since":
                return _page(host, params["cursor"], params["limit"])
            case "check_migration":
                return {"refusals": []}
            case "start_migration":
                return {"migration": (await self._begin(host, params)).model_dump(mode="json"), "repeated": False}
            case _:
                return {}

    async def _begin(self, host: Host, params: Data) -> Migration:
        vm = host.vms[params["vm"]]
        migration = Migration(
            id=params["id"],
            epoch=1,
            vm_uuid=vm.uuid,
            vm_name=vm.name,
            source=host.name,
            destination=params["destination"],
            options=params["options"],
            created_at=now(),
            requested_by=params["requested_by"],
        )
        host.write(migration, Role.SOURCE, Kind.ACCEPTED, data=migration.model_dump(mode="json"))
        self._copies[migration.id] = asyncio.create_task(self._copy(host, migration))
        return migration

    # ------------------------------------------------------------ copies

    async def _copy(self, host: Host, migration: Migration) -> None:
        """A guest that writes as fast as it is copied."""
        for row in ("P1", "P2", "P3", "M1"):
            host.write(migration, Role.SOURCE, Kind.INTENT, row=row)
            host.write(migration, Role.SOURCE, Kind.DONE, row=row)
        host.write(migration, Role.SOURCE, Kind.STATUS, data={"status": "preparing", "reason": ""})
        host.write(migration, Role.SOURCE, Kind.STATUS, data={"status": "migrating", "reason": ""})
        await self._hint(host)
        begun = noted = time.monotonic()
        for iteration in count(1):
            await asyncio.sleep(SAMPLE_EVERY_S)
            elapsed = time.monotonic() - begun
            sample = JobSample(
                elapsed_ms=int(elapsed * 1000),
                memory_total=35 * GIB,
                memory_processed=int(elapsed * GIB),
                memory_remaining=8 * GIB,
                memory_rate=GIB,
                dirty_rate=GIB // 2,
                iteration=iteration,
            )
            data = {"sample": sample.model_dump(mode="json"), "at": now()}
            await self._announce(host, f"progress.{host.name}.{migration.id}", data)
            if time.monotonic() - noted >= NOTE_EVERY_S:
                noted = time.monotonic()
                host.write(migration, Role.SOURCE, Kind.NOTE, row="M3", name="iteration")
                await self._hint(host)

    async def finish(self) -> int:
        """End all copies at once; how many those were."""
        for task in self._copies.values():
            task.cancel()
        ended, self._copies = list(self._copies), {}
        for host in list(self.hosts.values()):
            for migration in [m for m in host.migrations.values() if m.id in ended and m.source == host.name]:
                await self._end(host, self.hosts[migration.destination], migration)
        return len(ended)

    async def _end(self, source: Host, destination: Host, migration: Migration) -> None:
        vm = source.vms.pop(migration.vm_uuid)
        destination.vms[vm.uuid] = vm
        await self._change(source, [], [vm.uuid])
        await self._change(destination, [vm], [])
        source.write(migration, Role.SOURCE, Kind.STATUS, data={"status": "post-migrating", "reason": ""})
        for row in ("F6", "F7", "F8", "F9"):
            destination.write(migration, Role.DESTINATION, Kind.INTENT, row=row)
            data = {"power_state": "running", "host": destination.name} if row == "F8" else {}
            destination.write(migration, Role.DESTINATION, Kind.DONE, row=row, data=data)
        destination.write(migration, Role.DESTINATION, Kind.CLOSED, row="F9")
        for row in ("F1", "F2", "F3", "F4", "F5", "F10", "F11"):
            source.write(migration, Role.SOURCE, Kind.INTENT, row=row)
            source.write(migration, Role.SOURCE, Kind.DONE, row=row)
        source.write(migration, Role.SOURCE, Kind.STATUS, data={"status": "completed", "reason": ""})
        source.write(migration, Role.SOURCE, Kind.CLOSED, row="F11")
        await self._hint(destination)
        await self._hint(source)

    async def _change(self, host: Host, seen: list[VmSummary], gone: list[str]) -> None:
        host.count()
        data = {"boot": host.boot, "seq": host.seq, "digest": host.digest, "gone": gone}
        data["seen"] = [vm.model_dump(mode="json") for vm in seen]
        await self._announce(host, f"vms.{host.name}", data)

    async def _hint(self, host: Host) -> None:
        event = Event(sender=host.name, data={"last": len(host.journal)})
        await self._bus.publish(event_subject(f"journal.{host.name}"), encode(event))


def _vm(number: int) -> VmSummary:
    memory, vcpus = random.Random(number).choice(((2, 1), (4, 2), (8, 4), (32, 8), (64, 16)))  # noqa: S311
    return VmSummary(
        uuid=f"aaaaaaaa-0000-4000-8000-{number:012d}",
        name=f"vm{number}",
        state=GuestState.RUNNING,
        memory_bytes=memory * GIB,
        vcpus=vcpus,
    )


def _page(host: Host, cursor: int, limit: int) -> Data:
    entries = host.journal[cursor : cursor + limit]
    ids = {e.migration_id for e in entries}
    return {
        "entries": [e.model_dump(mode="json") for e in entries],
        "migrations": [host.migrations[i].model_dump(mode="json") for i in ids],
        "last": entries[-1].seq if entries else cursor,
    }
