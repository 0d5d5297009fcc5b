"""The fault matrix: every moment of a migration meets every fault, and an independent auditor looks on.

Quick (`make test`): a seeded sample of the singles and of the pairs. `make matrix`: all of both.
One case: `STERNA_CASE='full|forward|host1: copy before #1=kill-3s' pytest -s tests/matrix -k replay`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

import pytest

from tests.matrix import cases
from tests.matrix.exclusions import EXCLUDED, IN_DOUBT, not_held, why_not
from tests.matrix.ledger import READS_ONLY
from tests.matrix.play import Case, Result, play
from tests.matrix.scripts import KINDS, POSTCOPY, expected, planned, scripts_for
from tests.matrix.workers import play_all, play_every_pair, play_pairs, report

SEED = int(os.environ.get("STERNA_SEED", "20261122"))
"""Of the samples; another one plays other cases."""
WHOLE = bool(os.environ.get("STERNA_MATRIX"))
QUICK_SINGLES, QUICK_PAIRS, QUICK_CONTROLLER = 1500, 200, 40
PAIRS = int(os.environ.get("STERNA_PAIRS", "0"))
"""In the whole run: so many, evenly spread; 0 for all of them."""


Record = Callable[[str, object], None]


def judged(title: str, results: Sequence[Result], left_out: int, record: Record) -> None:
    """Count, for the end of the run; fail with the stories, and where there is no case at all: a world in which
    nothing happens has no moments to strike at."""
    assert results, f"{title}: no case was played"
    text = report(title, results)
    record("counted", f"{text.splitlines()[0]}; {left_out} left out (exclusions.py); seed {SEED}")
    if any(r.problems for r in results):
        pytest.fail(text, pytrace=False)


def some(every: Callable[[], list[Case]], count: int) -> list[Case]:
    """All of them in the whole run; a seeded sample in the quick one."""
    found = every()
    return found if WHOLE or len(found) <= count else random.Random(SEED).sample(found, count)


def test_one_fault(record_property: Record) -> None:
    chosen = some(cases.singles, QUICK_SINGLES)
    wanted = [case for case in chosen if not why_not(case)]
    judged("singles", play_all(wanted, always_again=WHOLE), len(chosen) - len(wanted), record_property)


def test_two_faults(record_property: Record) -> None:
    if WHOLE:
        results, before = play_every_pair(PAIRS)
        judged(f"pairs ({before} before those were merged that go on alike)", results, 0, record_property)
        return
    results = play_pairs(QUICK_PAIRS, SEED)
    judged("pairs", results, sum(r.verdict == "left out" for r in results), record_property)


def test_the_controller_or_its_database_away(record_property: Record) -> None:
    results = play_all(some(cases.of_the_controller, QUICK_CONTROLLER))
    judged("controller", results, 0, record_property)


def test_every_step_of_every_flow_is_struck() -> None:
    every = cases.singles()
    assert cases.covered(every) == cases.STEPS
    assert cases.covered(case for case in every if case.faults[0][1] == "kill-3s") == cases.STEPS - READS_ONLY


@pytest.mark.parametrize(("kind", "script"), [(kind, script) for kind in KINDS for script in scripts_for(kind)])
def test_each_script_by_itself(kind: str, script: str) -> None:
    result = play(Case(kind, script))
    assert not result.problems, str(result)
    assert result.verdict == expected(kind, script)
    assert result.struck == len(planned(script))


@pytest.mark.parametrize("kind", POSTCOPY)
def test_a_stream_that_breaks_in_post_copy_is_told_and_mended(kind: str) -> None:
    told = [line.rpartition("wrote status:")[2] for line in play(Case(kind, "switched-and-cut"), again=False).story]
    wanted = ["recovering", "post-copy", "post-migrating", "completed"]
    assert [s for s in told if s in wanted] == wanted


def test_exclusions_cover_little() -> None:
    every = cases.singles()
    assert sum(bool(why_not(case)) for case in every) < len(every) / 300
    assert all(e.reason for e in EXCLUDED)


@pytest.mark.parametrize("case", IN_DOUBT, ids=lambda case: case.name)
def test_in_doubt_it_holds_and_says_so(case: Case) -> None:
    result = play(case, again=False, limit_s=120.0)
    assert not not_held(result), str(result)


ONCE_FAILED = (
    "large|forward|world: host2 domain defined #1=qemu-host2",
    "postcopy|switched|world: host2 domain defined #1=qemu-host2",
    "postcopy|switched|world: host1 domain shutoff (migrated) #1=link-stream-5s",
    "postcopy|switched|world: host2 domain running (migrated) #1=link-both-60s",
    "postcopy|switched-and-cut|world: host1 domain paused (postcopy) #2=qemu-host1",
    "postcopy-transient|switched-and-cut|world: host1 domain paused (postcopy) #2=power-host1-30s",
    "full|ended-unseen|host1: cast-post-live-migration/storage.directories_of before #1=permanent",
    "postcopy|switched-and-destination-lost|"
    "host1: cast-post-live-migration/storage.directories_of before #1=permanent|"
    "host2: call migration_fate answered #1=kill-3s",
)


@pytest.mark.parametrize("name", ONCE_FAILED)
def test_what_once_failed(name: str) -> None:
    result = play(Case.named(name))
    assert not result.problems, str(result)


def test_replay(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.environ.get("STERNA_CASE")
    if not name:
        pytest.skip("name a case in STERNA_CASE")
    result = play(Case.named(name))
    with capsys.disabled():
        print(result, f"\n    verdict: {result.verdict}")
    assert not result.problems
