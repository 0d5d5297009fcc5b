"""`/v1`: hosts and VMs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from sterna.api.access import allow, needs
from sterna.api.dependencies import Cursor, Limit, Served, cursor_of, place_of
from sterna.api.fleet_models import (
    AuditIn,
    AuditOut,
    BusOut,
    DeadIn,
    DeathOut,
    HostOut,
    HostPatch,
    HostsOut,
    PinIn,
    VmDetailOut,
    VmOut,
    VmsOut,
)
from sterna.api.problems import documented
from sterna.controller.records.members import INSECURE
from sterna.controller.records.registry import HostState
from sterna.domain.access import Action
from sterna.domain.model import GuestState
from sterna.domain.plain_text import printable
from sterna.ports.fleet import VmPage

router = APIRouter(prefix="/v1")
_READ = [needs(Action.READ)]


@router.get("/hosts", summary="List hosts", tags=["hosts"], dependencies=_READ, responses=documented(400, 422))
async def list_hosts(
    controller: Served,
    state: Annotated[list[HostState] | None, Query(description="Any of these.")] = None,
    name: Annotated[str, Query(max_length=255, description="Part of the name.")] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> HostsOut:
    """All hosts that have ever sent a heartbeat, sorted by name."""
    bus = controller.bus_state()
    after = place_of(cursor, 1)[0] if cursor is not None else ""
    found = await controller.registry.page(after, limit + 1, name=name, states=state or ())
    return HostsOut(
        hosts=[HostOut.of(h, bus) for h in found[:limit]],
        next_cursor=cursor_of(found[limit - 1].name) if len(found) > limit else None,
        bus=BusOut.of(bus),
        beacons_refused=controller.registry.beacons_refused,
        insecure=INSECURE if controller.members.insecure else None,
    )


@router.get("/hosts/{name}", summary="Show a host", tags=["hosts"], dependencies=_READ, responses=documented(404))
async def show_host(name: str, controller: Served) -> HostOut:
    """One host."""
    return HostOut.of(await controller.registry.host(name), controller.bus_state())


@router.patch("/hosts/{name}", summary="Put a host into maintenance, or out of it", tags=["hosts"],
              dependencies=[needs(Action.MAINTENANCE)], responses=documented(404, 409, 422))  # fmt: skip
async def patch_host(name: str, change: HostPatch, controller: Served) -> HostOut:
    """A host in maintenance accepts no VMs. Its own VMs keep running. 409 while an operation drains it."""
    host = await controller.registry.set_maintenance(name, change.maintenance, printable(change.reason))
    return HostOut.of(host, controller.bus_state())


@router.post("/hosts/{name}/pin", summary="Pin a host's name to another UUID", tags=["hosts"],
             dependencies=[needs(Action.PIN_HOST)], responses=documented(404, 409, 422))  # fmt: skip
async def pin_host(name: str, word: PinIn, controller: Served) -> HostOut:
    """For a host whose `host_uuid` in libvirt was changed: its heartbeats are refused until then, because its name
    is pinned to the old UUID. 409 if the UUID belongs to another host. Idempotent."""
    host = await controller.pins.pin(name, word.host_uuid)
    return HostOut.of(host, controller.bus_state())


@router.get("/hosts/{name}/declare-dead", summary="Show what declaring a host dead would do", tags=["hosts"],
            dependencies=_READ, responses=documented(404))  # fmt: skip
async def plan_death(name: str, controller: Served) -> DeathOut:
    """For each migration, according to the agents of the remaining hosts. Changes nothing."""
    return DeathOut.of(await controller.deaths.plan(name))


@router.post("/hosts/{name}/declare-dead", summary="Declare a host dead and fenced", tags=["hosts"],
             dependencies=[needs(Action.DECLARE_DEAD)], responses=documented(404, 422))  # fmt: skip
async def declare_dead(name: str, word: DeadIn, controller: Served) -> DeathOut:
    """For a host that will not come back: its migrations are ended without it. Refused while the host answers, and
    unless `fenced` is true. Idempotent."""
    return DeathOut.of(await controller.deaths.declare(name, fenced=word.fenced))


@router.post("/hosts/{name}/declare-alive", summary="Withdraw the declaration that a host is dead", tags=["hosts"],
             dependencies=[needs(Action.DECLARE_ALIVE)], responses=documented(404))  # fmt: skip
async def declare_alive(name: str, controller: Served) -> HostOut:
    """Actions already taken because of the declaration are not undone."""
    return HostOut.of(await controller.deaths.take_back(name), controller.bus_state())


@router.post("/audit", summary="Look for leftovers", tags=["hosts"], dependencies=[needs(Action.AUDIT)],
             responses=documented(404, 422))  # fmt: skip
async def audit(wanted: AuditIn, controller: Served, request: Request) -> AuditOut:
    """Lists resources that no open migration owns, with the evidence for each. `repair` needs the role admin: what
    is proven safe to remove is checked again and removed. Everything else is kept, with the reason."""
    if wanted.repair:
        await allow(request, Action.REPAIR)
    return AuditOut.of(await controller.audits.audit(wanted.host, repair=wanted.repair))


@router.get("/vms", summary="List VMs", tags=["VMs"], dependencies=_READ, responses=documented(400, 422))
async def list_vms(
    controller: Served,
    host: Annotated[str | None, Query(max_length=255, description="Only VMs of this host.")] = None,
    state: Annotated[list[GuestState] | None, Query(description="Any of these.")] = None,
    name: Annotated[str, Query(max_length=255, description="Part of the name.")] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> VmsOut:
    """Sorted by name, as reported by their hosts: changes appear within a second or two. A VM that runs on two
    hosts, which must never happen, is listed once for each."""
    after = place_of(cursor, 2) if cursor is not None else None
    page = VmPage(
        after=(after[0], after[1]) if after else None,
        limit=limit,
        host=host,
        name=name,
        states=tuple(state or ()),
    )
    listing = await controller.inventory.page(page)
    return VmsOut.of(listing, cursor_of(*listing.next) if listing.next else None)


@router.get("/vms/{vm}", summary="Show a VM", tags=["VMs"], dependencies=_READ, responses=documented(404, 422))
async def show_vm(vm: str, controller: Served) -> VmDetailOut:
    """A VM by name or UUID, with its disks and NICs."""
    found, details = await controller.inventory.show(vm)
    return VmDetailOut(**VmOut.of(found).model_dump(), details=details)
