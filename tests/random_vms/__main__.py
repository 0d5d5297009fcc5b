"""`make vms`: VMs as people define them, planned and moved for real; out/vms.json and .md say what came of each.

Exit 1: something was wrong with one of them; its number and the seed play it again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sterna.lab.lab import Lab
from tests.e2e.conftest import Fleet
from tests.random_vms.draft import Vm
from tests.random_vms.generator import random_vm
from tests.random_vms.kinds import kinds
from tests.random_vms.play import Outcome, play
from tests.random_vms.reasons import ACCEPTED

STATE = Path(".lab-vms")


def main(arguments: Sequence[str]) -> int:
    """0: nothing was wrong; 1: something was; 2: it cannot be run like this."""
    parser = argparse.ArgumentParser(prog="python -m tests.random_vms", description="VMs as people have them.")
    parser.add_argument("--count", type=int, default=200, help="VMs that libvirt starts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, action="append", help="the number of one VM, to play it again")
    parser.add_argument("--kinds", action="store_true", help="one VM of each kind, instead of random ones")
    parser.add_argument("--jobs", type=int, default=2, help="labs side by side (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("out/vms.json"), help="where the results go")
    asked = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("the lab needs root: try 'sudo make vms'", file=sys.stderr)
        return 2
    began = time.monotonic()
    wanted = asked.only or range(10 * asked.count)
    vms = kinds() if asked.kinds else ((labelled(vm), vm) for vm in (random_vm(asked.seed, n) for n in wanted))
    if asked.kinds and asked.only:
        vms = [pair for pair in vms if pair[1].number in asked.only]
    supply = Supply(vms, 1000 if asked.kinds else asked.count)
    with ThreadPoolExecutor(asked.jobs) as labs:
        played = [labs.submit(play_all, f"{asked.seed}-{job}", supply, asked.kinds) for job in range(asked.jobs)]
    outcomes = sorted((o for one in played for o in one.result()), key=lambda o: o.vm.number)
    what = "One VM of each kind" if asked.kinds else f"Random VMs: seed {asked.seed}"
    report(asked.json, what, outcomes, time.monotonic() - began)
    print(asked.json.with_suffix(".md").read_text(), end="")
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def labelled(vm: Vm) -> str:
    """What is not ordinary about it."""
    return ", ".join(vm.traits) or "ordinary"


class Supply:
    """Deals VMs out to several labs, until enough have stood."""

    def __init__(self, vms: Iterable[tuple[str, Vm]], count: int) -> None:
        self._left, self._wanted, self._lock = iter(vms), count, threading.Lock()

    def __iter__(self) -> Iterator[tuple[str, Vm]]:
        while True:
            with self._lock:
                pair = next(self._left, None) if self._wanted > 0 else None
                self._wanted -= 1
            if pair is None:
                return
            yield pair

    def again(self) -> None:
        """One of them was no VM."""
        with self._lock:
            self._wanted += 1


def play_all(lab_name: str, supply: Supply, beside: bool) -> list[Outcome]:
    """On a lab of this job's own; one line each as they end."""
    outcomes = []
    lab = Lab.up(STATE / lab_name, owner=True)
    try:
        for label, vm in supply:
            outcome = play(Fleet(lab), label, vm, beside=beside)
            print(line(outcome), flush=True)
            outcomes.append(outcome)
            if outcome.ended == "no VM":
                supply.again()
    finally:
        lab.down()
    return outcomes


def line(outcome: Outcome) -> str:
    """One VM, and everything that was wrong with it."""
    words = f"{outcome.vm.number:4} {outcome.ended:8} {outcome.label}"
    if outcome.codes:
        words += f" -> {', '.join(outcome.codes)}"
    words += "".join(f"\n     WRONG: {wrong}" for wrong in outcome.wrong)
    return words + (f"\n     {outcome.why[:300]}" if outcome.why else "")


def report(path: Path, what: str, outcomes: Sequence[Outcome], seconds: float) -> None:
    """All of it, for machines and for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [
        {"number": o.vm.number, "label": o.label, "ended": o.ended, "codes": o.codes, "virsh": o.virsh}
        | {"said": o.said, "why": o.why, "wrong": o.wrong}
        for o in outcomes
    ]
    path.write_text(json.dumps({"what": what, "seconds": round(seconds), "vms": plain}, indent=2) + "\n")
    path.with_suffix(".md").write_text(markdown(what, outcomes, seconds))


def markdown(what: str, outcomes: Sequence[Outcome], seconds: float) -> str:
    """The tables of docs/lab-notebook/kinds.md."""
    ends, codes = Counter(o.ended for o in outcomes), Counter(code for o in outcomes for code in o.codes)
    stood = sum(count for end, count in ends.items() if end != "no VM")
    lines = [
        f"{what}, {stood} stood, {seconds:.0f} s",
        "",
        *(f"- {end}: {count}" for end, count in ends.most_common()),
    ]
    lines += ["", "| VM | Sterna | `virsh migrate` |", "|---|---|---|"]
    lines += [f"| {o.label} | {_end(o)} | {_virsh(o)} |" for o in outcomes if o.ended != "no VM"]
    lines += [
        "",
        "| Refused with | VMs |",
        "|---|---|",
        *(f"| `{code}` | {n} |" for code, n in codes.most_common()),
    ]
    wrong = [f"- VM {o.vm.number}: {text}" for o in outcomes for text in o.wrong]
    return "\n".join([*lines, *(["", "WRONG:", *wrong] if wrong else [])]) + "\n"


def _end(outcome: Outcome) -> str:
    codes = ", ".join(f"`{code}`" for code in outcome.codes)
    words = {"moved": "there and back", "stayed": f"there; back: {codes}", "refused": codes}
    return words.get(outcome.ended, outcome.ended)


def _virsh(outcome: Outcome) -> str:
    words = outcome.virsh.replace("\n", " ").replace("|", "/").removeprefix("error: ").split(" error: ")[-1]
    words = textwrap.shorten(re.sub(r"[0-9a-f-]{36}", "UUID", words).rpartition("Z qemu-system-x86_64: ")[2], 110)
    if outcome.ended != "refused" or outcome.virsh not in ("moves it", "not asked"):
        return words
    return f"{words}: " + "; ".join(ACCEPTED[code] for code in outcome.codes if code in ACCEPTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
