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
    kept = _kept(tables, previous) if previous else {}
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


def _kept(tables: Tables, previous: Plan) -> dict[int, int]:
    """VM -> target, of moves from where the VM is."""
    at = tables.host_at
    moves = [move for move in previous.moves if move.vm in tables.vm_at and {move.source, move.target} <= at.keys()]
    homes = {move.vm: tables.home[tables.vm_at[move.vm]] for move in moves}
    return {tables.vm_at[move.vm]: at[move.target] for move in reversed(moves) if homes[move.vm] == at[move.source]}
