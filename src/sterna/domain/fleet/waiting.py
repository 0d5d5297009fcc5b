"""Why a move of a plan has not begun yet: one sentence that is true now."""

from __future__ import annotations

from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.operations import Mays
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.plans import Move, Plan, Purpose
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.tables import Tables
from sterna.domain.model import Value

OUT, IN = "out", "in"
Way = tuple[str, str]
"""A host, and away from it or to it."""


class Progress(Value):
    """How far a plan has come. Numbers of its moves."""

    preparing: frozenset[int] = frozenset()
    copying: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()
    waves_over: int = 0
    """Waves whose hosts are open again."""


class Queue:
    """A plan with its slots, to be asked about one move after the other."""

    def __init__(self, snapshot: Snapshot, plan: Plan, may: Mays = frozenset()) -> None:
        tables = Tables(snapshot)
        self.plan = plan
        self.tables = tables
        self.limits = snapshot.limits
        self.paces = Paces(tables, may)
        self.budgets = Budgets(self.paces)
        self.move_of = {move.number: move for move in plan.moves}
        self._counted: tuple[Progress, dict[Way, list[Move]], dict[int, list[Move]]] | None = None

    def why(self, number: int, now: Progress) -> str:
        """Why the move has not begun; '' where nothing keeps it, or it has begun."""
        if number in now.preparing | now.copying | now.ended:
            return ""
        move = self.move_of[number]
        if move.wave > now.waves_over:
            hosts = ", ".join(self.plan.waves[now.waves_over].hosts[:3])
            return f"wave {now.waves_over + 1} has not ended: its hosts ({hosts}) must be open again first"
        for before in move.after:
            if before not in now.ended:
                return self._after(move, self.move_of[before])
        return self._slots(move, now)

    def _after(self, move: Move, before: Move) -> str:
        if before.vm == move.vm:
            return f"{move.name} must arrive on {before.target} first"
        if before.source == move.target:
            return f"{before.name} must leave {move.target} first, because {move.name} needs its capacity"
        if before.purpose is Purpose.PARK:
            return f"{before.name} must be parked on {before.target} first"
        return f"{before.name} must arrive on {before.target} first"

    def _slots(self, move: Move, now: Progress) -> str:
        prepared, used = self._count(now)
        for host, way, which in ((move.source, OUT, "migrations"), (move.target, IN, "migrations to it")):
            preparing = [one.name for one in prepared.get((host, way), ())]
            if len(preparing) >= self.limits.preparing:
                return f"{host} is already preparing {len(preparing)} {which}: {', '.join(preparing)}"
        for budget in self._budgets(move):
            copies = used.get(budget, [])
            shown = ", ".join(copy.name for copy in copies[:4]) + (" and others" if len(copies) > 4 else "")
            if len(copies) >= self.budgets.slots[budget]:
                return f"{self.budgets.names[budget]} already carries {len(copies)} copies: {shown}"
            if copies and sum(map(self._least, (*copies, move))) > self.budgets.room[budget]:
                return f"{self.budgets.names[budget]} has too little bandwidth left for {move.name} beside {shown}"
        return ""

    def _count(self, now: Progress) -> tuple[dict[Way, list[Move]], dict[int, list[Move]]]:
        """What each host prepares in each direction, and what each budget carries. Many moves are asked about at
        one moment."""
        if self._counted is not None and self._counted[0] is now:
            return self._counted[1:]
        prepared: dict[Way, list[Move]] = {}
        used: dict[int, list[Move]] = {}
        for number in sorted(now.preparing):
            move = self.move_of[number]
            for way in ((move.source, OUT), (move.target, IN)):
                prepared.setdefault(way, []).append(move)
        for number in sorted(now.copying):
            for budget in self._budgets(self.move_of[number]):
                used.setdefault(budget, []).append(self.move_of[number])
        self._counted = now, prepared, used
        return prepared, used

    def _least(self, move: Move) -> float:
        at = self.tables.host_at
        cap = self.paces.cap(at[move.source], at[move.target])
        return self.paces.least(self.tables.vm_at[move.vm], cap) if move.vm in self.tables.vm_at else cap

    def _budgets(self, move: Move) -> tuple[int, ...]:
        at = self.tables.host_at
        if move.source not in at or move.target not in at:
            return ()
        return self.budgets.of(at[move.source], at[move.target])
