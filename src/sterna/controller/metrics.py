"""A controller's metrics at one moment: from its records, and from what it knows of hosts and copies.

One transaction for all counts, whatever the size of the fleet. Nothing is asked of hosts. What depends on the
records is left out while the database does not answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import get_args

import structlog

from sterna.controller.controller import Controller
from sterna.controller.records.registry import Host, HostState
from sterna.domain.capabilities import dotted
from sterna.domain.errors import SternaError
from sterna.domain.fleet.course import UNFINISHED
from sterna.domain.metrics import catalogue
from sterna.domain.metrics.families import Family, Labels, Metric, family, one_of
from sterna.domain.model import GuestState
from sterna.domain.progress import Progress
from sterna.domain.status import FINAL, Status
from sterna.domain.trouble import Trouble
from sterna.ports.fleet import FleetCounts, MigrationRecord
from sterna.ports.operations import OperationRecord, Standing

log = structlog.get_logger(__name__)

MOST_COPIES = 1_000
"""Copies with series of their own. There are some seven for each."""
MOST_OPERATIONS = 100
OPEN = [status.value for status in Status if status not in FINAL]
STATES: tuple[str, ...] = get_args(HostState)


_OF_A_COPY: dict[Metric, Callable[[Progress], float | None]] = {
    catalogue.COPY_TOTAL: lambda progress: progress.bytes_total,
    catalogue.COPY_PROCESSED: lambda progress: progress.bytes_processed,
    catalogue.COPY_REMAINING: lambda progress: progress.bytes_remaining,
    catalogue.COPY_RATE: lambda progress: progress.rate_bytes_s,
    catalogue.COPY_DIRTY_RATE: lambda progress: progress.dirty_rate_bytes_s,
    catalogue.COPY_PROGRESS: lambda progress: progress.percent / 100,
    catalogue.COPY_ETA: lambda progress: progress.eta_s,
}


class ControllerMetrics:
    """Of one controller."""

    def __init__(
        self,
        controller: Controller,
        version: str,
        expires: Callable[[], datetime | None] = lambda: None,
        warning: Callable[[], Trouble | None] = lambda: None,
    ) -> None:
        """`expires`, `warning`: of this process's own certificate."""
        self._controller, self._version = controller, version
        self._expires, self._warning = expires, warning

    async def families(self) -> list[Family]:
        """As of now. Raises nothing."""
        found = [*self._own(), *self._controller.totals.families(), *self._copies()]
        found.append(self._controller.notifications.sent())
        try:
            hosts = await self._controller.registry.hosts()
            counts = await self._controller.fleet.counts()
            operations = await self._controller.fleet.unfinished_operations()
            notifications = await self._controller.notifications.pending()
        except SternaError as error:
            log.info("the records are missing in the metrics", why=error.message)
            return [family(catalogue.DATABASE_UP, 0), *found]
        present = [host for host in hosts if not host.removed]
        shown = operations[:MOST_OPERATIONS]
        return [
            family(catalogue.DATABASE_UP, 1),
            *found,
            *_hosts(present),
            *_counts(counts, present),
            *_ends(shown),
            notifications,
        ]

    def _own(self) -> Iterator[Family]:
        controller, expires = self._controller, self._expires()
        yield family(catalogue.BUILD_INFO, {(self._version, "controller"): 1})
        yield family(catalogue.BUS_CONNECTED, controller.bus_state().connected)
        yield family(catalogue.CERTIFICATE_EXPIRY, expires.timestamp() if expires is not None else None)
        yield family(catalogue.WARNING, self._warning() is not None)
        yield family(catalogue.DEAD_LETTERS, len(controller.dead_letters.kept))
        yield family(catalogue.HEARTBEATS_REFUSED, controller.registry.beacons_refused)

    def _copies(self) -> Iterator[Family]:
        running = {_labels(record): record.progress for record in self._controller.copies.running()[:MOST_COPIES]}
        for metric, value in _OF_A_COPY.items():
            known = {labels: value(progress) for labels, progress in running.items()}
            yield family(metric, {labels: float(one) for labels, one in known.items() if one is not None})


def _labels(record: MigrationRecord) -> Labels:
    migration = record.migration
    return migration.vm_uuid, migration.vm_name, migration.source, migration.destination


def _hosts(hosts: list[Host]) -> Iterator[Family]:
    states = {(host.name, s): on for host in hosts for s, on in one_of(STATES, host.state).items()}
    yield family(catalogue.HOST_STATE, states)
    described = [host for host in hosts if host.described]
    versions = {(h.name, dotted(h.facts.libvirt_version), dotted(h.facts.qemu_version)): 1.0 for h in described}
    yield family(catalogue.HOST_INFO, versions)
    yield family(catalogue.HOST_MAINTENANCE, {(host.name,): float(host.maintenance) for host in hosts})
    yield family(catalogue.HOST_WARNING, {(host.name,): float(host.warning is not None) for host in hosts})
    seen = {(host.name,): at for host in hosts if (at := _unix(host.seen_at)) is not None}
    yield family(catalogue.HOST_LAST_SEEN, seen)
    yield family(catalogue.HOST_MEMORY, {(h.name,): float(h.facts.memory_total_bytes) for h in described})
    yield family(catalogue.HOST_MEMORY_FREE, {(h.name,): float(h.facts.memory_free_bytes) for h in described})
    free = {(h.name,): float(h.facts.disk_free_bytes) for h in described if h.facts.disk_free_bytes is not None}
    yield family(catalogue.HOST_DISK_FREE, free)


def _counts(counts: FleetCounts, hosts: list[Host]) -> Iterator[Family]:
    of_hosts, states = Counter({host.name: 0 for host in hosts}), Counter({state.value: 0 for state in GuestState})
    for (host, state), number in counts.vms.items():
        states[state] += number
        if host in of_hosts:
            of_hosts[host] += number
    yield family(catalogue.HOST_VMS, _single(of_hosts))
    yield family(catalogue.VMS, _single(states))
    statuses, moving = Counter(dict.fromkeys(OPEN, 0)), Counter[Labels]()
    for (status, source, destination), number in counts.migrations.items():
        statuses[status] += number
        for host, direction in ((source, "out"), (destination, "in")):
            if host in of_hosts:
                moving[host, direction] += number
    yield family(catalogue.MIGRATIONS, _single(statuses))
    yield family(catalogue.HOST_MIGRATIONS, {labels: float(number) for labels, number in moving.items()})
    known = dict.fromkeys(sorted(status.value for status in UNFINISHED), 0)
    yield family(catalogue.OPERATIONS, _single(known | counts.operations))


def _ends(operations: list[OperationRecord]) -> Iterator[Family]:
    standing: dict[str, Standing] = {one.id: one.standing for one in operations}
    started = {(one.id,): at for one in operations if (at := _unix(one.created_at)) is not None}
    yield family(catalogue.OPERATION_STARTED, started)
    looked = {id: (stands, at) for id, stands in standing.items() if (at := _unix(stands.at)) is not None}
    promised = {(id,): at + s.promised_s for id, (s, at) in looked.items() if s.promised_s is not None}
    yield family(catalogue.OPERATION_PROMISED_END, promised)
    late = {(id,): stands.late_s for id, stands in standing.items() if stands.late_s is not None}
    yield family(catalogue.OPERATION_LATE, late)
    vms = {
        (id, state): float(number)
        for id, s in standing.items()
        for state, number in (("running", s.running), ("waiting", len(s.waits)), ("left", len(s.left)))
    }
    yield family(catalogue.OPERATION_VMS, vms)


def _single(numbers: Mapping[str, int]) -> dict[Labels, float]:
    return {(name,): float(number) for name, number in numbers.items()}


def _unix(at: str) -> float | None:
    """None for '' and for what is no time."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return None
