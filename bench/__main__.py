"""`make bench`: Sterna against `virsh migrate`, interleaved at random in one run on one lab.

    python -m bench [EXPERIMENT ...] [--rounds N] [--tls]

Prints a table for each and writes every sample to out/bench/. Numbers of different runs are not to be compared:
machines are noisy, the ratios of one run are what counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from bench.experiments import EXPERIMENTS
from sterna.lab.lab import Lab

ROUNDS = 20
OUT = Path("out/bench")


def main() -> int:
    """The benchmark; raises LabError where a migration went wrong."""
    asked = argparse.ArgumentParser(prog="bench", description=__doc__)
    asked.add_argument("experiment", nargs="*", help=f"of {', '.join(EXPERIMENTS)}; all where none is named")
    asked.add_argument("--rounds", type=int, default=ROUNDS)
    asked.add_argument("--tls", action="store_true", help="encrypt everything, of both")
    told = asked.parse_args()
    unknown = set(told.experiment) - set(EXPERIMENTS)
    if unknown:
        asked.error(f"there is no experiment {', '.join(sorted(unknown))}")
    console = Console(soft_wrap=True)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in told.experiment or EXPERIMENTS:
        lab = Lab.up(Path(".lab-bench"), owner=True, insecure=not told.tls)
        try:
            rows, shown = EXPERIMENTS[name](lab, told.rounds, console)
        finally:
            lab.down()
        (OUT / f"{name}{'-tls' if told.tls else ''}.json").write_text(json.dumps(rows, indent=1))
        console.print(shown)
    console.print(f"Every sample: {OUT}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
