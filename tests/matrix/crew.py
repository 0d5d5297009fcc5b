"""Plays many cases on all processors and tells how it went."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence

import structlog

from tests.matrix.play import Case, Result, play


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


def play_all(cases: Sequence[Case]) -> list[Result]:
    """The results, in the cases' order."""
    workers = int(os.environ.get("STERNA_WORKERS", "0")) or os.cpu_count() or 1
    with multiprocessing.get_context("fork").Pool(workers, _prepare) as pool:
        return pool.map(_play, cases, chunksize=8)


def report(title: str, results: Sequence[Result]) -> str:
    """Counts, and the whole story of the first failures."""
    ends = Counter(r.verdict or "?" for r in results)
    bad = [r for r in results if r.problems]
    lines = [f"{title}: {len(results)} cases, {len(bad)} failed; " + ", ".join(f"{n} {e}" for e, n in ends.items())]
    lines += [str(r) for r in bad[:3]]
    lines += [f"{r.case.name}: {r.problems[0][:200]}" for r in bad[3:60]]
    return "\n".join(lines)
