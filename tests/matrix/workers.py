"""Plays many cases on all processors and tells how it went."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from resource import RUSAGE_CHILDREN, getrusage
from typing import TypeVar
from zlib import crc32

import structlog

from tests.matrix.cases import pair
from tests.matrix.exclusions import held, why_not
from tests.matrix.pairs import firsts, merged, seconds
from tests.matrix.play import Case, Result, play
from tests.matrix.scripts import planned

T = TypeVar("T")
R = TypeVar("R")
PLAYED: list[int] = []
SPENT: list[float] = []
"""Seconds of processor time of each spread of work."""


def silence() -> None:
    """The agents' own log lines would drown the stories."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def _play(case: Case, *, again: bool = True) -> Result:
    result = play(case, again=again)
    result.trace = []
    PLAYED.append(1)
    if len(PLAYED) % 25 == 0:
        gc.collect()
    if not result.problems:
        result.story = []
    return result


def _prepare() -> None:
    silence()
    gc.collect()
    gc.freeze()
    gc.disable()  # a case leaves little behind, and `_play` sees to it


def _play_pair(seed: int, number: int) -> Result:
    case = pair(number, seed)
    return Result(case, "left out") if why_not(case) else _play_some_again(case)


def play_all(cases: Sequence[Case], *, always_again: bool = True) -> list[Result]:
    """The results, in the cases' order."""
    return _spread(_play if always_again else _play_some_again, cases)


def play_pairs(count: int, seed: int) -> list[Result]:
    """The first `count` pairs of a seed; those that exclusions.py names come back as `left out`."""
    return _spread(partial(_play_pair, seed), range(count))


def play_every_pair(part: int = 0) -> tuple[list[Result], int]:
    """All pairs, merged (pairs.py), or `part` of them, evenly spread; and how many there were before merging."""
    every, before = merged(firsts(), _spread(seconds, firsts()))
    step = max(1, len(every) // part) if part else 1
    return _spread(_play_some_again, every[::step]), before


def _play_some_again(case: Case) -> Result:
    """The VM migrates again after every fourth case, chosen by its name."""
    result = _play(case, again=crc32(case.name.encode()) % 4 == 0)
    if len(case.faults) > 1 and held(result):
        result.verdict, result.problems = "held in doubt", []
    return result


def _spread(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    beside_others = "PYTEST_XDIST_WORKER" in os.environ  # which keep the other processors busy
    workers = int(os.environ.get("STERNA_WORKERS", "0")) or (1 if beside_others else os.cpu_count() or 1)
    before = _processor_s()
    with multiprocessing.get_context("fork").Pool(workers, _prepare) as pool:
        results = pool.map(work, items, chunksize=8)
        pool.close()
        pool.join()
    SPENT.append(_processor_s() - before)
    return results


def _processor_s() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(title: str, results: Sequence[Result]) -> str:
    """Counts, and the whole story of the first failures."""
    ends = Counter(r.verdict or "?" for r in results)
    bad = [r for r in results if r.problems]
    hit = sum(r.struck == len(planned(r.case.script)) + len(r.case.faults) for r in results)
    head = f"{title}: {len(results)} cases, {hit} of them with every fault struck, {len(bad)} failed"
    head += f", {SPENT[-1]:.0f} s of processor time"
    lines = [f"{head}; " + ", ".join(f"{n} {end}" for end, n in ends.most_common())]
    lines += [str(r) for r in bad[:3]]
    lines += [f"{r.case.name}: {r.problems[0][:200]}" for r in bad[3:60]]
    return "\n".join(lines)
