"""`make soak`: many guests move while faults strike at random; out/soak.json and .md say what came of it.

Exit 1: something was wrong, and out/soak/SEED has the evidence.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.soak.plan import parts, plan
from tests.soak.run import Report, Run
from tests.soak.stage import Options


def main(arguments: Sequence[str]) -> int:
    """0: nothing was wrong; 1: something was; 2: it cannot be run like this."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Many guests, random faults.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--guests", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--controllers", type=int, choices=(1, 2), help="2 with PostgreSQL, else 1")
    parser.add_argument("--plan", action="store_true", help="print the plan of faults and do nothing")
    parser.add_argument("--json", type=Path, default=Path("out/soak.json"), help="where the result goes")
    asked = parser.parse_args(arguments)
    controllers = asked.controllers or (2 if asked.database == "postgresql" else 1)
    options = Options(asked.minutes, asked.guests, asked.seed, asked.database, controllers)
    if asked.plan:
        names = [f"soak{number + 1}" for number in range(options.guests)]
        for strike in plan(options.seed, options.minutes * 60, parts(names, controllers, options.database)):
            print(f"{strike.at_s:8.2f} s  {strike.fault} {strike.part} for {strike.for_s} s")
        return 0
    if os.geteuid() != 0:
        print("the lab needs root: try 'sudo make soak'", file=sys.stderr)
        return 2
    report = Run(options).play()
    write(asked.json, report)
    print(asked.json.with_suffix(".md").read_text(), end="")
    if not report.passed:
        print(f"\nEvidence: {options.folder}; to replay: {replay(report)}")
    return 0 if report.passed else 1


def replay(report: Report) -> str:
    """The command that plays the same faults again."""
    words = {"MINUTES": f"{report.minutes:g}", "GUESTS": report.guests, "SEED": report.seed}
    words |= {"DATABASE": report.database, "CONTROLLERS": report.controllers}
    return "make soak " + " ".join(f"{key}={value}" for key, value in words.items())


def write(path: Path, report: Report) -> None:
    """All of it, for machines and for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.plain(), indent=2) + "\n")
    path.with_suffix(".md").write_text(markdown(report))


def markdown(report: Report) -> str:
    """A summary for docs/lab-notebook/chaos-and-matrix-runs.md."""
    held = max(report.longest_held_s.items(), key=lambda pair: pair[1], default=("no guest", 0.0))
    settled = "not settled" if report.settle_s is None else f"settled {report.settle_s:.0f} s after the last fault"
    lines = [
        f"Soak: seed {report.seed}, {report.minutes:g} minutes, {report.guests} guests, "
        f"{report.controllers} controller(s) on {report.database}: **{'passed' if report.passed else 'FAILED'}**",
        "",
        f"- faults: {sum(report.faults.values())} ({_counted(report.faults)}; {report.missed} missed)",
        f"- migrations: {report.accepted} accepted of {report.requests} requests ({_counted(report.ends)})",
        f"- two running copies looked for {report.looks} times in both libvirts, {report.windows} times in /proc",
        f"- {report.events} events followed; {settled}; longest held: {held[0]} for {held[1]:.0f} s",
        f"- {report.seconds:.0f} s in all",
    ]
    lines += ["", *(f"- WRONG: {line}" for line in report.wrong)] if report.wrong else []
    return "\n".join(lines) + "\n"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
