"""A snapshot and an operation in, a plan out."""

from __future__ import annotations

from sterna.domain.fleet.balancing import plan_balance
from sterna.domain.fleet.draining import plan_drain
from sterna.domain.fleet.operations import BringBack, Drain, Operation, Rolling
from sterna.domain.fleet.plans import Plan
from sterna.domain.fleet.returning import plan_return
from sterna.domain.fleet.rolling import plan_rolling
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.tables import Tables


def plan(snapshot: Snapshot, operation: Operation, previous: Plan | None = None) -> Plan:
    """The plan. `previous`: its moves that have not begun keep their targets where these still have room."""
    tables = Tables(snapshot)
    kept = {
        tables.vm_at[move.vm]: tables.host_at[move.target]
        for move in (previous.moves if previous else ())
        if move.vm in tables.vm_at and move.target in tables.host_at
    }
    if isinstance(operation, Drain):
        return plan_drain(tables, operation, kept)
    if isinstance(operation, Rolling):
        waves = enumerate(previous.waves if previous else ())
        return plan_rolling(
            tables, operation, kept, {name: number for number, wave in waves for name in wave.hosts}
        )
    if isinstance(operation, BringBack):
        return plan_return(tables, operation)
    return plan_balance(tables, operation)
