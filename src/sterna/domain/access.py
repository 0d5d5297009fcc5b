"""Authorisation of the API: one table from action to role. Each role may do all that the one before it may."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sterna.domain.errors import Forbidden
from sterna.domain.model import Value


class UserRole(StrEnum):
    """Role of a user of the API."""

    NEUTRON = "neutron"
    """Neutron's notifier: it reports ports that were wired, and may do nothing else."""
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Action(StrEnum):
    """Kind of request, for permissions and the audit log."""

    PROBE = "probe"
    """Health and version: for load balancers, without authentication."""
    JOIN = "join"
    """A host proves with a token, or with the key of its certificate, that it may have a certificate."""
    SIGN_IN = "sign-in"
    """The page where a browser signs in, and the files that pages are made of."""
    SIGN_OUT = "sign-out"
    READ = "read"
    EVENTS = "events"
    METRICS = "metrics"
    EXAMINE = "examine"
    """Have hosts look at themselves and at each other (`sterna doctor`)."""
    AUDIT = "audit"
    HINT = "hint"
    """What Neutron's notifier posts."""
    PLAN = "plan"
    MIGRATE = "migrate"
    ABORT = "abort"
    TUNE = "tune"
    POST_COPY = "post-copy"
    OPERATE = "operate"
    """Begin an operation on hosts, or change what it does."""
    NOTIFY = "notify"
    """Send a test to the endpoints of notifications."""
    MAINTENANCE = "maintenance"
    DECLARE_DEAD = "declare-dead"
    DECLARE_ALIVE = "declare-alive"
    PIN_HOST = "pin-host"
    """Let a host's name belong to another UUID."""
    REPAIR = "repair"
    RULES = "rules"
    """Write or remove a placement rule."""
    TOKENS = "tokens"
    LOG = "log"


NEEDS: dict[Action, UserRole | None] = {
    Action.PROBE: None,
    Action.JOIN: None,
    Action.SIGN_IN: None,
    Action.SIGN_OUT: UserRole.VIEWER,
    Action.READ: UserRole.VIEWER,
    Action.EVENTS: UserRole.VIEWER,
    Action.METRICS: UserRole.VIEWER,
    Action.AUDIT: UserRole.VIEWER,
    Action.EXAMINE: UserRole.OPERATOR,
    Action.HINT: UserRole.OPERATOR,
    Action.PLAN: UserRole.OPERATOR,
    Action.MIGRATE: UserRole.OPERATOR,
    Action.ABORT: UserRole.OPERATOR,
    Action.TUNE: UserRole.OPERATOR,
    Action.POST_COPY: UserRole.OPERATOR,
    Action.OPERATE: UserRole.OPERATOR,
    Action.NOTIFY: UserRole.OPERATOR,
    Action.MAINTENANCE: UserRole.OPERATOR,
    Action.DECLARE_DEAD: UserRole.ADMIN,
    Action.DECLARE_ALIVE: UserRole.ADMIN,
    Action.PIN_HOST: UserRole.ADMIN,
    Action.REPAIR: UserRole.ADMIN,
    Action.RULES: UserRole.ADMIN,
    Action.TOKENS: UserRole.ADMIN,
    Action.LOG: UserRole.ADMIN,
}
"""The least role for each action; None: no user is needed."""

BESIDE: dict[UserRole, frozenset[Action]] = {UserRole.NEUTRON: frozenset({Action.HINT})}
"""Roles outside the order: all that each of them may do."""
_ORDER = (UserRole.VIEWER, UserRole.OPERATOR, UserRole.ADMIN)


HOW_TO_GET_IN = (
    "as root on the controller's machine: sterna token create NAME --role ROLE; put the token into "
    "~/.config/sterna/token, mode 0600, or into STERNA_TOKEN"
)


def highest(roles: Iterable[UserRole]) -> UserRole | None:
    """The one that may most; None of none."""
    return max(roles, key=list(UserRole).index, default=None)


class Actor(Value):
    """An authenticated user."""

    name: str
    """`token:NAME`, `user:NAME` for a user of the controller's machine, or `keystone:USER@DOMAIN`."""
    role: UserRole


def may(role: UserRole, action: Action) -> bool:
    """Is a user of that role allowed to do it?"""
    needed = NEEDS[action]
    if needed is None or role in BESIDE:
        return needed is None or action in BESIDE[role]
    return _ORDER.index(role) >= _ORDER.index(needed)


def check(actor: Actor, action: Action) -> None:
    """Raises Forbidden, naming the role that is needed."""
    if may(actor.role, action):
        return
    raise Forbidden(
        f"{action} needs the role {NEEDS[action]}; {actor.name} has the role {actor.role}",
        fix="ask an administrator for a token with that role: sterna token create NAME --role "
        f"{NEEDS[action]} --days 90",
    )
