"""`/v1`: hosts and VMs."""

from __future__ import annotations

from fastapi import APIRouter, Request

from sterna.api.access import allow, needs
from sterna.api.fleet_models import (
    AuditIn,
    AuditOut,
    BusOut,
    DeadIn,
    DeathOut,
    HostOut,
    HostPatch,
    HostsOut,
    VmDetailOut,
    VmOut,
    VmsOut,
)
from sterna.api.problems import documented
from sterna.api.serving import Served
from sterna.controller.records.members import INSECURE
from sterna.domain.access import Action
from sterna.domain.plain_text import printable

router = APIRouter(prefix="/v1")
_READ = [needs(Action.READ)]


@router.get("/hosts", summary="List hosts", tags=["hosts"], dependencies=_READ)
async def list_hosts(controller: Served) -> HostsOut:
    """All hosts that ever sent a heartbeat, by name."""
    bus = controller.bus_state()
    return HostsOut(
        hosts=[HostOut.of(h, bus) for h in await controller.registry.hosts()],
        bus=BusOut.of(bus),
        beacons_refused=controller.registry.beacons_refused,
        insecure=INSECURE if controller.members.insecure else None,
    )


@router.get("/hosts/{name}", summary="Show a host", tags=["hosts"], dependencies=_READ, responses=documented(404))
async def show_host(name: str, controller: Served) -> HostOut:
    """One host."""
    return HostOut.of(await controller.registry.host(name), controller.bus_state())


@router.patch("/hosts/{name}", summary="Put a host into maintenance, or out of it", tags=["hosts"],
              dependencies=[needs(Action.MAINTENANCE)], responses=documented(404, 422))  # fmt: skip
async def patch_host(name: str, change: HostPatch, controller: Served) -> HostOut:
    """A host in maintenance takes no VMs. Its own keep running."""
    host = await controller.registry.set_maintenance(name, change.maintenance, printable(change.reason))
    return HostOut.of(host, controller.bus_state())


@router.get("/hosts/{name}/declare-dead", summary="What declaring a host dead would do", tags=["hosts"],
            dependencies=_READ, responses=documented(404))  # fmt: skip
async def plan_death(name: str, controller: Served) -> DeathOut:
    """Per migration, as the agents that are left see it now. Changes nothing."""
    return DeathOut.of(await controller.deaths.plan(name))


@router.post("/hosts/{name}/declare-dead", summary="Declare a host dead and fenced", tags=["hosts"],
             dependencies=[needs(Action.DECLARE_DEAD)], responses=documented(404, 422))  # fmt: skip
async def declare_dead(name: str, word: DeadIn, controller: Served) -> DeathOut:
    """For a host that will not come back: its migrations are ended without it. Refused while it answers, and unless
    `fenced` is true. May be repeated."""
    return DeathOut.of(await controller.deaths.declare(name, fenced=word.fenced))


@router.post("/hosts/{name}/declare-alive", summary="Take back that a host is dead", tags=["hosts"],
             dependencies=[needs(Action.DECLARE_ALIVE)], responses=documented(404))  # fmt: skip
async def declare_alive(name: str, controller: Served) -> HostOut:
    """What has been done because of the declaration stays done."""
    return HostOut.of(await controller.deaths.take_back(name), controller.bus_state())


@router.post("/audit", summary="Look for leftovers", tags=["hosts"], dependencies=[needs(Action.AUDIT)],
             responses=documented(404, 422))  # fmt: skip
async def audit(wanted: AuditIn, controller: Served, request: Request) -> AuditOut:
    """Resources that no open migration owns, with the evidence for each. With `repair`, for which the role is
    admin, what is proven safe is checked once more and removed. Everything else is left alone, with the reason."""
    if wanted.repair:
        await allow(request, Action.REPAIR)
    return AuditOut.of(await controller.audits.audit(wanted.host, repair=wanted.repair))


@router.get("/vms", summary="List VMs", tags=["VMs"], dependencies=_READ)
async def list_vms(controller: Served) -> VmsOut:
    """All VMs, asked of every host that is up."""
    listing = await controller.inventory.vms()
    return VmsOut.of(listing)


@router.get("/vms/{vm}", summary="Show a VM", tags=["VMs"], dependencies=_READ, responses=documented(404, 422))
async def show_vm(vm: str, controller: Served) -> VmDetailOut:
    """One VM by name or UUID, with its disks and NICs."""
    found, details = await controller.inventory.show(vm)
    return VmDetailOut(**VmOut.of(found).model_dump(), details=details)
