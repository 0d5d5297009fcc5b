"""What each transaction about placement rules does, on a connection. Called by `fleet.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from sterna.adapters.sql.fleet_schema import attempts, hosts, migrations, rules, vms
from sterna.adapters.sql.host_statements import closed_hosts
from sterna.domain.errors import Conflict, NotFound, Refused
from sterna.domain.fleet.attempts import AttemptState
from sterna.domain.fleet.rule_checks import Placed, RuleFacts, away_of, down_together
from sterna.domain.fleet.rules import Rule, RuleKind, VmNames, refuse_contradiction
from sterna.domain.journal import Migration
from sterna.domain.model import GuestState

MOST_NAMED = 500
"""In one query: databases limit the parameters of a statement."""
_ACTIVE = [state.value for state in AttemptState if not state.ended]


def _rule(row: Row[Any]) -> Rule:
    return Rule.model_validate(row.document | {"name": row.name, "kind": row.kind})


def _values(rule: Rule) -> dict[str, Any]:
    columns = rule.model_dump(mode="json", include={"name", "kind"})
    return columns | {"document": rule.model_dump(mode="json", exclude=set(columns))}


def all_rules(c: Connection) -> list[Rule]:
    """See ports.rules.RuleRecords.rules."""
    return [_rule(row) for row in c.execute(select(rules).order_by(rules.c.name))]


def required_rule(c: Connection, name: str) -> Rule:
    """See ports.rules.RuleRecords.rule."""
    found = c.execute(select(rules).where(rules.c.name == name)).first()
    if found is None:
        raise NotFound(f"there is no rule {name}", fix="`sterna rules list` lists them")
    return _rule(found)


def put(c: Connection, new: Rule, *, replace: bool) -> tuple[Rule, bool]:
    """See ports.rules.RuleRecords.put_rule."""
    every = all_rules(c)
    known = next((rule for rule in every if rule.name == new.name), None)
    if known is not None and known.orders_the_same(new):
        return known, False
    if known is not None and not replace:
        fix = f"choose another name, or replace it: `sterna rules add {new.kind} {new.name} --replace`"
        raise Conflict(f"there is another rule {new.name}, of the kind {known.kind}", fix=fix)
    about = (row for some in _portions(sorted(new.vms)) for row in _rows(c, some))
    refuse_contradiction(
        new, every, VmNames((uuid, name) for uuid, name in {(row.uuid, row.name) for row in about})
    )
    if known is None:
        c.execute(insert(rules).values(**_values(new)))
    else:
        c.execute(update(rules).where(rules.c.name == new.name).values(**_values(new)))
    return new, known is None


def remove(c: Connection, name: str) -> Rule:
    """See ports.rules.RuleRecords.remove_rule."""
    known = required_rule(c, name)
    c.execute(delete(rules).where(rules.c.name == name))
    return known


# ---------------------------------------------------------------- where the VMs are that rules name


def placed(c: Connection, named: Collection[str]) -> list[Placed]:
    """See ports.rules.RuleRecords.placed."""
    found = {row.uuid: row for some in _portions(sorted(named)) for row in _rows(c, some)}
    to: dict[str, list[str]] = {}
    for uuid, target in (*_decided(c, found), *_running(c, found)):
        to.setdefault(uuid, []).append(target)
    return [
        Placed(uuid=row.uuid, name=row.name, host=row.host, to=tuple(sorted({*to.get(row.uuid, ())} - {row.host})))
        for row in found.values()
    ]


def _rows(c: Connection, named: list[str]) -> list[Row[Any]]:
    there = vms.c.state != GuestState.ABSENT.value
    wanted = select(vms.c.uuid, vms.c.name, vms.c.host, vms.c.migration_id).where(there)
    return list(c.execute(wanted.where(or_(vms.c.uuid.in_(named), vms.c.name.in_(named)))))


def _decided(c: Connection, found: dict[str, Row[Any]]) -> Iterator[tuple[str, str]]:
    """VMs and targets of what operations have decided on."""
    if not found:
        return
    for row in c.execute(select(attempts.c.document).where(attempts.c.state.in_(_ACTIVE))):
        if row.document["vm"] in found:
            yield row.document["vm"], row.document["target"]


def _running(c: Connection, found: dict[str, Row[Any]]) -> Iterator[tuple[str, str]]:
    """VMs and destinations of migrations that hold them."""
    holders = {row.migration_id: row.uuid for row in found.values() if row.migration_id is not None}
    for some in _portions(sorted(holders)):
        for row in c.execute(select(migrations.c.id, migrations.c.document).where(migrations.c.id.in_(some))):
            yield holders[row.id], row.document["migration"]["destination"]


def _portions(names: list[str]) -> Iterator[list[str]]:
    yield from (names[first : first + MOST_NAMED] for first in range(0, len(names), MOST_NAMED))


def facts(c: Connection, uuid: str, name: str) -> RuleFacts:
    """See ports.rules.RuleRecords.rule_facts."""
    every = all_rules(c)
    about = [rule for rule in every if rule.names(uuid, name)]
    if not about:
        return RuleFacts()
    domains = [rule for rule in every if rule.kind is RuleKind.FAILURE_DOMAIN]
    named = {one for rule in about for one in rule.vms}
    return RuleFacts(rules=(*about, *domains), placed=tuple(placed(c, named)), closed=closed_hosts(c))


# ---------------------------------------------------------------- rules that are judged where something begins


def check_migration(c: Connection, migration: Migration, up: Collection[str]) -> None:
    """Raises Refused where a rule speaks against it, as things stand in this transaction. `up`: hosts that can be
    used."""
    uuid, name = migration.vm_uuid, migration.vm_name
    vm = Placed(uuid=uuid, name=name, host=migration.source)
    if against := facts(c, uuid, name).judge(vm, up).against(migration.destination):
        raise Refused(against)


def check_closing(c: Connection, closing: Collection[str], up: Collection[str], but: Collection[str] = ()) -> None:
    """Raises Refused where a rule says that these hosts are not to be down together, or with one that is closed or
    not in `up`. `but`: hosts that are closed, and do not count for that."""
    every = all_rules(c)
    if not any(rule.kind is RuleKind.NOT_DOWN_TOGETHER for rule in every):
        return
    known = c.execute(select(hosts.c.name, hosts.c.maintenance)).all()
    if against := down_together(
        every, closing, away_of({row.name: row.maintenance and row.name not in but for row in known}, up)
    ):
        raise Refused(against)
