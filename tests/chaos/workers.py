"""Several labs side by side: one process per lab, which plays one case after the other.

The cases wait in this process. A worker gets its next one when it has sent the outcome of the last: one for the
guest it has, while there are any (to change the guest takes as long as two cases). A worker that dies fails the
case it played, and another takes its place; so every case has an outcome. All workers, and their labs, end with
this process.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.chaos.case import Case
from tests.chaos.play import Outcome, play
from tests.chaos.stage import STATE, Stage

DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG"""
END_S = 60.0
"""For a worker to take its lab down."""

Work = Callable[[Connection, int], None]
"""A worker: it gets cases through the connection and sends an outcome for each, until there are no more."""
Report = Callable[[Outcome], None]


def play_all(cases: Sequence[Case], jobs: int, report: Report, work: Work | None = None) -> list[Outcome]:
    """The outcome of every case, in the order of `cases`; `report` is called with each as it comes."""
    workers = _Workers(list(cases), work or work_off)
    outcomes: dict[str, Outcome] = {}
    try:
        for _ in range(min(jobs, len(cases))):
            workers.start_one()
        while workers.busy:
            for outcome in workers.outcomes():
                outcomes[outcome.case] = outcome
                report(outcome)
    finally:
        workers.stop()
    return [outcomes[case.name] for case in cases]


def next_case(waiting: Sequence[Case], mine: tuple[str, ...] | None, others: Sequence[tuple[str, ...]]) -> Case:
    """Whose guest is there already; else of the disks that the fewest others play, and of these the most cases."""
    left, taken = Counter(case.disks for case in waiting), Counter(others)
    disks = mine if mine in left else min(left, key=lambda disks: (taken[disks], -left[disks]))
    return next(case for case in waiting if case.disks == disks)


def work_off(cases: Connection, number: int) -> None:
    """Plays cases on a lab of its own."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    stage = Stage(Path(f"{STATE}-{number}"))
    try:
        with suppress(EOFError, KeyboardInterrupt):
            while True:
                cases.send(play(stage, cases.recv()))
    finally:
        stage.close()


@dataclass
class _Worker:
    number: int
    process: BaseProcess
    channel: Connection
    case: Case | None = None
    disks: tuple[str, ...] | None = None


class _Workers:
    """The workers, and the cases that wait for them."""

    def __init__(self, waiting: list[Case], work: Work) -> None:
        self._waiting, self._work = waiting, work
        self._workers: dict[Connection, _Worker] = {}
        self._started = 0

    @property
    def busy(self) -> bool:
        return any(worker.case for worker in self._workers.values())

    def start_one(self) -> None:
        """One more worker, with a lab of its own, and its first case."""
        self._started += 1
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")  # nothing of this process: no pipe of another worker
        process = context.Process(target=self._work, args=(theirs, self._started), name=f"chaos {self._started}")
        process.start()
        theirs.close()  # so that the end of the worker is the end of the channel
        worker = self._workers[ours] = _Worker(self._started, process, ours)
        self._give(worker)

    def outcomes(self) -> list[Outcome]:
        """What came of the next cases that end; their workers have others."""
        came = []
        for channel in wait(list(self._workers)):
            assert isinstance(channel, Connection)
            worker = self._workers[channel]
            case, worker.case = worker.case, None
            try:
                came.append(channel.recv())
            except (EOFError, OSError):
                came += [self._died(worker, case)] if case else []
            else:
                self._give(worker)
        return came

    def stop(self) -> None:
        """No more cases: the labs are taken down."""
        for worker in self._workers.values():
            worker.channel.close()
        for worker in self._workers.values():
            worker.process.join(END_S)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def _give(self, worker: _Worker) -> None:
        if not self._waiting:
            return
        others = [w.disks for w in self._workers.values() if w is not worker and w.case and w.disks]
        worker.case = next_case(self._waiting, worker.disks, others)
        worker.disks = worker.case.disks
        self._waiting.remove(worker.case)
        with suppress(OSError):  # it is dead: the end of the channel says so
            worker.channel.send(worker.case)

    def _died(self, worker: _Worker, case: Case) -> Outcome:
        worker.channel.close()
        del self._workers[worker.channel]
        worker.process.join()
        if self._waiting:
            self.start_one()
        return Outcome(
            case.name, why=[f"its worker ended in the middle of it, exit code {worker.process.exitcode}"]
        )


def default_jobs() -> int:
    """Two labs, where there are two processors: one lab keeps half of two busy."""
    return min(2, os.cpu_count() or 1)
