"""`/servers/ID/os-volume_attachments`: Cinder asks here before it lets a user delete an attachment (bug 2004555).

What is not proven is 503, never 404 (`domain/compute/attachments.py`).
"""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import APIRouter
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, Call, made_id, rule
from sterna.controller.records.servers import Server
from sterna.domain.compute.attachments import Answer, Say, Seen, judge, judge_unknown_server, live
from sterna.domain.compute.policies import Rule
from sterna.domain.errors import NotFound, SternaError
from sterna.domain.model import Disk, Vm
from sterna.ports.cloud import CloudVolume

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v2.1/servers/{server}/os-volume_attachments")
_SHOWS_ID = 89


@router.get("", dependencies=[rule(Rule.VOLUMES)])
async def list_attachments(server: str, call: Asking) -> dict[str, Any]:
    """All volumes of the server, as its host says now."""
    found = await call.server(server, Rule.VOLUMES)
    details = await _details(call, found)
    if details is None:
        raise HTTPException(503, f"The host of server {server} does not answer: its volumes are not known now.")
    listed = []
    for disk in _volumes(details):
        volume = disk.volume_id or ""
        answer = judge(await _seen(call, found, details, volume), with_id=call.has(_SHOWS_ID))
        if answer.say is Say.UNKNOWN:
            raise _not_known(server, volume, answer)
        listed.append(_view(call, server, disk, answer))
    return {"volumeAttachments": listed}


@router.get("/{volume}", dependencies=[rule(Rule.VOLUME)])
async def show_attachment(server: str, volume: str, call: Asking) -> dict[str, Any]:
    """One of them. 404 says that the volume is not attached, and nothing else does."""
    volume = volume.lower()
    try:
        found = await call.setup.servers.one(server)
    except NotFound:
        raise await _of_unknown_server(call, server, volume) from None
    call.require(Rule.VOLUME, found)  # 403, not 404: Cinder would delete what another project uses
    details = await _details(call, found)
    answer = judge(await _seen(call, found, details, volume), with_id=call.has(_SHOWS_ID))
    if answer.say is Say.UNKNOWN:
        raise _not_known(server, volume, answer)
    disk = next((d for d in _volumes(details) if d.volume_id == volume), None) if details is not None else None
    if answer.say is Say.NOT_ATTACHED or disk is None:
        raise HTTPException(404, f"Instance {server} is not attached to volume {volume[:64]}.")
    return {"volumeAttachment": _view(call, server, disk, answer)}


async def _of_unknown_server(call: Call, server: str, volume: str) -> HTTPException:
    """It may be on a host that is silent, or on one of another Nova that shares this Cinder."""
    listing = await call.controller.inventory.vms()
    if any(vm.uuid == server.lower() for vm in listing.vms):
        return HTTPException(503, f"Server {server[:64]} has just appeared: ask again.")
    seen = await _attachments(call, server, volume)
    answer = judge_unknown_server(seen, complete=listing.complete)
    if answer.say is Say.UNKNOWN:
        return _not_known(server, volume, answer)
    return HTTPException(404, f"Instance {server[:64]} could not be found.")


def _not_known(server: str, volume: str, answer: Answer) -> HTTPException:
    log.info("nothing is said about a volume", server=server[:64], volume=volume[:64], why=answer.why)
    why = (
        f"Whether and how volume {volume[:64]} is attached to server {server[:64]} is not known now: {answer.why}."
    )
    return HTTPException(503, why)


async def _details(call: Call, server: Server) -> Vm | None:
    """As its host's libvirt has it now; None where that cannot be asked."""
    return await call.controller.inventory.details(server.vm)


async def _seen(call: Call, server: Server, details: Vm | None, volume: str) -> Seen:
    used = None if details is None else any(d.volume_id == volume for d in _volumes(details))
    unnamed = details is not None and _has_unnamed(details)
    wanted = used is not None and not server.moving and (call.has(_SHOWS_ID) if used else unnamed)
    known = await _attachments(call, server.vm.uuid, volume) if wanted else None
    return Seen(used=used, unnamed=unnamed, moving=server.moving, attachments=known)


async def _attachments(call: Call, server: str, volume: str) -> tuple[str, ...] | None:
    """IDs of the live ones that Cinder has; None where it is not asked, or does not answer."""
    if call.setup.volumes is None:
        return None
    try:
        found: CloudVolume | None = await call.setup.volumes.volume(volume)
    except SternaError as error:
        log.info("Cinder does not say how a volume is attached", volume=volume[:64], why=error.message)
        return None
    mine = [] if found is None else [a for a in found.attachments if a.server == server.lower()]
    return live([(a.id, a.status) for a in mine])


def _volumes(vm: Vm) -> list[Disk]:
    """Its disks that are volumes, those that only the next start would use included."""
    disks = [d.model_copy(update={"volume_id": d.volume_id.lower()}) for d in (*vm.disks, *vm.cold) if d.volume_id]
    return [d for d in disks if len(d.volume_id or "") == 36]


def _has_unnamed(vm: Vm) -> bool:
    """Has it a disk that may be any volume? Drives for media are none."""
    named = {disk.target for disk in _volumes(vm)}
    return any(disk.target not in named and disk.device in ("disk", "lun") for disk in (*vm.disks, *vm.cold))


def _view(call: Call, server: str, disk: Disk, answer: Answer) -> dict[str, Any]:
    volume = disk.volume_id or ""
    view: dict[str, Any] = {"volumeId": volume, "serverId": server, "device": f"/dev/{disk.target}"}
    if call.has(_SHOWS_ID):
        view |= {"attachment_id": answer.attachment_id, "bdm_uuid": made_id("bdm", f"{server}/{volume}")}
    else:
        view["id"] = volume
    if call.has(70):
        view["tag"] = None
    return view | ({"delete_on_termination": False} if call.has(79) else {})
