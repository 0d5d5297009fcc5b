"""The page of the fleet: every host, by failure domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.api.web.pages import page, place_of
from sterna.controller.records.members import INSECURE
from sterna.controller.records.registry import Host, HostState
from sterna.domain import amounts
from sterna.domain.access import Action
from sterna.domain.status import Status
from sterna.ports.bus import BusState
from sterna.ports.fleet import Page

router = APIRouter(include_in_schema=False)

STATES = ("up", "degraded", "down", "dead")
NO_DOMAIN = "Without a failure domain"
MOST_UNDER_WAY = 20
UNDER_WAY = tuple(status for status in Status if not status.final)


class Cell(NamedTuple):
    """One host in the grid. Plain values: there may be a thousand."""

    name: str
    state: HostState
    closed: bool
    used_percent: int | None
    memory: str
    note: str


class Filters(NamedTuple):
    """Which hosts to show."""

    name: str = ""
    states: frozenset[str] = frozenset()
    domain: str = ""
    closed: bool = False

    def take(self, host: Host, domain: str) -> bool:
        """Is it one of them?"""
        return (
            self.name in host.name
            and (not self.states or host.state in self.states)
            and (not self.domain or self.domain == domain)
            and (host.maintenance or not self.closed)
        )


def cell(host: Host, bus: BusState) -> Cell:
    """A host as its cell."""
    total, free = host.facts.memory_total_bytes, host.facts.memory_free_bytes
    trouble = host.not_usable(bus)
    return Cell(
        name=host.name,
        state=host.state,
        closed=host.maintenance,
        used_percent=round(100 * (total - free) / total) if host.described and total > 0 else None,
        memory=f"{amounts.size(free)} of {amounts.size(total)} free" if host.described else "memory unknown",
        note=trouble.why if trouble else host.maintenance_reason,
    )


def by_domain(hosts: Iterable[Host], domains: Mapping[str, str], bus: BusState) -> dict[str, list[Cell]]:
    """Failure domain -> its hosts; those without one are last."""
    found: dict[str, list[Cell]] = {}
    for host in hosts:
        found.setdefault(domains[host.name], []).append(cell(host, bus))
    return {name or NO_DOMAIN: found[name] for name in sorted(found, key=lambda name: (not name, name))}


@router.get("/", dependencies=[needs(Action.READ)])
async def show_fleet(
    request: Request,
    controller: Served,
    name: Annotated[str, Query(max_length=255)] = "",
    state: Annotated[list[str] | None, Query(max_length=8)] = None,
    domain: Annotated[str, Query(max_length=255)] = "",
    closed: Annotated[bool, Query()] = False,
) -> HTMLResponse:
    """All hosts, and what is under way."""
    wanted = Filters(name, frozenset(state or ()), domain, closed)
    bus, hosts = controller.bus_state(), await controller.registry.hosts()
    known = await controller.failure_domains()
    domains = {host.name: known.get(host.name, "") for host in hosts}
    shown = [host for host in hosts if wanted.take(host, domains[host.name])]
    return page(
        request,
        "fleet.html",
        wanted=wanted,
        address=place_of(request),
        states=STATES,
        domains=sorted({one for one in domains.values() if one}),
        groups=by_domain(shown, domains, bus),
        hosts=len(hosts),
        shown=len(shown),
        counts=Counter(host.state for host in hosts),
        closed_hosts=sum(host.maintenance for host in hosts),
        memory_total=sum(host.facts.memory_total_bytes for host in hosts if host.described),
        memory_free=sum(host.facts.memory_free_bytes for host in hosts if host.described),
        bus=bus,
        insecure=INSECURE if controller.members.insecure else "",
        beacons_refused=controller.registry.beacons_refused,
        operations=await controller.fleet.unfinished_operations(),
        migrations=await controller.migrations(Page(statuses=UNDER_WAY, limit=MOST_UNDER_WAY, holding=True)),
    )
