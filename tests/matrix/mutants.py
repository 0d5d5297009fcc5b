"""Does the matrix notice? Each mutant takes one safeguard out of the product; the matrix must fail.

`python -m tests.matrix.mutants [WORD]` (`make mutants`): a line per mutant (of those whose name has WORD in it),
and the score. A mutant is killed by the first case that fails. It is tried on the singles that strike the steps it
is about, then on a sample of `CASES` others and on `PAIRS` pairs; docs/lab-notebook/chaos-and-matrix-runs.md
explains the survivors.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from sterna.agent.arrivals import Arrivals
from sterna.agent.destination import IncomingMigrations
from sterna.agent.housekeeping import Housekeeping
from sterna.agent.incoming_halves import IncomingHalves
from sterna.agent.source import OutgoingMigrations
from sterna.agent.tokens import CheckTokens
from sterna.domain.entries.base import Done
from sterna.domain.journal import Entry, Kind, Role
from sterna.domain.step import Flow
from sterna.domain.whereabouts import Finding, Verdict, locate
from sterna.migration import flow, removal
from sterna.migration.context import Context
from sterna.migration.destination import arrive
from sterna.migration.source import copy, find_guest, release, rollback
from sterna.rpc.outbox import Outbox
from tests.matrix import cases
from tests.matrix.exclusions import IN_DOUBT, not_held, why_not
from tests.matrix.memory_journal import MemoryJournal
from tests.matrix.play import Case, play
from tests.matrix.scripts import KINDS, scripts_for
from tests.matrix.workers import _play, _play_pair, _prepare, silence

CASES, PAIRS, SEED = int(os.environ.get("STERNA_CASES", "1500")), 200, 5
WORKERS = int(os.environ.get("STERNA_WORKERS", "0")) or os.cpu_count() or 1
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
            yield f"undo {undo.name} of {step.name}", partial(patch.object, step, "undo", rest)
    for listed, where in ((flow.SOURCE, "before_undo"), (flow.DESTINATION, "before_undo")):
        for step in getattr(listed, where):
            yield f"step {step.name} of the rollback", partial(_without, listed, where, step)
    for listed in (flow.SOURCE, flow.DESTINATION_POST):
        for step in listed.after_pivot[:-1]:
            yield f"step {step.name} after the pivot", partial(_without, listed, "after_pivot", step)
    undone = {u for s in steps for u in s.undo}
    framed = {*flow.SOURCE.before_undo, *flow.SOURCE.after_undo, *flow.DESTINATION.before_undo}
    for name in sorted({s.name for s in steps | undone | framed}):
        yield f"intent of {name}", partial(_unwritten, Kind.INTENT, name)
        yield f"outcome of {name}", partial(_unwritten, Kind.DONE, name)
    for note in NOTES:
        yield f"note {note}", partial(_unwritten, Kind.NOTE, note)
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

    def forgetful(
        self: Context, given: Kind, *, row: str = "", name: str = "", data: Any = None, lazily: bool = False
    ) -> None:
        if given is not kind or wanted not in ("", name):
            write(self, given, row=row, name=name, data=data, lazily=lazily)
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
    real = locate

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
        with patch.object(find_guest, "locate", blind), patch.object(rollback, "locate", blind):
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


NOTES = (
    "abort-asked",
    "copy-started",
    "copy-succeeded",
    "dhost-reports-F9",
    "dhost-reports-R7",
    "guest-ended-before-it-ran",
    "guest-ran-here",
    "incoming-vm",
    "libvirt-said",
    "saw-stopped-migrated",
    "waiting",
)
"""Every note that some decision reads."""


async def _nothing(ctx: Context) -> None:
    """Nothing."""


async def _at_once(ctx: Context, row: str, outcome: str) -> bool:
    """A report that is not waited for."""
    return True


@contextmanager
def _no_wait() -> Iterator[None]:
    with patch.object(release, "wait_report", _at_once), patch.object(rollback, "wait_report", _at_once):
        yield


def _twice(self: MemoryJournal, envelope: Any) -> bool:
    """An inbox that recognises no repeat."""
    self.casts_in[envelope.id] = envelope.model_dump_json()
    return True


def _volatile(self: MemoryJournal, envelope: Any) -> bool:
    """An inbox that is not on disk."""
    seen = self.__dict__.setdefault("seen", set())
    new = envelope.id not in seen
    seen.add(envelope.id)
    return new


def _deaf(self: Any, ctx: Context) -> Context:
    """The destination does not note that it is to go back."""
    ctx.abort.set()
    return ctx


def _settle_arrived(source: Any, destination: Any, **more: Any) -> Finding:
    """R0 takes a guest that has arrived for one that stayed."""
    found = locate(source, destination, **more)
    return Finding(Verdict.STAYED, found.why) if found.verdict is Verdict.ARRIVED else found


def _blind_locate(hidden: Verdict, shown: Verdict) -> Mutant:
    """A verdict that is taken for another one, wherever it is decided."""

    def wrong(source: Any, destination: Any, **more: Any) -> Finding:
        found = locate(source, destination, **more)
        return Finding(shown, found.why) if found.verdict is hidden else found

    @contextmanager
    def both() -> Iterator[None]:
        with patch.object(find_guest, "locate", wrong), patch.object(rollback, "locate", wrong):
            yield

    return both


SAFEGUARDS: dict[str, Mutant] = {
    "no interlock": _never(copy.Interlock, "do", Done()),
    "post-copy begins before a broken stream could be joined again": _never(
        IncomingMigrations, "open_recovery", {}
    ),
    "intents are not journaled": lambda: _unwritten(Kind.INTENT),
    "outcomes are not journaled": lambda: _unwritten(Kind.DONE),
    "the turn back is not journaled": lambda: _unwritten(Kind.COMPENSATING),
    "R8 does not free the VM": lambda: _unwritten(Kind.RELEASED),
    "reports are not waited for": _no_wait,
    "an inbox takes a cast twice": lambda: patch.object(MemoryJournal, "inbox_put", _twice),
    "an inbox is not on disk": lambda: patch.object(MemoryJournal, "inbox_put", _volatile),
    "casts left from an earlier life are not sent": _never(Outbox, "start"),
    "the destination does not journal that it goes back": lambda: patch.object(IncomingHalves, "turn", _deaf),
    "the destination does not look out again after a restart": lambda: patch.object(
        IncomingMigrations, "resume_all", lambda self: None
    ),
    "R0 takes a guest that has arrived for one that stayed": lambda: patch.object(
        rollback, "locate", _settle_arrived
    ),
    "a doubt is taken for a copy that failed": _blind_locate(Verdict.DOUBT, Verdict.STRANDED),
    "a half that is gone unnoticed is waited for": _blind_locate(Verdict.HALF_GONE, Verdict.WAIT),
    "a missing answer is taken for a guest that stayed": _blind_locate(Verdict.WAIT, Verdict.STAYED),
    "a stranded guest is not let run on": _blind_locate(Verdict.STRANDED, Verdict.WAIT),
    "a guest that ended over there is started over here": _blind_locate(
        Verdict.ENDED_AT_DESTINATION, Verdict.STRANDED
    ),
    "F10 removes a file without asking whether it is shared": _never(removal, "seen_there", ""),
    "a file is removed whoever needs it": _never(removal, "_against", ""),
    "leftover taps are not swept": _never(Housekeeping, "sweep", ()),
    "taps of a guest that ended over there are left": lambda: patch.object(arrive, "unplug_taps", _nothing),
    "casts are sent but not journaled": lambda: patch.object(Outbox, "put", _unsent),
    "an abort found after a restart turns a copy back": lambda: patch.object(copy.Copy, "settles_abort", False),
    "the destination forgets that the guest ran": _never(Arrivals, "_look_out"),
    "tokens of interrupted checks are not swept": _never(CheckTokens, "_sweep"),
    "open migrations are not taken up again": lambda: patch.object(
        OutgoingMigrations, "resume_all", lambda self: 0
    ),
    "F10 removes without asking": _never(release.RemoveVm, "_prove"),
    "R8 does not compare": _never(rollback.ProveSource, "_compare"),
    "the destination's memory of a run is overlooked": _locate_trusting("destination"),
    "libvirt's job is overlooked": _locate_trusting("job"),
    "the source's word that it handed over is overlooked": _locate_trusting("handed over"),
    "a copy that was started is overlooked": _locate_trusting("started"),
}


# ---------------------------------------------------------------- the trial


def trial(chosen: list[Case], pairs: int) -> str:
    """The name of the first case that fails, '' if all pass."""
    with multiprocessing.get_context("fork").Pool(WORKERS, _prepare) as pool:
        for result in pool.imap_unordered(_play, chosen, chunksize=4):
            if result.problems:
                return f"{result.case.name}: {result.problems[0].strip()[:100]}"
        for case, problem in pool.imap_unordered(_in_doubt, IN_DOUBT):
            if problem:
                return f"{case.name}: {problem[:100]}"
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


def _in_doubt(case: Case) -> tuple[Case, str]:
    return case, not_held(play(case, again=False, limit_s=120.0))


def _pair(number: int) -> Any:
    return _play_pair(SEED, number)


def main() -> int:
    """Try every mutant; the number of survivors."""
    silence()
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    every = [case for case in cases.singles() if not why_not(case)]
    scripts = [Case(kind, script) for kind in KINDS for script in scripts_for(kind)]
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
