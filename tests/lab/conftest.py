"""One lab for all tests on real parts; it dies with the test run, however that ends."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sterna.lab import Lab
from tests.lab_state import state


@pytest.fixture(scope="session")
def lab_folder() -> Iterator[Path]:
    """A folder for the state of this run's labs."""
    if os.geteuid() != 0:
        pytest.fail("the lab tests need root")
    folder = state("lab")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    for lost in folder.glob("*/lab.json"):
        pytest.fail(f"a test left a lab behind: {lost}")


@pytest.fixture(scope="module")
def bare_lab(lab_folder: Path) -> Iterator[Lab]:
    """Two hosts without agents or controller."""
    lab = Lab.up(lab_folder / "bare", agents=False, owner=True)
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture
def scratch_state(lab_folder: Path) -> Iterator[Path]:
    """A state folder for a lab of the test's own."""
    state = lab_folder / "scratch"
    yield state
    shutil.rmtree(state, ignore_errors=True)
