"""The sample of the fault cases that `make test` plays; `make chaos` plays them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.case import Case
from tests.chaos.cases import CASES
from tests.chaos.play import play
from tests.chaos.stage import Stage
from tests.lab_state import state

ALWAYS = sorted((case for case in CASES if case.always), key=lambda case: case.disks)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage(state("chaos"))
    yield stage
    stage.close()


@pytest.mark.lab
@pytest.mark.parametrize("case", ALWAYS, ids=lambda case: case.name)
def test_something_breaks_and_nothing_is_lost(stage: Stage, case: Case) -> None:
    outcome = play(stage, case)
    assert outcome.passed, "\n".join([*outcome.two_copies, *outcome.leaks, *outcome.why])
