"""Does the matrix notice? Each mutant takes one safeguard out of the product; the matrix must fail.

`python -m tests.matrix.mutants [WORD]` (`make mutants`): a line per mutant (of those whose name has WORD in it),
and the score. A mutant is killed by the first case that fails. It is tried on the singles that strike the steps it
is about, then on a sample of `CASES` others and on `PAIRS` pairs; docs/reliability.md explains the survivors.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sterna.agent.arrivals import Arrivals
from sterna.agent.source import SourceDesk
from sterna.agent.tokens import CheckTokens
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.step import Flow
from sterna.migration import flow, post, rollback, transfer
from sterna.migration.context import Context
from sterna.rpc.outbox import Outbox
from tests.matrix import cases
from tests.matrix.crew import _play, _play_pair, _prepare, silence
from tests.matrix.exclusions import why_not
from tests.matrix.play import KINDS, SCRIPTS, Case

CASES, PAIRS, SEED = int(os.environ.get("STERNA_CASES", "400")), 100, 5
FLOWS = (flow.SOURCE, flow.DESTINATION, flow.DESTINATION_POST)

Mutant = Callable[[], Any]
"""Makes a context in which the product is mutilated."""


# ---------------------------------------------------------------- the mutants


def every_mutant() -> Iterator[tuple[str, Mutant]]:
    """Name and mutant: each undo, each listed step of a compensation, each intent, and single safeguards."""
    steps = {s for listed in FLOWS for s in (*listed.until_pivot, *listed.after_pivot)}
    for step in sorted(steps, key=lambda s: s.name):
        for undo in step.undo:
            rest = tuple(u for u in step.undo if u is not undo)
            yield f"undo {undo.name} of {step.name}", lambda s=step, r=rest: patch.object(s, "undo", r)
    for listed, where in ((flow.SOURCE, "before_undo"), (flow.DESTINATION, "before_undo")):
        for step in getattr(listed, where):
            yield f"step {step.name} of the rollback", lambda f=listed, w=where, s=step: _without(f, w, s)
    for listed in (flow.SOURCE, flow.DESTINATION_POST):
        for step in listed.after_pivot[:-1]:
            yield f"step {step.name} after the pivot", lambda f=listed, s=step: _without(f, "after_pivot", s)
    undone = {u for s in steps for u in s.undo}
    framed = {*flow.SOURCE.before_undo, *flow.SOURCE.after_undo, *flow.DESTINATION.before_undo}
    for name in sorted({s.name for s in steps | undone | framed}):
        yield f"intent of {name}", lambda n=name: _unwritten(Kind.INTENT, n)
    yield from SAFEGUARDS.items()


@contextmanager
def _without(listed: Flow[Any], where: str, step: type) -> Iterator[None]:
    """The flow without one of its steps."""
    whole = getattr(listed, where)
    object.__setattr__(listed, where, tuple(s for s in whole if s is not step))
    try:
        yield
    finally:
        object.__setattr__(listed, where, whole)


def _unwritten(kind: Kind, name: str = "") -> Any:
    """Entries of this kind (and name) stay in this life's memory and never reach the journal."""
    write = Context.write

    def forgetful(self: Context, given: Kind, *, row: str = "", name: str = "", data: Any = None) -> None:
        if given is not kind or wanted not in ("", name):
            write(self, given, row=row, name=name, data=data)
            return
        lost = Entry(seq=0, migration_id="", epoch=0, role=Role.SOURCE, kind=given, row=row, name=name,
                     at="", mono_ms=0, boot="", data=data or {})  # fmt: skip
        self.history.add(lost)
        self.news.set()

    wanted = name
    return patch.object(Context, "write", forgetful)


def _never(owner: object, name: str, answer: object = None) -> Mutant:
    """An async method that does nothing."""

    async def nothing(*args: Any, **named: Any) -> object:
        return answer

    return lambda: patch.object(owner, name, nothing)


def _locate_trusting(which: str) -> Mutant:
    """A decision that overlooks one thing."""
    real = transfer.locate

    def blind(source: Any, destination: Any, **more: Any) -> Any:
        if which == "destination":
            destination = destination.model_copy(update={"ran": False})
        elif which == "job":
            source = source.model_copy(update={"job_active": False})
        elif which == "handed over":
            more["handed_over"] = False
            source = source.model_copy(update={"reason": ""})
        elif which == "started":
            more["started"] = False
        return real(source, destination, **more)

    @contextmanager
    def both() -> Iterator[None]:
        with patch.object(transfer, "locate", blind), patch.object(rollback, "locate", blind):
            yield

    return both


def _unsent(self: Outbox, envelope: Any) -> None:
    """The cast is given to the courier, the journal does not get it."""
    seen = self.__dict__.setdefault("sent", set())
    if envelope.id in seen:
        return
    seen.add(envelope.id)
    envelope = envelope.model_copy(update={"sender": self._host_name})

    async def once() -> None:
        await self._send(envelope)

    task = asyncio.create_task(once())
    self.__dict__.setdefault("keep", set()).add(task)


SAFEGUARDS: dict[str, Mutant] = {
    "intents are not journaled": lambda: _unwritten(Kind.INTENT),
    "outcomes are not journaled": lambda: _unwritten(Kind.DONE),
    "the turn back is not journaled": lambda: _unwritten(Kind.TURNED),
    "the start of the copy is not journaled": lambda: _unwritten(Kind.NOTE, "copy-started"),
    "an abort is not journaled": lambda: _unwritten(Kind.NOTE, "abort-asked"),
    "P3's description of the VM is not journaled": lambda: _unwritten(Kind.NOTE, "incoming-vm"),
    "the destination's report is not journaled": lambda: _unwritten(Kind.NOTE, "dhost-reports-F9"),
    "casts are sent but not journaled": lambda: patch.object(Outbox, "put", _unsent),
    "an abort found after a restart turns a copy back": lambda: patch.object(transfer.Copy, "settles_abort", False),
    "the destination forgets that the guest ran": _never(Arrivals, "_look_out"),
    "tokens of interrupted checks are not swept": _never(CheckTokens, "_sweep"),
    "open migrations are not taken up again": lambda: patch.object(SourceDesk, "resume_all", lambda self: 0),
    "F10 removes without asking": _never(post.RemoveVm, "_prove"),
    "R8 does not compare": _never(rollback.ProveSource, "_compare"),
    "the destination's memory of a run is overlooked": _locate_trusting("destination"),
    "libvirt's job is overlooked": _locate_trusting("job"),
    "the source's word that it handed over is overlooked": _locate_trusting("handed over"),
    "a copy that was started is overlooked": _locate_trusting("started"),
}


# ---------------------------------------------------------------- the trial


def trial(chosen: list[Case], pairs: int) -> str:
    """The name of the first case that fails, '' if all pass."""
    with multiprocessing.get_context("fork").Pool(os.cpu_count() or 1, _prepare) as pool:
        for result in pool.imap_unordered(_play, chosen, chunksize=4):
            if result.problems:
                return f"{result.case.name}: {result.problems[0].strip()[:100]}"
        for result in pool.imap_unordered(_pair, range(pairs), chunksize=4):
            if result.problems:
                return f"{result.case.name}: {result.problems[0].strip()[:100]}"
    return ""


def _chosen(every: list[Case], name: str) -> list[Case]:
    """First the cases that strike a step the mutant's name has, then a sample of the others."""
    steps = cases.STEPS & set(name.split())
    about = [case for case in every if any(step in case.name for step in steps)]
    shuffled = random.Random(SEED)
    shuffled.shuffle(about)
    return [*about[:CASES], *shuffled.sample(every, min(CASES, len(every)))]


def _pair(number: int) -> Any:
    return _play_pair(SEED, number)


def main() -> int:
    """Try every mutant; the number of survivors."""
    silence()
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    every = [case for case in cases.singles() if not why_not(case)]
    scripts = [Case(kind, script) for kind in KINDS for script in SCRIPTS]
    tried, survivors = 0, []
    for name, mutant in every_mutant():
        if word not in name:
            continue
        with mutant():
            killer = trial([*scripts, *_chosen(every, name)], PAIRS)
        tried += 1
        print(f"{'killed  ' if killer else 'SURVIVED'} {name:60} {killer}", flush=True)
        survivors += [] if killer else [name]
    print(f"\n{tried - len(survivors)} of {tried} mutants killed; survivors: {survivors}")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
