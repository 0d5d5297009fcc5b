"""`/servers/ID/os-volume_attachments`: Cinder asks here before it lets a user delete an attachment (bug 2004555).

What is not proven is 503, never 404 (`domain/compute/attachments.py`).
"""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Asking, Call, made_id, rule
from sterna.api.compute.reading import MOST_LISTED, check_query, limit_of, number
from sterna.controller.records.servers import Server
from sterna.domain.compute.attachments import (
    Answer,
    Say,
    Seen,
    judge,
    judge_unknown_server,
    live,
    may_be_any,
    volumes_of,
)
from sterna.domain.compute.policies import Rule
from sterna.domain.errors import NotFound, SternaError
from sterna.domain.model import Disk, Vm
from sterna.domain.texts import is_uuid
from sterna.ports.cloud import CloudVolume

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v2.1/servers/{server}/os-volume_attachments")
_SHOWS_ID = 89


@router.get("", dependencies=[rule(Rule.VOLUMES)])
async def list_attachments(server: str, call: Asking, request: Request) -> dict[str, Any]:
    """All volumes of the server, as its host says now. From 2.89 on without those of which Cinder has no attachment
    for it: each has to name one, and Nova leaves them out, too."""
    if call.has(75):
        check_query(request.query_params, ("limit", "offset"))
    limit, offset = limit_of(request.query_params), number(request.query_params, "offset", 0)
    found = await call.server(server, Rule.VOLUMES)
    details = await _details(call, found)
    if details is None:
        raise HTTPException(503, f"The host of server {server} does not answer: its volumes are not known now.")
    if found.vm.also:
        raise HTTPException(503, f"Server {server} runs on several hosts, each with volumes of its own.")
    listed = []
    for disk in volumes_of(details):
        volume = disk.volume_id or ""
        seen = await _seen(call, found, details, volume)
        answer = judge(seen, with_id=call.has(_SHOWS_ID))
        if answer.say is Say.UNKNOWN and seen.attachments != ():
            raise _not_known(server, volume, answer)
        if answer.say is Say.ATTACHED:
            listed.append(_view(call, server, disk, answer))
    return {"volumeAttachments": listed[offset : offset + (limit or MOST_LISTED)]}


@router.get("/{volume}", dependencies=[rule(Rule.VOLUME)])
async def show_attachment(server: str, volume: str, call: Asking) -> dict[str, Any]:
    """One of them. 404 says that the volume is not attached, and nothing else does."""
    volume = volume.lower()
    if not is_uuid(volume):
        raise HTTPException(400, f"{volume[:64]} is not the ID of a volume: that is a UUID.")
    try:
        found = await call.setup.servers.one(server)
    except NotFound:
        raise await _of_unknown_server(call, server, volume) from None
    call.require(Rule.VOLUME, found)  # 403, not 404: Cinder would delete what another project uses
    details = await _details(call, found)
    answer = judge(await _seen(call, found, details, volume), with_id=call.has(_SHOWS_ID))
    if answer.say is Say.UNKNOWN:
        raise _not_known(server, volume, answer)
    disk = next((d for d in volumes_of(details) if d.volume_id == volume), None) if details is not None else None
    if answer.say is Say.NOT_ATTACHED or disk is None:
        raise HTTPException(404, f"Instance {server} is not attached to volume {volume[:64]}.")
    return {"volumeAttachment": _view(call, server, disk, answer)}


async def _of_unknown_server(call: Call, server: str, volume: str) -> HTTPException:
    """It may be on a host that is silent, or on one of another Nova that shares this Cinder."""
    listing = await call.controller.inventory.vms()
    if any(vm.uuid == server.lower() for vm in listing.vms):
        return HTTPException(503, f"Server {server[:64]} has just appeared: try again.")
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
    """Cinder is asked only where its word decides."""
    twice, named = bool(server.vm.also), [] if details is None else [d.volume_id for d in volumes_of(details)]
    used = None if details is None else volume in named
    if details is None or server.moving or twice:
        return Seen(used=used, moving=server.moving, twice=twice, attachments=None)
    others = sorted({other for other in named if other and other != volume})
    unnamed = may_be_any(details)
    wanted = call.has(_SHOWS_ID) if used else bool(unnamed or others)
    known = await _attachments(call, server.vm.uuid, volume) if wanted else None
    if not used and not unnamed and known != ():
        unnamed = not await _are_confirmed(call, server, others)
    return Seen(used=used, unnamed=unnamed, moving=False, attachments=known)


async def _are_confirmed(call: Call, server: Server, volumes: list[str]) -> bool:
    """Does Cinder have an attachment of each for this server? Else a serial may be another volume's."""
    for volume in volumes:
        if not await _attachments(call, server.vm.uuid, volume):
            return False
    return True


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
