"""One request to the Compute API: who asks, for which version, and under which rule.

Every route names its rule with `rule(...)`: the API does not start with one that does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID, uuid5

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from sterna.api.access import logged_body, raw_body
from sterna.api.browsers import SAFE
from sterna.api.compute.faults import NOT_HERE
from sterna.controller.controller import Controller
from sterna.controller.intents.external_users import ExternalUsers
from sterna.controller.records.servers import Server, Servers
from sterna.domain.access import Action
from sterna.domain.compute import policies
from sterna.domain.compute.microversions import Version, since
from sterna.domain.compute.policies import CloudUser, Needs, Rule
from sterna.domain.errors import NotFound, Unauthenticated
from sterna.domain.objective import Asked
from sterna.domain.options import Requester
from sterna.domain.plain_text import printable
from sterna.ports.cloud import VolumeReads

_IDS = UUID("8f9a1f3c-9d0a-4c1e-8c55-5d0a1d5a7b11")
"""Namespace of the IDs that are made of names, so that every controller gives the same."""
_LOGGED = {
    Rule.MIGRATE_LIVE: Action.MIGRATE,
    Rule.ABORT: Action.ABORT,
    Rule.FORCE_COMPLETE: Action.POST_COPY,
    Rule.SERVICE_UPDATE: Action.MAINTENANCE,
    Rule.SERVICE_DELETE: Action.MAINTENANCE,
}
"""What changes something, as the audit log calls it."""
LONGEST_TARGET = 255
DEFAULT = Asked()


@dataclass(frozen=True)
class Setup:
    """What the settings say about the Compute API."""

    external_users: ExternalUsers
    servers: Servers
    keystone: str
    """Its public address, for `WWW-Authenticate`."""
    volumes: VolumeReads | None = None
    url: str = ""
    """What links begin with; '': what the client has called this API."""
    zone: str = "nova"
    asked: Asked = DEFAULT
    """What is wanted of a copy that a user of this API asks for."""


@dataclass(frozen=True)
class Call:
    """One request."""

    id: str
    """A UUID; clients see `req-` before it."""
    setup: Setup
    controller: Controller
    version: Version
    user: CloudUser | None
    base: str
    """What links begin with."""
    origin: str

    @property
    def request_id(self) -> str:
        """As clients see it."""
        return f"req-{self.id}"

    @property
    def known_user(self) -> CloudUser:
        """Raises Unauthenticated: the routes that need nobody do not ask for it."""
        if self.user is None:
            raise Unauthenticated("nobody has said who asks")
        return self.user

    def has(self, minor: int) -> bool:
        """Does it ask for version 2.`minor` or a newer one?"""
        return self.version >= since(minor)

    def needs_version(self, minor: int, below: int | None = None) -> None:
        """Raises HTTPException (404) where this is not in the version that is asked for."""
        if not self.has(minor) or (below is not None and self.has(below)):
            raise HTTPException(404, NOT_HERE)

    def may(self, rule: Rule, server: Server | None = None) -> bool:
        """Is it allowed, of this server where one is given?"""
        user = self.known_user
        return policies.may(user, rule) if server is None else policies.may_in(user, rule, server.project_id)

    def require(self, rule: Rule, server: Server | None = None) -> None:
        """Raises Forbidden."""
        if not self.may(rule, server):
            raise policies.forbidden(self.known_user, rule)

    async def server(self, id: str, rule: Rule) -> Server:
        """The server, for one who may do this with it. Raises NotFound where it cannot be seen, Forbidden."""
        found = await self.setup.servers.one(id)
        if not self.may(Rule.SERVER, found):
            raise NotFound(f"there is no server {id}", fix="`openstack server list` lists those of your project")
        self.require(rule, found)
        return found

    def links(self, path: str) -> list[dict[str, str]]:
        """The two that Nova gives for everything."""
        return [
            {"rel": "self", "href": f"{self.base}/v2.1/{path}"},
            {"rel": "bookmark", "href": f"{self.base}/{path}"},
        ]


def call_of(request: Request) -> Call:
    """The call that `ComputeMiddleware` has made of a request."""
    call: Call = request.scope["state"]["call"]
    return call


Asking = Annotated[Call, Depends(call_of)]


class Ruled:
    """The dependency of a route: what changes something is logged; whoever is not allowed is refused."""

    def __init__(self, rule: Rule, action: str = "") -> None:
        """`action`: the rule is about bodies with this one name; the route refuses all others to everybody."""
        self.rule, self.action = rule, action

    async def __call__(self, request: Request) -> None:
        """Raises Forbidden."""
        if policies.NEEDS[self.rule] is Needs.NOBODY:
            return
        if self.action and _names(await raw_body(request)) != [self.action]:
            return
        call = call_of(request)
        user = call.known_user
        action = _LOGGED.get(self.rule)
        if action is not None and request.method not in SAFE:
            request.scope["state"]["logged"] = await self._log(call, user, action, request)
        policies.check(user, self.rule)

    async def _log(self, call: Call, user: CloudUser, action: Action, request: Request) -> bool:
        """Is it in the log? As in `api.access.allow`."""
        users, who = call.controller.users, (call.request_id, user.actor, call.origin)
        requester = Requester(user_id=user.user_id, project_id=user.project_id)
        if not policies.may(user, self.rule):
            return await users.refused(*who, (action, _target(request.path_params, {})), requester)
        body = _flat(logged_body(await raw_body(request)))
        await users.asked(*who, (action, _target(request.path_params, body), body), requester)
        return True


def rule(rule: Rule, action: str = "") -> Any:
    """For a route's `dependencies`."""
    return Depends(Ruled(rule, action))


def rule_of(route: APIRoute) -> Rule | None:
    """The rule a route names; None where it names none, or several."""
    named = [d.dependency.rule for d in route.dependencies if isinstance(d.dependency, Ruled)]
    return named[0] if len(named) == 1 else None


def _flat(body: Mapping[str, Any]) -> dict[str, Any]:
    """An action's own fields, with its name."""
    if len(body) == 1:
        ((name, inner),) = body.items()
        if isinstance(inner, dict):
            return {"action": name, **inner}
    return dict(body)


def _names(raw: bytes) -> list[str]:
    """Of the fields of a body; none of one that is no object."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    return list(body) if isinstance(body, dict) else []


def _target(path: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    for found in (path.get("server"), path.get("service")):
        if isinstance(found, str):
            return printable(found.lower())[:LONGEST_TARGET]  # IDs, in whatever case they were typed
    host = body.get("host")
    return printable(host)[:LONGEST_TARGET] if isinstance(host, str) else ""


def made_id(kind: str, name: str) -> str:
    """A UUID for what has only a name."""
    return str(uuid5(_IDS, f"{kind}/{name}"))


def made_number(kind: str, name: str) -> int:
    """The same before version 2.53, where IDs are numbers."""
    return uuid5(_IDS, f"{kind}/{name}").int % (2**31 - 1) + 1
