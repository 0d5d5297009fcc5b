"""How long a migration takes against how long `sterna plan` said: before a VM's first one, and after three.

Half of the guests are planned with a bandwidth that is named (and kept to), the other half with what the hosts have
learnt from the migration of another guest. Each is planned, moved three times, planned again, and moved once more.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.arms import Load, Sterna
from sterna.lab.errors import LabError
from sterna.lab.lab import Lab

MIB = 1 << 20
SETTLE_S = 3.0
"""A guest fills its area after its start."""


class Case(NamedTuple):
    """A guest and what is known of the way."""

    memory_mib: int
    dirty_mib_s: int
    named_mib_s: int | None = None


CASES = (
    Case(256, 5), Case(512, 0), Case(512, 30), Case(1024, 10), Case(1024, 40),
    Case(256, 5, 20), Case(512, 20, 40), Case(512, 0, 60), Case(1024, 20, 60), Case(1024, 5, 40),
)  # fmt: skip
TEACHER = Load(memory_mib=512, dirty_mib_s=10)


class Foreseen(Sterna):
    """One guest that is planned and moved."""

    name = "foreseen"

    def plan(self, named_mib_s: int | None) -> dict[str, Any]:
        """Pre-copy's forecast. Raises LabError where there is none."""
        asked = {"vm": self.guests[0].name, "destination": self.there} | _bandwidth(named_mib_s)
        plan = self.api.post("/v1/plans", asked)
        if not plan["forecasts"]:
            raise LabError(f"no forecast: {plan['load_reason']} {plan['bandwidth_from']} {plan['blockers']}")
        return dict(plan["forecasts"][0]) | {"load": plan["load"], "bandwidth": plan["bandwidth_bytes_s"]}

    def go(self, named_mib_s: int | None) -> dict[str, Any]:
        """To the other host; what it was."""
        there = self.there
        asked = {"vm": self.guests[0].name, "destination": there, "finish_within_s": 300}
        migration = str(self.api.post("/v1/migrations", asked | _bandwidth(named_mib_s))["id"])
        self.await_end(migration)
        self.here = there
        return dict(self.api.get(f"/v1/migrations/{migration}")["report"])


def _bandwidth(mib_s: int | None) -> dict[str, int]:
    return {} if mib_s is None else {"bandwidth_bytes_s": mib_s * MIB}


def foreseen(lab: Lab, console: Console) -> tuple[list[dict[str, Any]], Table]:
    """Every case in turn."""
    teacher = Foreseen(lab, TEACHER)
    teacher.wake()
    for _ in range(2):
        teacher.go(None)
    lab.remove_vm(teacher.guests[0].name)
    rows = []
    for case in CASES:
        arm = Foreseen(lab, Load(memory_mib=case.memory_mib, dirty_mib_s=case.dirty_mib_s))
        arm.wake()
        time.sleep(SETTLE_S)
        for moves_before in (0, 3):
            told = arm.plan(case.named_mib_s)
            report = arm.go(case.named_mib_s)
            error = report["total_ms"] / told["total_ms"] - 1 if told["total_ms"] else None
            rows.append(case._asdict() | {"after": moves_before, "told": told, "report": report, "error": error})
            console.print(
                f"{case} after {moves_before}: {told['total_ms']} ms told, {report['total_ms']} ms, {error}"
            )
            for _ in range(0 if moves_before else 2):
                arm.go(case.named_mib_s)
        if not arm.guests[0].status().clean:
            raise LabError(f"{arm.guests[0].name} is not whole")
        lab.remove_vm(arm.guests[0].name)
    console.print(f"sterna accuracy: {teacher.api.get('/v1/accuracy')}")
    return rows, _table(rows)


def _table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(
        "total time, forecast", "within 10 %", "within 25 %", "median error", title="actual against forecast"
    )
    for after, name in ((0, "before a VM's first migration"), (3, "after three")):
        errors = [abs(r["error"]) if r["error"] is not None else 1.0 for r in rows if r["after"] == after]
        within = (f"{sum(e <= limit for e in errors)} of {len(errors)}" for limit in (0.10, 0.25))
        shown.add_row(name, *within, f"{statistics.median(errors) * 100:.0f} %")
    return shown
