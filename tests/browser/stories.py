"""What the scene's migrations write into their journals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sterna.domain.access import Action, Actor, UserRole
from sterna.domain.copying import CompletedJob, DestinationDisk, DestinationNic, JobSample
from sterna.domain.entries.source import Answer
from sterna.domain.errors import Permanent
from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import Data, Vm
from sterna.domain.objective import Asked
from tests.unit.domain.journals import Book

if TYPE_CHECKING:
    from tests.browser.scene import Scene

__all__ = ["ASKED", "LEFTOVERS", "MARA", "SAMPLES", "Action"]
MIB = 2**20
ASKED = Asked()
MARA = Actor(name="token:mara", role=UserRole.OPERATOR)
MEMORY = 32 * 1024 * MIB
SAMPLE_MS = 500

LEFTOVERS: list[Data] = [
    {
        "kind": "tap",
        "host": "kvm-b03",
        "subject": "tapaaaaaaaa0",
        "vm": "aaaaaaaa-0000-4000-8000-000000000030",
        "why": "no guest of this host has it, and its migration was rolled back at 10:14:02",
        "safety": "safe",
        "repair": "unplug it from br-int and delete it",
    },
    {
        "kind": "files",
        "host": "kvm-b03",
        "subject": "/var/lib/libvirt/images/db-orders-09.qcow2.sterna-f0000000",
        "vm": "aaaaaaaa-0000-4000-8000-000000000030",
        "why": "no open migration owns it, but another host that may have it open does not answer: kvm-c05",
        "safety": "cannot-tell",
        "repair": "",
    },
]


def samples(passes: Iterable[tuple[int, int, float, float]]) -> list[JobSample]:
    """One every half second of each pass: its number, its bytes, and MiB/s sent and dirtied."""
    found, processed, elapsed = list[JobSample](), 0, 0
    for number, size, rate, dirty in passes:
        left = size
        while left > 0:
            step = min(left, int(rate * MIB * SAMPLE_MS / 1000))
            left, processed, elapsed = left - step, processed + step, elapsed + SAMPLE_MS
            wave = 1 + 0.06 * ((elapsed // SAMPLE_MS) % 5 - 2)
            found.append(
                JobSample(
                    elapsed_ms=elapsed,
                    memory_total=MEMORY,
                    memory_processed=processed,
                    memory_remaining=left,
                    memory_rate=int(rate * MIB * wave),
                    dirty_rate=int(dirty * MIB * (2 - wave)),
                    iteration=number,
                    downtime_ms=180,
                )
            )
    return found


COPY = samples(
    [(1, 30720 * MIB, 1900, 210), (2, 3400 * MIB, 780, 340), (3, 1500 * MIB, 780, 300), (4, 600 * MIB, 780, 280)]
)
SAMPLES, LATER = COPY[:38], COPY[38:-1]
"""Of one whose link becomes slower in its second pass."""


def _books(scene: Scene, id: str) -> tuple[Migration, Book, Book]:
    migration = next(a.migrations[id] for a in scene.bus.agents.values() if id in a.migrations)
    source = Book(Role.SOURCE, migration=migration, mono_ms=52_000.0)
    return migration, source, Book(Role.DESTINATION, boot="life-1", mono_ms=777_000.0, migration=migration)


def _prepared(scene: Scene, id: str) -> tuple[Migration, Book, Book]:
    """Up to the copy, with steps that take different times."""
    migration, source, destination = _books(scene, id)
    uuid, host = migration.vm_uuid, scene.host(migration.source)
    vm = Vm.model_validate(scene.bus._details(host, host.vms[uuid]))
    disks = [DestinationDisk(target=one.target, kind=one.kind, path=one.path, copied=True) for one in vm.disks]
    nics = [DestinationNic(mac=one.mac, plug=one.plug, bridge="br-tenant") for one in vm.nics]
    there, here = (scene.host(name).facts().address for name in (migration.destination, migration.source))
    answer = Answer(disks=tuple(disks), nics=tuple(nics), listens={here: there}, address=there)
    source.status("preparing").step("P1")
    source.write(Kind.INTENT, "P2", "snapshot-volumes")
    source.write(Kind.DONE, "P2", "snapshot-volumes", {"vm": vm.model_dump(mode="json")}).intent("P3")
    destination.accepted().step("P4", "P5").note("P6").step("P7")
    destination.tick_ms = 64.0
    destination.step("P8", "P9", "P10")
    source.tick_ms = 41.0
    source.done("P3").write(Kind.NOTE, "P11", "pre-live-migration-result", answer.model_dump(mode="json"))
    return migration, source.step("P12"), destination


def _sampled(book: Book, some: Iterable[JobSample]) -> Book:
    """As much time as they took. Of a copy's samples a journal has the passes only."""
    seen = set[int | None]()
    for one in some:
        book.mono_ms += SAMPLE_MS
        if one.iteration not in seen:
            seen.add(one.iteration)
            book.write(Kind.NOTE, "M3", "iteration", {"iteration": one.iteration})
    return book


def complete(scene: Scene, id: str) -> None:
    """With a report that has everything."""
    migration, source, destination = _prepared(scene, id)
    source.status("migrating").step("M1", "M2").intent("M4")
    some = samples([(1, 3900 * MIB, 1100, 45), (2, 310 * MIB, 1050, 40), (3, 36 * MIB, 900, 20)])
    _sampled(source, some)
    parts = {"last_pass_ms": 31.4, "stop_ms": 3.2, "device_state_ms": 18.9}
    source.write(Kind.NOTE, "M4", "switch-over", parts)
    source.done("M4").note("M5").status("post-migrating")
    source.step("F1", "F2", "F3", "F4", "F5", "F10", "F11").status("completed").end()
    destination.write(Kind.NOTE, "M4", "arrival", {"resume_ms": 11.3, "network_ms": 4.1})
    job = CompletedJob(
        total_ms=4200,
        downtime_ms=42,
        downtime_net_ms=34,
        memory_processed=4246 * MIB,
        memory_total=4096 * MIB,
        iterations=3,
    )
    arrived = {"host": migration.destination, "power_state": "running", "task_state": None, "job": job.model_dump()}
    destination.step("F6", "F7").step("F8", data=arrived).step("F9").end()
    scene.host(migration.source).write(source)
    scene.host(migration.destination).write(destination)
    scene.host(migration.destination).vms[migration.vm_uuid] = scene.host(migration.source).vms.pop(
        migration.vm_uuid
    )
    scene.host(migration.destination).disks[migration.vm_uuid] = scene.host(migration.source).disks[
        migration.vm_uuid
    ]


def fail(scene: Scene, id: str) -> None:
    """Its copy, which has begun, breaks, and everything is rolled back."""
    migration, source, destination = _books(scene, id)
    source.mono_ms, destination.mono_ms = source.mono_ms + 9_000, destination.mono_ms + 9_000
    why = f"the connection to {migration.destination} broke: end of file while reading data"
    error = Permanent(
        why, fix=f"check the migration network between {migration.source} and {migration.destination}"
    )
    source.failed("M4", error, final=True)
    source.write(
        Kind.NOTE, "M6", "copy-failed", {"why": "both hypervisors say that the guest stayed", "libvirt": why}
    )
    source.write(Kind.COMPENSATING, data={"error": error.to_wire()})
    source.status("rolling-back", why).step("R0", "R1", "R2", "R3", "R4", "R6", "R8").status("failed", why).end()
    destination.step("R0", "R3", "R5", "R7").end()
    scene.host(migration.source).write(source)
    scene.host(migration.destination).write(destination)


def begin_copy(scene: Scene, id: str) -> None:
    """Prepared, and copying."""
    migration, source, destination = _prepared(scene, id)
    source.status("migrating").step("M1", "M2").intent("M4")
    _sampled(source, [JobSample(iteration=1), JobSample(iteration=2)])
    scene.host(migration.source).write(source)
    scene.host(migration.destination).write(destination)


def abort(scene: Scene, id: str) -> None:
    """What an abort leads to."""
    migration, source, _ = _books(scene, id)
    source.mono_ms += 9_000
    source.status("rolling-back", "a user asked for it").step("R0", "R1", "R8").status("cancelled", "aborted").end()
    scene.host(migration.source).write(source)


async def copy_on(scene: Scene, id: str, some: Iterable[JobSample]) -> None:
    """The source tells the controller these samples."""
    source = next(name for name, agent in scene.bus.agents.items() if id in agent.migrations)
    for one in some:
        await scene.controller.copies.sampled(source, id, {"sample": one.model_dump(), "at": "x"})
