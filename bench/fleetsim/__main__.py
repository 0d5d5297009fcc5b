"""`make fleet`: real controllers over a simulated fleet.

    python -m bench.fleetsim [SCENARIO ...] [--hosts N] [--vms N] [--seed N] [--compress N] [--postgres]

Without a name: all scenarios. Writes a report, pictures and the facts of each to out/fleet/SCENARIO. Exit code 1: a
run has shown what it must not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import structlog

from bench.fleetsim.driver import Options, Run, run_of
from bench.fleetsim.made import Size, make
from bench.fleetsim.pictures import draw
from bench.fleetsim.report import Row, judged, table
from bench.fleetsim.scenarios import SCENARIOS, Scenario

OUT = Path("out/fleet")


def asked() -> argparse.Namespace:
    """The command line. Exits where it names what there is not."""
    parser = argparse.ArgumentParser(prog="bench.fleetsim", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; all where none is named")
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--vms", type=int, help="ten for each host, where it is not given")
    parser.add_argument("--used", type=float, default=0.75, help="share of the memory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compress", type=float, default=20.0, help="how many times shorter copies are")
    parser.add_argument("--link", type=float, default=25.0, help="Gb/s of each host")
    parser.add_argument("--stream", type=float, default=0.0, help="Gb/s that one copy reaches; 0: the link")
    parser.add_argument("--generations", type=int, choices=(1, 2), default=1, help="of CPUs")
    parser.add_argument("--controllers", type=int, default=2)
    parser.add_argument("--postgres", action="store_true", help="not SQLite")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which a run is given up")
    given = parser.parse_args()
    if unknown := set(given.scenario) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    if given.hosts < 4:
        parser.error("a fleet has at least 4 hosts")
    return given


async def play(name: str, given: argparse.Namespace) -> Row:
    """One scenario; its numbers."""
    scenario: Scenario = SCENARIOS[name]
    size = Size(
        hosts=given.hosts,
        vms=given.vms or 10 * given.hosts,
        used=given.used,
        compress=given.compress,
        link_gbit_s=given.link,
        generations=given.generations,
    )
    options = Options(
        seed=given.seed,
        controllers=given.controllers,
        postgres=given.postgres,
        stream_gbit_s=given.stream,
        limit_s=given.limit,
    )
    made = make(size, given.seed)
    hosts = scenario.hosts(made, given.seed)
    made = scenario.prepare(made, hosts)
    with tempfile.TemporaryDirectory(prefix="sterna-fleet-") as folder:
        async with run_of(made, options, Path(folder)) as run:
            await run.ready()
            await run.begin(scenario.body(hosts, run.webhook.url))
            fault = asyncio.create_task(_fault(scenario, run))
            await run.watch()
            struck = await _ended(fault)
            await run.settled()
            row, _ = judged(run, scenario, hosts)
            row["wrong"] += [] if struck else ["the operation ended before the scenario's fault had run its course"]
            _write(name, scenario, run, row, hosts)
        _keep_logs(Path(folder), OUT / name)
    return row


def _keep_logs(folder: Path, to: Path) -> None:
    for log in sorted(folder.glob("*.log")):
        shutil.copy(log, to / log.name)


async def _fault(scenario: Scenario, run: Run) -> None:
    await scenario.fault(run)


async def _ended(fault: asyncio.Task[None]) -> bool:
    """Has it struck? One whose moment never came is given up."""
    done, _ = await asyncio.wait({fault}, timeout=60)
    if done:
        fault.result()
        return True
    fault.cancel()
    await asyncio.gather(fault, return_exceptions=True)
    return False


def _write(name: str, scenario: Scenario, run: Run, row: Row, hosts: list[str]) -> None:
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    report = table(name, scenario, run, row)
    (folder / "report.md").write_text(report)
    (folder / "result.json").write_text(json.dumps(row | {"operation": run.seen.operation}, indent=1) + "\n")
    with (folder / "facts.jsonl").open("w") as facts:
        for fact in run.crowd.truth.facts:
            facts.write(json.dumps(fact) + "\n")
    draw(run, hosts, folder)
    print(report)


async def main() -> int:
    """All that is asked for, one after the other."""
    given, wrong = asked(), 0
    if (this := asyncio.current_task()) is not None:  # so that nothing is left of a run that is ended
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for name in given.scenario or SCENARIOS:
        print(f"{name}: {SCENARIOS[name].tells}", flush=True)
        row = await play(name, given)
        wrong += bool(row["wrong"])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
