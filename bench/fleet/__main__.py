"""`make bench-fleet`: the planner of fleet operations, in simulated fleets of 1,000 hosts and 10,000 VMs.

    python -m bench.fleet [MEASURE ...] [--keep]

Needs no lab. Prints tables and writes every row to out/bench/fleet.json. With --keep rows and pictures go to docs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from bench.fleet.measures import MEASURES, Row
from bench.fleet.pictures import draw
from bench.fleet.tables import SHOWN

OUT = Path("out/bench")
KEPT = Path("docs/lab-notebook/benchmarks")
PICTURES = Path("docs/explanation")


def main() -> int:
    """Measure, print, write."""
    asked = argparse.ArgumentParser(prog="bench.fleet", description=__doc__)
    asked.add_argument("measure", nargs="*", help=f"of {', '.join(MEASURES)}; all where none is named")
    asked.add_argument("--keep", action="store_true", help=f"write rows to {KEPT} and pictures to {PICTURES}")
    given = asked.parse_args()
    unknown = set(given.measure) - set(MEASURES)
    if unknown:
        asked.error(f"there is no measure {', '.join(sorted(unknown))}")
    console = Console(soft_wrap=True)
    results: dict[str, list[Row]] = {}
    for name in given.measure or MEASURES:
        results[name] = MEASURES[name]()
        console.print(SHOWN[name](results[name]))
    OUT.mkdir(parents=True, exist_ok=True)
    for folder in (OUT, KEPT) if given.keep else (OUT,):
        (folder / "fleet.json").write_text(json.dumps(results, indent=1) + "\n")
    for picture in draw(results, PICTURES) if given.keep else ():
        console.print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
