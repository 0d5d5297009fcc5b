"""`make chaos`: play real fault cases on labs side by side, print a table, write out/chaos.json and .md.

Without arguments all cases; with names those, to replay them; `--list` prints the names. Exit 1: one failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.case import Case
from tests.chaos.cases import CASES
from tests.chaos.play import Outcome
from tests.chaos.workers import default_jobs, play_all


def main(arguments: Sequence[str]) -> int:
    """0: all passed; 1: some did not; 2: there is no such case."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Real faults on real hosts.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a case's name; none: all cases")
    parser.add_argument("--list", action="store_true", help="print the names and do nothing")
    parser.add_argument("--jobs", type=int, default=default_jobs(), help="labs side by side (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("out/chaos.json"), help="where the results go")
    asked = parser.parse_args(arguments)
    chosen, unknown = choose(asked.names)
    if unknown:
        print(f"no such case: {', '.join(unknown)}. `python -m tests.chaos --list` names them.", file=sys.stderr)
        return 2
    if asked.list:
        print("\n".join(case.name for case in chosen))
        return 0
    if os.geteuid() != 0:
        print("the lab needs root: try 'sudo make chaos'", file=sys.stderr)
        return 2
    began = time.monotonic()
    played = {o.case: o for o in play_all(mixed(chosen), asked.jobs, Progress(len(chosen)))}
    outcomes = [played[case.name] for case in chosen]
    took = time.monotonic() - began
    write(asked.json, outcomes, took)
    Console(width=140).print(table(outcomes))
    failed = [o for o in outcomes if not o.passed]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases passed in {took:.0f} s; {asked.json} has it all")
    return 1 if failed else 0


def choose(names: Sequence[str]) -> tuple[list[Case], list[str]]:
    """The cases of these names (none: all), those of one guest together; and the names that no case has."""
    known = {case.name: case for case in CASES}
    wanted = [known[name] for name in names if name in known] if names else CASES
    return sorted(wanted, key=lambda case: case.disks), [name for name in names if name not in known]


def mixed(cases: Sequence[Case]) -> list[Case]:
    """Those of one guest together, else in an order that has nothing to do with what breaks: a part that hangs is
    waited for, one that dies keeps the processors busy, and both side by side take less time."""
    return sorted(cases, key=lambda case: (case.disks, hashlib.sha256(case.name.encode()).digest()))


class Progress:
    """One line each as they end; why, where one failed."""

    def __init__(self, total: int) -> None:
        self._number, self._total = 0, total

    def __call__(self, outcome: Outcome) -> None:
        self._number += 1
        word = "ok    " if outcome.passed else "FAILED"
        number = f"{self._number:3}/{self._total}"
        print(f"{number} {word} {outcome.seconds:5.1f} s  {outcome.case}: {outcome.ends}", flush=True)
        for line in [*outcome.two_copies, *outcome.leaks, *outcome.why]:
            print(f"       {line}", flush=True)


def table(outcomes: Sequence[Outcome]) -> Table:
    """One row per case."""
    shown = Table("case", "ends", box=None, pad_edge=False)
    for column in ("service s", "longest gap ms", "leaks", "case s"):
        shown.add_column(column, justify="right")
    shown.add_column("")
    for o in outcomes:
        service, gap, verdict = _number(o.service_s, 1), _number(o.gap_ms, 0), "" if o.passed else "FAILED"
        verdict = " ".join(filter(None, (verdict, _together(o))))
        shown.add_row(o.case, o.ends, service, gap, str(len(o.leaks)), f"{o.seconds:.1f}", verdict)
    return shown


def write(path: Path, outcomes: Sequence[Outcome], took: float) -> None:
    """All of it, for machines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = sum(not o.passed for o in outcomes)
    whole = {"cases": len(outcomes), "failed": failed, "seconds": took, "outcomes": [o.plain() for o in outcomes]}
    path.write_text(json.dumps(whole, indent=2) + "\n")
    path.with_suffix(".md").write_text(markdown(outcomes))


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table of docs/lab-notebook/chaos-and-matrix-runs.md."""
    lines = ["| Case | Ends | Service, s | Longest gap, ms |", "|---|---|---:|---:|"]
    for o in outcomes:
        ends = ", ".join(filter(None, (o.ends, _together(o))))
        lines.append(f"| {o.case} | {ends} | {_number(o.service_s, 1)} | {_number(o.gap_ms, 0)} |")
    return "\n".join(lines) + "\n"


def _together(outcome: Outcome) -> str:
    return f"two copies seen for {outcome.together_ms:.0f} ms" if outcome.together_ms else ""


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
