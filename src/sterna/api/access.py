"""Authentication and authorisation.

Every request passes `AuthenticationMiddleware`, which refuses unknown users, also on routes that do not exist. A
browser's session stands for the token that it was begun with.
Every route names its action with `needs`. What a known user may do is looked up in `domain/access.py` by that
action, just before the route begins.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import structlog
from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sterna.api import browsers, forms, problems
from sterna.api.dependencies import LARGEST
from sterna.api.peers import Peer, PeerRoles
from sterna.api.sessions import Session, Sessions, cookie_of, opens
from sterna.controller.controller import Controller
from sterna.controller.intents.external_users import ExternalUsers
from sterna.controller.intents.users import FixedToken
from sterna.domain.access import HOW_TO_GET_IN, NEEDS, Action, Actor, check, may
from sterna.domain.addresses import network_of
from sterna.domain.errors import Forbidden, SternaError, Unauthenticated
from sterna.domain.model import Data
from sterna.domain.plain_text import printable

log = structlog.get_logger(__name__)

UNLOGGED = {Action.AUDIT, Action.EXAMINE, Action.HINT}
"""Of the requests that could change something, those that do not."""
LONGEST_BODY = 2**16
"""Of a body in the audit log. A longer one is left out: a rule about a thousand VMs, by their names."""
LONGEST_TARGET = 255
LARGEST_BODY = 2**20
"""In bytes. The longest request that makes sense, 200 of Neutron's events, has a tenth of it."""
LARGEST_OF_ANYBODY = 2**16
"""Of a request by an unknown user. A host that renews its certificate sends 5 KiB."""


@dataclass(frozen=True)
class AccessRules:
    """Who may use the API, by the settings."""

    tokens: tuple[FixedToken, ...] = ()
    names: frozenset[str] = frozenset()
    """Names under which browsers may reach this API, besides its addresses."""
    peers: PeerRoles = field(default_factory=PeerRoles)
    external_users: ExternalUsers | None = None
    """Users of Keystone."""


class Need:
    """The dependency of a route: it is refused to whom its action is not allowed, and logged."""

    def __init__(self, action: Action) -> None:
        self.action = action

    async def __call__(self, request: Request) -> None:
        """Raises Forbidden."""
        if NEEDS[self.action] is not None:
            await allow(request, self.action)


def needs(action: Action) -> Any:
    """For a route's `dependencies`."""
    return Depends(Need(action))


def action_of(route: APIRoute) -> Action | None:
    """The action a route names; None where it names none, or several."""
    named = [d.dependency.action for d in route.dependencies if isinstance(d.dependency, Need)]
    return named[0] if len(named) == 1 else None


def actor_of(request: Request) -> Actor:
    """The user. Raises Unauthenticated where there is no known one."""
    actor = request.scope["state"].get("actor")
    if not isinstance(actor, Actor):
        raise Unauthenticated("the request has no credentials", fix=HOW_TO_GET_IN)
    return actor


async def allow(request: Request, action: Action) -> None:
    """Log it, where it changes something, and raise Forbidden where it is not allowed.

    Of such a request the body is not read, and of many only some are logged: who may do nothing must not fill the
    log.
    """
    actor, state = actor_of(request), request.scope["state"]
    if request.method not in browsers.SAFE and action not in UNLOGGED:
        state["logged"] = await _log(request, actor, action)
    check(actor, action)


async def _log(request: Request, actor: Actor, action: Action) -> bool:
    """Is it in the log?"""
    controller: Controller = request.app.state.controller
    who = request.scope["state"]["request_id"], actor, request.scope["state"]["origin"]
    if not may(actor.role, action):
        return await controller.users.refused(*who, (action, _target(request, {})))
    raw = await raw_body(request)
    is_form = forms.is_form(request.headers.get("content-type"))
    body = _inner(request) | (_short(forms.logged(raw)) if is_form else logged_body(raw))
    await controller.users.asked(*who, (action, _target(request, body), body))
    return True


async def log_joined(request: Request, holder: str) -> None:
    """Log that this agent or controller has proven who it is, and gets a certificate. Raises Unreachable where that
    is not possible: then it must not get it. Failed attempts are not in that log, since it only grows."""
    controller: Controller = request.app.state.controller
    state = request.scope["state"]
    await controller.users.joined(state["request_id"], holder, state["origin"])
    state["logged"] = True


async def raw_body(request: Request) -> bytes:
    """The body; empty where the client has left."""
    try:
        return await request.body()
    except ClientDisconnect:
        return b""


def logged_body(raw: bytes) -> Data:
    """A body as the audit log keeps it."""
    try:
        body = json.loads(raw) if len(raw) <= LONGEST_BODY else {}
    except (ValueError, RecursionError):  # it is refused as such, after this, or not looked at
        return {}
    return {printable(key): _plain(value) for key, value in body.items()} if isinstance(body, dict) else {}


def _short(body: Data) -> Data:
    return body if len(json.dumps(body)) <= LONGEST_BODY else {}


def _plain(value: Any) -> Any:
    """As bodies of ours are: a scalar, a list or an object of some. A database, JSON and a terminal can take it."""
    if isinstance(value, dict):
        return {printable(str(key)): _scalar(one) for key, one in value.items()}
    return [_scalar(one) for one in value] if isinstance(value, list) else _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, bool):
        return value
    return value if isinstance(value, int | float) and abs(value) < LARGEST else "..."


def _target(request: Request, body: Data) -> str:
    """What it is about: as the path says, else the body."""
    for found in (*request.path_params.values(), *(body.get(key) for key in ("vm", "host", "name"))):
        if isinstance(found, str):
            return printable(found)[:LONGEST_TARGET]
    return ""


def _inner(request: Request) -> Data:
    """What the path names inside its target, such as a host of an operation."""
    inner = list(request.path_params.items())[1:]
    return {key: printable(value)[:LONGEST_TARGET] for key, value in inner if isinstance(value, str)}


Refusing = Callable[[Request, SternaError], Awaitable[Response]]
"""What answers a request that is not let in."""


@dataclass(frozen=True)
class Entrance:
    """How users come in."""

    rules: AccessRules
    public: frozenset[str]
    """Paths that need no user."""
    sessions: Sessions
    refuse: Refusing = problems.answer


class AuthenticationMiddleware:
    """ASGI middleware: authenticates the user, and gives each request an id. Answers those that it refuses."""

    def __init__(self, app: ASGIApp, controller: Controller, entrance: Entrance) -> None:
        self._app, self._controller, self._entrance = app, controller, entrance
        self._rules, self._sessions = entrance.rules, entrance.sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the application's, for those it lets in."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # there is no route for it
            return await send({"type": "websocket.close", "code": 1008})
        state = scope.setdefault("state", {})
        peer: Peer | None = state.get("peer")
        state |= {"request_id": uuid4().hex, "origin": origin_of(scope, peer), "actor": None}
        state |= {"share": share_of(scope, peer), "logged": False, "status": 500, "session": ""}
        send = self._marked(send, state)
        try:
            browsers.check_host(scope, self._rules.names)
            browsers.check_origin(scope)
            actor = state["actor"] = await self._who(scope, peer)
            state["still"] = partial(self._still, scope, peer, actor)
        except SternaError as error:
            return await self._refuse(error, scope, receive, send)
        try:
            most = LARGEST_OF_ANYBODY if actor is None else LARGEST_BODY
            await self._app(scope, limited(receive, most), send)
        except Exception:
            await self._log_answer(state)
            raise

    async def _who(self, scope: Scope, peer: Peer | None) -> Actor | None:
        """No user, where the route needs none. Raises Unauthenticated."""
        headers = Headers(scope=scope)
        token, of_a_cloud = _token(headers.get("authorization")), headers.get("x-auth-token")
        cookie = cookie_of(scope) if opens(scope) else ""
        session = self._sessions.find(cookie, used=_by_a_person(headers)) if cookie else None
        try:
            if session is not None:
                return await self._signed_in(scope, cookie, session)
            if token is not None:
                return await self._controller.users.holder(token, self._rules.tokens)
            if of_a_cloud is not None and self._rules.external_users is not None:
                return await self._rules.external_users.holder(of_a_cloud, share_of(scope, peer))
            return self._rules.peers.actor(peer)
        except SternaError:
            if scope["path"] in self._entrance.public:
                return None
            raise

    async def _signed_in(self, scope: Scope, cookie: str, session: Session) -> Actor:
        """Raises Unauthenticated where its token was removed, or has expired."""
        known = session.token_id, session.token_digest
        actor = await self._controller.users.holder_by_digest(*known, self._rules.tokens)
        scope["state"]["session"] = cookie
        return actor

    async def _still(self, scope: Scope, peer: Peer | None, actor: Actor | None) -> bool:
        """Would the same request be let in as the same user now?"""
        try:
            return await self._who(scope, peer) == actor
        except (Unauthenticated, Forbidden):
            return False
        except SternaError:  # its records cannot be asked
            return True

    async def _refuse(self, error: SternaError, scope: Scope, receive: Receive, send: Send) -> None:
        path = printable(scope["path"])[:LONGEST_TARGET]
        log.info("a request was refused", origin=scope["state"]["origin"], path=path, why=error.message)
        answer = await self._entrance.refuse(Request(scope), error)
        if isinstance(error, Unauthenticated):
            scheme = "Basic" if scope["path"] in ("/docs", "/openapi.json") else "Bearer"
            answer.headers["WWW-Authenticate"] = f'{scheme} realm="sterna"'
        await answer(scope, receive, send)

    def _marked(self, send: Send, state: dict[str, Any]) -> Send:
        """What is sent has the request's id. Its status is logged behind it: no client waits for that line."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = state["request_id"]
                state["status"] = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                await self._log_answer(state)

        return sending

    async def _log_answer(self, state: dict[str, Any]) -> None:
        """How the request was answered, where the request is in the log; once."""
        if state["logged"]:
            state["logged"] = False
            await self._controller.users.answered(state["request_id"], state["status"])


def limited(receive: Receive, most: int) -> Receive:
    """The same; what is longer than `most` bytes is refused as soon as so much of it has come."""
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise HTTPException(413, f"a body has at most {most} bytes")
        return message

    return receiving


def origin_of(scope: Scope, peer: Peer | None = None) -> str:
    """Where a request comes from: an IP address, or a process on this machine."""
    client = scope.get("client")
    return str(peer) if peer is not None else str(client[0]) if client else ""


def share_of(scope: Scope, peer: Peer | None = None) -> str:
    """Of whom a request counts, before its sender is known: of an address, an IPv6 network or a user here."""
    return f"user {peer.uid} here" if peer is not None else network_of(origin_of(scope))


def _by_a_person(headers: Headers) -> bool:
    """False where an open page asks by itself: that keeps no session."""
    return "hx-request" not in headers and "text/event-stream" not in headers.get("accept", "")


def _token(header: str | None) -> str | None:
    """The token of an `Authorization` header: `Bearer TOKEN`, or as the password of `Basic`, as browsers and
    addresses with a password send it. None where there is no header."""
    if header is None:
        return None
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return value.strip() if scheme.lower() == "bearer" else ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except ValueError:  # no Base64, or no text in it
        return ""
