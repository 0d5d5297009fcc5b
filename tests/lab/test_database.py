"""A lab whose two controllers share a PostgreSQL of the lab's own, which dies, hangs and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from sterna.lab import Lab, LabError, sabotage

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(lab_folder: Path) -> Iterator[Lab]:
    lab = Lab.up(lab_folder / "database", owner=True, database="postgresql", controllers=2)
    try:
        yield lab
    finally:
        lab.down()


def health(lab: Lab) -> dict[int, int]:
    return {
        number: httpx2.get(f"{url}/v1/health", timeout=30, **lab.api_access).status_code
        for number, url in lab.controller_urls.items()
    }


def test_two_controllers_share_a_database_that_dies_and_comes_back(lab: Lab) -> None:
    assert health(lab) == {1: 200, 2: 200}
    sabotage.kill(sabotage.postmaster(lab))
    assert health(lab) == {1: 503, 2: 503}
    lab.database.start()
    assert health(lab) == {1: 200, 2: 200}
    assert lab.database.run("psql", "-Atc", "select count(*) from hosts", "sterna").strip() == "2"


def test_a_database_hangs_with_all_its_processes(lab: Lab) -> None:
    victim = sabotage.postgresql(lab)
    assert len(victim.pids()) > 1
    sabotage.freeze(victim)
    try:
        assert sabotage.frozen(victim)
        assert lab.outer.run(
            ["timeout", "2", *lab.database.command("pg_isready", "-h", "10.73.0.1")], check=False
        ).returncode
    finally:
        sabotage.thaw(victim)
    assert health(lab) == {1: 200, 2: 200}


def test_one_of_two_controllers_dies_and_comes_back_at_its_own_address(lab: Lab) -> None:
    url = lab.controller_urls[2]
    sabotage.kill(sabotage.controller(lab, 2))
    assert lab.controller_pid(2) is None
    assert lab.controller_pid(1)
    assert lab.start_controller(2, int(url.rpartition(":")[2])) == url
    lab.wait_ready()
    assert health(lab) == {1: 200, 2: 200}


def test_two_controllers_cannot_share_a_file(scratch_state: Path) -> None:
    with pytest.raises(LabError, match="postgresql"):
        Lab.up(scratch_state, controllers=2)
