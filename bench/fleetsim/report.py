"""What a run came to, in numbers: judged by the truth, beside what the controllers said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.fleetsim.audit import Finding, audit, least_s, left_on
from bench.fleetsim.driver import Run
from bench.fleetsim.made import Made
from bench.fleetsim.scenarios import Scenario
from bench.fleetsim.truth import Fact, What

Row = dict[str, Any]


@dataclass(frozen=True)
class Move:
    """A VM on its way, as it was. Times are seconds of the run's clock."""

    vm: str
    source: str
    target: str
    from_s: float
    to_s: float
    arrived: bool


def moves_of(facts: Sequence[Fact]) -> list[Move]:
    """From the moment that the target holds memory for it until one of the two hosts has none."""
    at: dict[str, str] = {}
    coming: dict[tuple[str, str], tuple[str, float]] = {}
    found: list[Move] = []
    for fact in facts:
        key = fact.vm, fact.host
        if fact.what is What.HOLDS and fact.vm in at:
            coming[key] = at[fact.vm], fact.at_s
        elif fact.what is What.RUNS:
            at[fact.vm] = fact.host
            if key in coming:
                source, since = coming.pop(key)
                found.append(Move(fact.vm, source, fact.host, since, fact.at_s, arrived=True))
        elif fact.what is What.FREES and key in coming:
            source, since = coming.pop(key)
            found.append(Move(fact.vm, source, fact.host, since, fact.at_s, arrived=False))
    return found


def judged(run: Run, scenario: Scenario, hosts: Sequence[str]) -> tuple[Row, Finding]:
    """The numbers, and what the auditor has found. `wrong` in the numbers: all that a run must not show."""
    facts, operation = run.crowd.truth.facts, run.seen.operation
    finding = audit(run.made, facts, run.closings())
    moves, took_s = moves_of(facts), run.seen.ended_s - run.seen.begun_s
    left = left_on(run.made, facts, hosts) if scenario.kind == "drain" else []
    lost = {run.made.vms[vm].name for vm in finding.lost}
    wrong = list(finding.violations)
    if operation["status"] not in scenario.ends:
        wrong.append(
            f"the operation is {operation['status']}: {operation['waits_for'] or operation['paused_because']}"
        )
    if len(left) > scenario.stays:
        wrong.append(f"left on the hosts: {', '.join(left)}")
    said = {one["vm_name"] for one in operation["stays"]}
    if unsaid := sorted(set(left) - said):
        wrong.append(f"left on the hosts without a reason: {', '.join(unsaid)}")
    row: Row = {
        "hosts": len(hosts),
        "status": operation["status"],
        "moved": len(finding.moved),
        "migrations": len(moves),
        "did_not_arrive": sum(not move.arrived for move in moves),
        "moves_per_vm": round(sum(finding.moved.values()) / len(finding.moved), 3) if finding.moved else 0.0,
        "left": left,
        "reasons": {one["vm_name"]: one["reason"] for one in operation["stays"]},
        "lost": sorted(lost),
        "took_s": round(took_s, 2),
        "fullest": round(finding.fullest, 3),
        "refused": dict(run.crowd.refused),
        "calls": dict(sorted(run.crowd.calls.items())),
        "controllers_cpu_s": [
            round(one.cpu_s() - before, 2) for one, before in zip(run.controllers, run.seen.cpu_s, strict=True)
        ],
        "longest_tick_s": round(run.crowd.longest_tick_s, 2),
        "controllers_mib": [one.memory_mib() for one in run.controllers],
        "wrong": wrong,
    }
    return row | _promised(run, run.made, scenario, hosts, took_s), finding


def _promised(run: Run, made: Made, scenario: Scenario, hosts: Sequence[str], took_s: float) -> Row:
    """What was promised before it began, and the least that any order would take."""
    preview = run.seen.preview
    promised, expected = preview["promised_s"], preview["expected_s"]
    drain = scenario.kind == "drain"
    return {
        "promised_s": round(promised, 2),
        "expected_s": round(expected, 2),
        "kept": took_s <= promised if drain else None,
        "least_s": round(least_s(made, hosts), 2) if drain else None,
        "planned_left": len(preview["stays"]),
    }


def table(name: str, scenario: Scenario, run: Run, row: Row) -> str:
    """As Markdown."""
    size, options = run.made.size, run.options
    lines = [
        f"# {name}: {scenario.tells}",
        "",
        f"{len(run.made.hosts)} hosts, {len(run.made.vms)} VMs, seed {options.seed}; memories and copies are "
        f"{size.compress:g} times smaller; {options.controllers} controllers, "
        f"{'PostgreSQL' if options.postgres else 'SQLite'}. Seconds are of the run.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in _cells(row)),
        "",
        "## What happened",
        "",
        *(f"- {at - run.seen.begun_s:.1f} s: {what}" for at, what in run.seen.events),
        "",
        "## What stays, as the controllers say",
        "",
        *([f"- {vm}: {why}" for vm, why in row["reasons"].items()] or ["Nothing."]),
        "",
        "## What is wrong",
        "",
        *([f"- {one}" for one in row["wrong"]] or ["Nothing."]),
        "",
    ]
    return "\n".join(lines)


def _cells(row: Row) -> list[tuple[str, str]]:
    least = "" if row["least_s"] is None else f" (at least {row['least_s']:g} s for the links alone)"
    return [
        ("hosts of the operation", str(row["hosts"])),
        ("it ended as", row["status"]),
        ("VMs moved", f"{row['moved']}, {row['moves_per_vm']:g} times each"),
        ("migrations that did not arrive", str(row["did_not_arrive"])),
        ("VMs left", ", ".join(row["left"]) or "none"),
        ("VMs lost with their host", str(len(row["lost"]))),
        ("took", f"{row['took_s']:g} s{least}"),
        ("promised, expected before it began", f"{row['promised_s']:g} s, {row['expected_s']:g} s"),
        ("promise kept", "not comparable: reboots are compressed" if row["kept"] is None else _yes(row["kept"])),
        ("fullest host at any instant", f"{row['fullest']:.1%}"),
        ("refused by hosts", ", ".join(f"{k}: {v}" for k, v in sorted(row["refused"].items())) or "nothing"),
        ("controllers' processor time meanwhile", ", ".join(f"{one:g} s" for one in row["controllers_cpu_s"])),
        ("controllers' memory", ", ".join(f"{one} MiB" for one in row["controllers_mib"])),
        ("longest time without a tick of the hosts", f"{row['longest_tick_s']:g} s (0.1 s on an idle machine)"),
    ]


def _yes(so: bool) -> str:
    return "yes" if so else "no"
