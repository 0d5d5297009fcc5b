"""How many there are of what, for metrics: grouped by the database, over indexes or small tables."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from sterna.adapters.sql.fleet_schema import migrations, operations, vms
from sterna.domain.fleet.course import UNFINISHED
from sterna.domain.status import FINAL, Status
from sterna.ports.fleet import FleetCounts

OPEN = sorted(status.value for status in frozenset(Status) - FINAL)


def counts(c: Connection) -> FleetCounts:
    """See ports.fleet.Fleet.counts."""
    of_vms = select(vms.c.host, vms.c.state, func.count()).group_by(vms.c.host, vms.c.state)
    ends = [migrations.c.document["migration"][end].as_string() for end in ("source", "destination")]
    holding = migrations.join(vms, vms.c.migration_id == migrations.c.id)
    of_migrations = select(migrations.c.status, *ends).select_from(holding).where(migrations.c.status.in_(OPEN))
    going_on = operations.c.status.in_(sorted(status.value for status in UNFINISHED))
    of_operations = select(operations.c.status, func.count()).where(going_on).group_by(operations.c.status)
    open_ones: dict[tuple[str, str, str], int] = {}
    for status, source, destination in c.execute(of_migrations):
        key = str(status), str(source or ""), str(destination or "")
        open_ones[key] = open_ones.get(key, 0) + 1
    return FleetCounts(
        vms={(host, state): number for host, state, number in c.execute(of_vms)},
        migrations=open_ones,
        operations={str(status): int(number) for status, number in c.execute(of_operations)},
    )
