"""Who may do what through the Compute API: the defaults of Nova's policies, by Keystone's roles.

`admin` in whatever project may everything. `manager` and `reader` count in the project of the token, and for
servers of that project alone. A role in a domain, or in the whole system, does not count here, as in Nova. A server
whose project is not known is an administrator's.
"""

from __future__ import annotations

from enum import StrEnum

from sterna.domain.access import Actor, UserRole
from sterna.domain.errors import Forbidden
from sterna.domain.model import Value


class Needs(StrEnum):
    """The least that a rule asks for."""

    NOBODY = "nobody"
    """No token at all."""
    ANYBODY = "anybody"
    """Whoever has a valid token."""
    READER = "reader"
    MANAGER = "manager"
    ADMIN = "admin"
    SERVICE = "service"


class Rule(StrEnum):
    """What a route does, as Nova's policies call it (after `os_compute_api:`)."""

    VERSIONS = "versions"
    SERVERS = "servers:index"
    SERVERS_OF_ALL = "servers:index:get_all_tenants"
    SERVER = "servers:show"
    SERVER_HOST = "os-extended-server-attributes"
    DIAGNOSTICS = "os-server-diagnostics"
    MIGRATE_LIVE = "os-migrate-server:migrate_live"
    MIGRATE_LIVE_TO_HOST = "os-migrate-server:migrate_live:host"
    MIGRATIONS = "os-migrations:index"
    MIGRATIONS_OF_ALL = "os-migrations:index:all_projects"
    MIGRATION_HOSTS = "os-migrations:index:host"
    SERVER_MIGRATIONS = "servers:migrations:index"
    SERVER_MIGRATION = "servers:migrations:show"
    FORCE_COMPLETE = "servers:migrations:force_complete"
    ABORT = "servers:migrations:delete"
    SERVICES = "os-services:list"
    SERVICE_UPDATE = "os-services:update"
    SERVICE_DELETE = "os-services:delete"
    HYPERVISORS = "os-hypervisors:list"
    HOSTS = "os-hosts:list"
    ACTIONS = "os-instance-actions:list"
    ACTION = "os-instance-actions:show"
    ACTION_DETAILS = "os-instance-actions:events"
    VOLUMES = "os-volumes-attachments:index"
    VOLUME = "os-volumes-attachments:show"
    INTERFACES = "os-attach-interfaces:list"
    INTERFACE = "os-attach-interfaces:show"
    TAGS = "os-server-tags:index"
    FLAVORS = "flavors"
    EXTRA_SPECS = "os-flavor-extra-specs:index"
    ZONES = "os-availability-zone:list"
    ZONES_DETAIL = "os-availability-zone:detail"
    AGGREGATES = "os-aggregates:index"
    EVENTS = "os-server-external-events:create"


NEEDS: dict[Rule, Needs] = {
    Rule.VERSIONS: Needs.NOBODY,
    Rule.SERVERS: Needs.READER,
    Rule.SERVERS_OF_ALL: Needs.ADMIN,
    Rule.SERVER: Needs.READER,
    Rule.SERVER_HOST: Needs.ADMIN,
    Rule.DIAGNOSTICS: Needs.ADMIN,
    Rule.MIGRATE_LIVE: Needs.MANAGER,
    Rule.MIGRATE_LIVE_TO_HOST: Needs.ADMIN,
    Rule.MIGRATIONS: Needs.MANAGER,
    Rule.MIGRATIONS_OF_ALL: Needs.ADMIN,
    Rule.MIGRATION_HOSTS: Needs.ADMIN,
    Rule.SERVER_MIGRATIONS: Needs.MANAGER,
    Rule.SERVER_MIGRATION: Needs.ADMIN,
    Rule.FORCE_COMPLETE: Needs.MANAGER,
    Rule.ABORT: Needs.MANAGER,
    Rule.SERVICES: Needs.ADMIN,
    Rule.SERVICE_UPDATE: Needs.ADMIN,
    Rule.SERVICE_DELETE: Needs.ADMIN,
    Rule.HYPERVISORS: Needs.ADMIN,
    Rule.HOSTS: Needs.ADMIN,
    Rule.ACTIONS: Needs.READER,
    Rule.ACTION: Needs.READER,
    Rule.ACTION_DETAILS: Needs.ADMIN,
    Rule.VOLUMES: Needs.READER,
    Rule.VOLUME: Needs.READER,
    Rule.INTERFACES: Needs.READER,
    Rule.INTERFACE: Needs.READER,
    Rule.TAGS: Needs.READER,
    Rule.FLAVORS: Needs.ANYBODY,
    Rule.EXTRA_SPECS: Needs.READER,
    Rule.ZONES: Needs.ANYBODY,
    Rule.ZONES_DETAIL: Needs.ADMIN,
    Rule.AGGREGATES: Needs.ADMIN,
    Rule.EVENTS: Needs.SERVICE,
}
"""The least for each rule."""

_ABOVE: dict[Needs, frozenset[str]] = {
    Needs.READER: frozenset({"reader", "member", "manager"}),
    Needs.MANAGER: frozenset({"manager"}),
    Needs.ADMIN: frozenset(),
    Needs.SERVICE: frozenset({"service"}),
}
"""Keystone's roles that are enough, besides `admin`. It gives who has a role those below it as well; a cloud whose
Keystone does not is served alike."""


class CloudUser(Value):
    """Who asks, as Keystone knows it."""

    name: str
    """`USER@DOMAIN`, without characters that steer a terminal."""
    user_id: str
    project_id: str
    """'' where the token is for no project."""
    roles: frozenset[str]

    @property
    def admin(self) -> bool:
        """May everything."""
        return "admin" in self.roles and bool(self.project_id)

    @property
    def actor(self) -> Actor:
        """For the audit log."""
        role = UserRole.VIEWER
        if self.admin:
            role = UserRole.ADMIN
        elif "manager" in self.roles:
            role = UserRole.OPERATOR
        elif "service" in self.roles:
            role = UserRole.NEUTRON
        return Actor(name=f"keystone:{self.name}", role=role)


def may(user: CloudUser, rule: Rule) -> bool:
    """Is a user allowed this at all, in the project of the token?"""
    needed = NEEDS[rule]
    if needed in (Needs.NOBODY, Needs.ANYBODY) or user.admin:
        return True
    return bool(user.roles & _ABOVE[needed]) and bool(user.project_id)


def may_in(user: CloudUser, rule: Rule, project_id: str) -> bool:
    """Is a user allowed this of what belongs to that project? '' is an unknown project."""
    own = bool(project_id) and user.project_id == project_id
    return may(user, rule) and (user.admin or own)


def check(user: CloudUser, rule: Rule) -> None:
    """Raises Forbidden."""
    if not may(user, rule):
        raise forbidden(user, rule)


def forbidden(user: CloudUser, rule: Rule) -> Forbidden:
    """The refusal."""
    needed = NEEDS[rule]
    fix = f"ask an administrator for the role {needed}"
    if needed is Needs.ADMIN:
        fix = "ask an administrator to do it"
    return Forbidden(f"the policy os_compute_api:{rule} does not allow {user.name} to do this", fix=fix)
