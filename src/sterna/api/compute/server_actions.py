"""`POST /servers/ID/action`: `os-migrateLive`. Whatever else Nova does to a server is refused with a sentence."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from sterna.api.compute import server_view
from sterna.api.compute.call import Asking, Call, rule
from sterna.api.compute.hiding import hiding_hosts
from sterna.api.compute.reading import boolean, json_body, only, text, wrong
from sterna.api.compute.servers import refuse_to_change
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.records.servers import Server
from sterna.domain.compute.policies import Rule
from sterna.domain.model import GuestState
from sterna.domain.options import Requester

router = APIRouter(prefix="/v2.1/servers")
MIGRATE = "os-migrateLive"
NOT_DONE = frozenset({
    "addFloatingIp", "addSecurityGroup", "changePassword", "confirmResize", "createBackup", "createImage",
    "evacuate", "forceDelete", "lock", "migrate", "os-getConsoleOutput", "os-getSerialConsole", "os-getVNCConsole",
    "os-resetState", "os-start", "os-stop", "pause", "reboot", "rebuild", "removeFloatingIp", "removeSecurityGroup",
    "rescue", "resetNetwork", "resize", "restore", "resume", "revertResize", "shelve", "shelveOffload", "suspend",
    "trigger_crash_dump", "unlock", "unpause", "unrescue", "unshelve",
})  # fmt: skip
"""Nova's other actions."""
_MOVABLE = (GuestState.RUNNING, GuestState.PAUSED, GuestState.UNKNOWN)
"""As Nova; what else speaks against a move of a paused guest is said by its host."""


@router.post("/{server}/action", status_code=202, dependencies=[rule(Rule.MIGRATE_LIVE, action=MIGRATE)])
async def act(server: str, request: Request, call: Asking) -> Response:
    """202 with an empty body once the migration is accepted: the server shows as MIGRATING before that."""
    body = await json_body(request)
    if len(body) != 1:
        raise HTTPException(400, "Malformed request body: it has to name one action")
    ((name, wanted),) = body.items()
    if name != MIGRATE and name not in NOT_DONE:
        raise HTTPException(400, f"There is no such action: {name[:64]}")
    found = await call.server(server, Rule.MIGRATE_LIVE if name == MIGRATE else Rule.SERVER)
    if name != MIGRATE:
        raise refuse_to_change(found, name)
    await _migrate(call, found, _wish(call, wanted))
    return Response(status_code=202, media_type="application/json")


class _Wish:
    """What the body of `os-migrateLive` says."""

    def __init__(self, host: str | None, *, shared: bool) -> None:
        self.host, self.shared = host, shared


def _wish(call: Call, wanted: Any) -> _Wish:
    """Raises HTTPException for what this version does not have."""
    if not isinstance(wanted, dict):
        raise wrong(MIGRATE, "it is not an object")
    automatic, forced = call.has(25), call.has(30) and not call.has(68)
    required = ("host", "block_migration") if automatic else ("host", "block_migration", "disk_over_commit")
    only(wanted, MIGRATE, required, ("force",) if forced else ())
    host = wanted["host"] if wanted["host"] is None else text(wanted["host"], "host")
    if not automatic:
        boolean(wanted["disk_over_commit"], "disk_over_commit")
    if boolean(wanted.get("force", False), "force") and host is None:
        raise HTTPException(400, "Can't force to a non-provided destination")
    block = wanted["block_migration"]
    return _Wish(host, shared=not (automatic and block == "auto") and not boolean(block, "block_migration"))


async def _migrate(call: Call, server: Server, wish: _Wish) -> None:
    """Raises as `Controller.migrate`, and HTTPException."""
    if wish.host is not None:
        call.require(Rule.MIGRATE_LIVE_TO_HOST)
    _check_state(server)
    user = call.known_user
    request = MigrateRequest(
        id=call.id,
        vm=server.vm.uuid,
        destination=wish.host,
        asked=call.setup.asked,
        copies_disks=not wish.shared,
        requested_by=user.actor.name,
        requester=Requester(user_id=user.user_id, project_id=user.project_id),
    )
    async with hiding_hosts(call):
        await call.controller.migrate(request)


def _check_state(server: Server) -> None:
    state = server_view.state_of(server)
    if server.moving:
        why = f"while it is in task_state migrating: migration {server.vm.migration_id} holds it"
    elif server.vm.state not in _MOVABLE:
        why = f"while it is in vm_state {state.vm_state}"
    else:
        return
    raise HTTPException(409, f"Cannot '{MIGRATE}' instance {server.vm.uuid} {why}.")
