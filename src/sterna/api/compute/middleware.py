"""Before the routes of the Compute API: request ids, tokens of Keystone, versions, and the headers of every answer.

ASGI middleware around the whole application. Requests outside of `/compute` pass it unchanged.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sterna.api.access import LARGEST_BODY, limited, origin_of, share_of
from sterna.api.compute.call import LONGEST_TARGET, Call, Setup
from sterna.api.compute.faults import fault, sentence, status_for
from sterna.controller.controller import Controller
from sterna.domain.compute import microversions
from sterna.domain.compute.microversions import MAX, MIN, Version
from sterna.domain.compute.policies import CloudUser
from sterna.domain.errors import BadRequest, SternaError, Unauthenticated
from sterna.domain.plain_text import printable
from sterna.ports.users import ExternalUser

log = structlog.get_logger(__name__)

PREFIX = "/compute"
STANDARD, LEGACY = "OpenStack-API-Version", "X-OpenStack-Nova-API-Version"
_OPEN = frozenset({"", "/", "/v2.1", "/v2.1/"})
"""Discovery needs no token."""
_OF_PROJECT = re.compile(r"/v2\.1/([0-9a-f]{32}|[0-9a-f-]{36})(/.*)")
"""As catalogs had it until Nova 13."""


class ComputeMiddleware:
    """Authenticates users by their Keystone tokens, and serves `PREFIX` with an application of its own."""

    def __init__(self, app: ASGIApp, inner: ASGIApp, controller: Controller, setup: Setup) -> None:
        self._app, self._inner, self._controller, self._setup = app, inner, controller, setup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the application's, for those it lets in."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PREFIX or path.startswith(f"{PREFIX}/")):
            return await self._app(scope, receive, send)
        id, headers = str(uuid4()), Headers(scope=scope)
        state: dict[str, Any] = {**scope.get("state", {}), "logged": False, "status": 500, "marks": {}}
        state["marks"] |= dict.fromkeys(("x-openstack-request-id", "x-compute-request-id"), f"req-{id}")
        inner = {**scope, "path": path.removeprefix(PREFIX) or "/", "state": state}
        send = self._marked(send, state, id)
        try:
            origin = share_of(scope, state.get("peer"))
            user = None if inner["path"] in _OPEN else await self._who(headers, origin)
            version = MIN if inner["path"] == "/" else self._version(headers, state)  # it lists all there are
            inner["path"] = _without_project(inner["path"], user)
        except _Answered as answered:
            return await answered.answer(inner, receive, send)
        except SternaError as error:
            shown = printable(path)[:LONGEST_TARGET]
            log.info("a request was refused", origin=origin_of(scope), path=shown, why=error.message)
            return await self._refused(error)(inner, receive, send)
        base = self._setup.url or f"{scope.get('scheme', 'http')}://{headers.get('host', 'localhost')}{PREFIX}"
        inner["raw_path"] = inner["path"].encode()
        origin = origin_of(scope)
        state["call"] = Call(id, self._setup, self._controller, version, user, base.rstrip("/"), origin)
        try:
            await self._inner(inner, limited(receive, LARGEST_BODY), send)
        except Exception:
            await self._log_answer(state, id)
            raise

    async def _who(self, headers: Headers, origin: str) -> CloudUser:
        """Raises Unauthenticated, Unreachable."""
        token = headers.get("x-auth-token")
        if token is None:
            raise Unauthenticated("no token was sent", fix="log in at Keystone and send its token in X-Auth-Token")
        return _user(await self._setup.external_users.user(token, origin))

    def _version(self, headers: Headers, state: dict[str, Any]) -> Version:
        """What it asks for; every answer from here on says it. Raises BadRequest, _Answered."""
        version = microversions.parse(microversions.wanted(headers.get(STANDARD), headers.get(LEGACY)))
        state["marks"] |= {STANDARD: f"compute {version}", LEGACY: str(version), "Vary": f"{STANDARD}, {LEGACY}"}
        if not microversions.served(version):
            why = f"version {version} is not served here: the oldest is {MIN} and the newest is {MAX}"
            raise _Answered(fault(HTTPStatus.NOT_ACCEPTABLE, why))
        return version

    def _refused(self, error: SternaError) -> JSONResponse:
        if not isinstance(error, Unauthenticated):
            return fault(status_for(error), sentence(error))
        body = {"error": {"code": 401, "title": "Unauthorized", "message": sentence(error)}}
        return JSONResponse(body, 401, {"WWW-Authenticate": f'Keystone uri="{self._setup.keystone}"'})

    def _marked(self, send: Send, state: dict[str, Any], id: str) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in state["marks"].items():
                    headers[name] = value
                state["status"] = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                await self._log_answer(state, id)

        return sending

    async def _log_answer(self, state: dict[str, Any], id: str) -> None:
        """How the request was answered, where it is in the audit log; once."""
        if state["logged"]:
            state["logged"] = False
            await self._controller.users.answered(f"req-{id}", state["status"])


class _Answered(Exception):
    """It has its answer."""

    def __init__(self, answer: JSONResponse) -> None:
        super().__init__()
        self.answer = answer


def _user(user: ExternalUser) -> CloudUser:
    return CloudUser(
        name=printable(user.name),
        user_id=user.user_id,
        project_id=user.project_id,
        roles=frozenset(role.lower() for role in user.roles),
    )


def _without_project(path: str, user: CloudUser | None) -> str:
    """`/v2.1/PROJECT/servers` is `/v2.1/servers` for users of that project. Raises BadRequest for others."""
    found = _OF_PROJECT.fullmatch(path)
    if found is None or user is None:
        return path
    if found[1] != user.project_id:
        raise BadRequest(
            f"the project {found[1]} of the address is not the one of the token", fix="leave it out of the address"
        )
    return f"/v2.1{found[2]}"
