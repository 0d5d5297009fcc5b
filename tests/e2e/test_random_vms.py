"""A few random VMs there and back: `make vms` plays hundreds, and one of each kind."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Fleet
from tests.random_vms.generator import random_vm
from tests.random_vms.play import play

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("number", range(5))
def test_what_the_plan_says_is_what_happens(fleet: Fleet, number: int) -> None:
    outcome = play(fleet, "random", random_vm(1, number))
    assert not outcome.wrong, outcome.wrong
    assert outcome.ended in ("moved", "refused"), outcome.why
