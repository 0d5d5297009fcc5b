"""Plays many cases on all processors and tells how it went."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import structlog

from tests.matrix.cases import pair
from tests.matrix.exclusions import why_not
from tests.matrix.play import SCRIPTS, Case, Result, play

T = TypeVar("T")


def silence() -> None:
    """The agents' own log lines would drown the stories."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def _play(case: Case) -> Result:
    result = play(case)
    result.trace = []
    if not result.problems:
        result.story = []
    return result


def _prepare() -> None:
    silence()
    gc.freeze()


def _play_pair(seed: int, number: int) -> Result:
    case = pair(number, seed)
    return Result(case, "left out") if why_not(case) else _play(case)


def play_all(cases: Sequence[Case]) -> list[Result]:
    """The results, in the cases' order."""
    return _spread(_play, cases)


def play_pairs(count: int, seed: int) -> list[Result]:
    """The first `count` pairs of a seed; those that exclusions.py names come back as `left out`."""
    return _spread(partial(_play_pair, seed), range(count))


def _spread(work: Callable[[T], Result], items: Sequence[T]) -> list[Result]:
    beside_others = "PYTEST_XDIST_WORKER" in os.environ  # which keep the other processors busy
    workers = int(os.environ.get("STERNA_WORKERS", "0")) or (1 if beside_others else os.cpu_count() or 1)
    with multiprocessing.get_context("fork").Pool(workers, _prepare) as pool:
        return pool.map(work, items, chunksize=8)


def report(title: str, results: Sequence[Result]) -> str:
    """Counts, and the whole story of the first failures."""
    ends = Counter(r.verdict or "?" for r in results)
    bad = [r for r in results if r.problems]
    hit = sum(r.struck == len(SCRIPTS[r.case.script]) + len(r.case.faults) for r in results)
    head = f"{title}: {len(results)} cases, {hit} of them with every fault struck, {len(bad)} failed"
    lines = [f"{head}; " + ", ".join(f"{n} {end}" for end, n in ends.most_common())]
    lines += [str(r) for r in bad[:3]]
    lines += [f"{r.case.name}: {r.problems[0][:200]}" for r in bad[3:60]]
    return "\n".join(lines)
