"""The fault matrix: every moment of a migration meets every fault, and an independent auditor looks on.

Quick (`make check`): a seeded sample of the singles and of the pairs. `make matrix`: all singles, many pairs.
One case: `STERNA_CASE='full|forward|host1: copy before #1=kill-3s' pytest -s tests/matrix -k replay`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

import pytest

from tests.matrix import cases
from tests.matrix.crew import play_all, play_pairs, report
from tests.matrix.exclusions import EXCLUDED, IN_DOUBT, why_not
from tests.matrix.play import COMPLETES, KINDS, SCRIPTS, Case, Result, play

SEED = int(os.environ.get("STERNA_SEED", "20261122"))
"""Of the samples; another one plays other cases."""
WHOLE = bool(os.environ.get("STERNA_MATRIX"))
QUICK_SINGLES, QUICK_PAIRS = 300, 80
PAIRS = int(os.environ.get("STERNA_PAIRS", "6000"))


Record = Callable[[str, object], None]


def judged(title: str, results: Sequence[Result], left_out: int, record: Record) -> None:
    """Count, for the end of the run; fail with the stories."""
    text = report(title, results)
    record("counted", f"{text.splitlines()[0]}; {left_out} left out (exclusions.py); seed {SEED}")
    if any(r.problems for r in results):
        pytest.fail(text, pytrace=False)


def some(every: Callable[[], list[Case]], count: int) -> list[Case]:
    """All of them in the whole run; a seeded sample in the quick one."""
    found = every()
    return found if WHOLE or len(found) <= count else random.Random(SEED).sample(found, count)


def test_one_fault(record_property: Record):
    chosen = some(cases.singles, QUICK_SINGLES)
    wanted = [case for case in chosen if not why_not(case)]
    judged("singles", play_all(wanted), len(chosen) - len(wanted), record_property)


def test_two_faults(record_property: Record):
    results = play_pairs(PAIRS if WHOLE else QUICK_PAIRS, SEED)
    judged("pairs", results, sum(r.verdict == "left out" for r in results), record_property)


def test_every_step_of_every_flow_is_struck():
    every = cases.singles()
    assert cases.covered(every) == cases.STEPS
    assert cases.covered(case for case in every if case.faults[0][1] == "kill-3s") == cases.STEPS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_by_itself(kind, script):
    result = play(Case(kind, script))
    assert not result.problems, str(result)
    assert result.verdict == ("completed" if (kind, script) in COMPLETES else "stayed")
    assert result.struck == len(SCRIPTS[script])


def test_exclusions_cover_little():
    every = cases.singles()
    assert sum(bool(why_not(case)) for case in every) < len(every) / 500
    assert all(e.reason for e in EXCLUDED)


@pytest.mark.parametrize("case", IN_DOUBT, ids=lambda case: case.name)
def test_in_doubt_it_holds_and_says_so(case):
    result = play(case, again=False, limit_s=120.0)
    assert len(result.problems) == 1, str(result)
    assert result.problems[0].startswith("NEVER SETTLED: host1: source of ")
    assert result.statuses["host1"] == "error"
    assert not any(word in line for line in result.story for word in ("destroyed", "unpaused", "undefined"))


def test_replay(capsys):
    name = os.environ.get("STERNA_CASE")
    if not name:
        pytest.skip("name a case in STERNA_CASE")
    result = play(Case.named(name))
    with capsys.disabled():
        print(result, f"\n    verdict: {result.verdict}")
    assert not result.problems
