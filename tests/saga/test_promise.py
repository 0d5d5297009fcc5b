"""A copy is measured before it, tuned while it runs, and steered to its objective; on simulated hosts."""

from __future__ import annotations

import uuid
from unittest.mock import patch

import pytest

from sterna.domain.errors import BadRequest, Conflict, NotFound, Permanent, Unreachable
from sterna.domain.model import Data
from sterna.domain.objective import Asked
from sterna.domain.policies import May
from sterna.domain.status import Status
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.asking import to_start
from tests.saga.playing import begin, when

from .fleet import SimFleet

MIB = 2**20
LINK = 100 * MIB


def slow_fleet() -> SimFleet:
    """A link that a guest can outwrite."""
    fleet = SimFleet()
    fleet.world.pace.bandwidth_bytes = LINK
    return fleet


async def tune(fleet: SimFleet, limit: object) -> Data:
    return await fleet.client.call("host1", "tune_migration", {"id": fleet.migration, "bandwidth_bytes_s": limit})


async def test_a_guest_is_measured_in_two_windows_and_never_during_its_migration() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm = fleet.vm(memory_bytes=1024 * MIB, dirty_bytes_per_s=30 * MIB)
        answer = await fleet.client.call("host1", "measure_load", {"vm": vm}, silence_s=10)
        assert [(w["period_s"], w["dirty_bytes"]) for w in answer["windows"]] == [(1, 30 * MIB), (4, 64 * MIB)]
        await begin(fleet, vm)
        with pytest.raises(Conflict, match="not measured"):
            await fleet.client.call("host1", "measure_load", {"vm": vm})
        assert await fleet.ended() is Status.COMPLETED


async def test_a_measurement_that_never_comes_is_not_waited_for() -> None:
    async def nothing(*_: object) -> None:
        return None

    async with slow_fleet() as fleet, fleet.clock.auto():
        vm, began_ms = fleet.vm(), fleet.clock.monotonic_ms()
        with patch.object(SimHypervisor, "load", nothing), pytest.raises(Permanent, match="within 6 s"):
            await fleet.client.call("host1", "measure_load", {"vm": vm}, silence_s=10)
        assert fleet.clock.monotonic_ms() - began_ms <= 7_000


async def test_a_running_copy_is_tuned() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm = fleet.vm(memory_bytes=1000 * MIB, dirty_bytes_per_s=5 * MIB)
        await begin(fleet, vm, Asked(bandwidth_bytes_s=MIB))  # would take a quarter of an hour
        with pytest.raises(BadRequest, match="less than libvirt accepts"):
            await tune(fleet, 5)
        while True:  # the incoming QEMU is still being started
            try:
                await tune(fleet, 50 * MIB)
                break
            except Conflict:
                await fleet.clock.sleep(0.1)
        began = fleet.clock.monotonic_ms()
        assert await fleet.ended() is Status.COMPLETED
        assert 15_000 < fleet.clock.monotonic_ms() - began < 30_000
        notes = fleet.agents["host1"].history(fleet.migration).notes
        assert notes["tuned"] == {"bandwidth_bytes_s": 50 * MIB}
        with pytest.raises(Conflict, match="no longer being copied"):
            await tune(fleet, None)


async def test_there_is_nothing_to_tune() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        fleet.migration = str(uuid.uuid4())
        with pytest.raises(NotFound):
            await tune(fleet, None)


# ------------------------------------------------------------ steered to its objective

ALL = frozenset(May)


async def steer(fleet: SimFleet, vm: str, asked: Asked, within_s: float = 900.0) -> Status:
    """A whole migration with this objective; its final status."""
    await fleet.start(vm, asked=asked)
    return await fleet.ended(limit_s=within_s)


def notes(fleet: SimFleet, name: str) -> list[Data]:
    entries = fleet.agents["host1"].journal.entries(fleet.migration)
    return [e.data for e in entries if e.name == name]


def busy(fleet: SimFleet, ratio: float, working_set: int = 1024 * MIB) -> str:
    """A guest that writes `ratio` times what the link carries."""
    vm = fleet.vm(memory_bytes=1024 * MIB, dirty_bytes_per_s=int(ratio * LINK))
    fleet.world.guests[vm].working_set_bytes = working_set
    return vm


@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.8])
async def test_a_converging_guest_is_left_alone(ratio: float) -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm = busy(fleet, ratio)
        asked = Asked(may=ALL, bandwidth_bytes_s=LINK, finish_within_s=300)
        assert await steer(fleet, vm, asked) is Status.COMPLETED
        assert notes(fleet, "steered") == []
        job = fleet.world.hosts["host2"].domains[vm].completed
        assert job is not None and job.downtime_ms is not None and job.downtime_ms <= 100 + 60
        (known,) = notes(fleet, "load")
        assert known["forecast"]["ends"] is True
        assert known["load"]["dirty_bytes"] == int(ratio * LINK)


async def test_an_outlook_in_words_of_another_version_is_no_reason_to_fail() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        params = to_start(busy(fleet, 0.4), "host2")
        params["options"]["expectations"] = {"link": {"bandwidth_bytes_s": "enough"}}
        fleet.migration = params["id"]
        await fleet.client.call("host1", "start_migration", params)
        assert await fleet.ended() is Status.COMPLETED


async def test_a_hopeless_guest_ends_in_time_by_post_copy() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm, began = busy(fleet, 1.2), fleet.clock.monotonic_ms()
        asked = Asked(may=frozenset({May.POSTCOPY}), finish_within_s=60)
        assert await steer(fleet, vm, asked) is Status.COMPLETED
        assert fleet.clock.monotonic_ms() - began < 62_000
        assert fleet.world.running(vm) == ["host2"]
        assert "post-copy" in [
            str(e.data.get("status")) for e in fleet.agents["host1"].journal.entries(fleet.migration)
        ]
        assert not fleet.world.violations


async def test_a_hopeless_guest_ends_in_time_by_standing_still() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm, began = busy(fleet, 1.2), fleet.clock.monotonic_ms()
        asked = Asked(may=frozenset({May.PAUSE}), finish_within_s=60)
        assert await steer(fleet, vm, asked) is Status.COMPLETED
        assert fleet.clock.monotonic_ms() - began < 62_000
        assert notes(fleet, "steered")[-1]["action"] == "pause"


async def test_a_guest_that_pausing_too_long_runs_on_at_the_deadline() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        fleet.world.pace.switch_ms = 300_000  # the link has become slow
        vm, began = busy(fleet, 1.2), fleet.clock.monotonic_ms()
        asked = Asked(may=frozenset({May.PAUSE}), finish_within_s=60)
        assert await steer(fleet, vm, asked) is Status.FAILED
        assert fleet.clock.monotonic_ms() - began < 65_000
        assert fleet.world.running(vm) == ["host1"]
        assert "saw-suspended-migrated" in fleet.agents["host1"].history(fleet.migration).notes


async def test_a_hopeless_guest_that_may_be_slowed_down_is() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        assert await steer(fleet, busy(fleet, 1.2), Asked(may=frozenset({May.THROTTLE}))) is Status.COMPLETED


@pytest.mark.parametrize(("within_s", "at_most_s"), [(45.0, 47.0), (None, 240.0)])
async def test_a_hopeless_guest_that_may_not_be_touched_is_given_up_and_runs_on(
    within_s: float | None, at_most_s: float
) -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm, began = busy(fleet, 1.2), fleet.clock.monotonic_ms()
        empty = fleet.own("host2")
        assert await steer(fleet, vm, Asked(may=frozenset(), finish_within_s=within_s)) is Status.FAILED
        assert fleet.clock.monotonic_ms() - began < at_most_s * 1000
        assert fleet.world.running(vm) == ["host1"]
        assert fleet.own("host2") == empty
        (turned,) = [
            e.data["error"] for e in fleet.agents["host1"].journal.entries(fleet.migration) if e.kind == "turned"
        ]
        assert "given up" in turned["message"]
        assert "--may" in turned["fix"]


async def test_a_rest_that_stays_gets_more_downtime_as_far_as_allowed() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm = busy(fleet, 3, working_set=30 * MIB)  # 0.3 s of sending, written over and over
        assert await steer(fleet, vm, Asked(may=frozenset(), max_downtime_ms=600)) is Status.COMPLETED
        assert [n["action"] for n in notes(fleet, "steered")] == ["raise-downtime"]
        job = fleet.world.hosts["host2"].domains[vm].completed
        assert job is not None and job.downtime_ms is not None and 300 <= job.downtime_ms <= 600


async def test_no_copy_begins_before_qemu_knows_how_long_the_guest_may_be_paused() -> None:
    """The first pass is over before the first sample, and by QEMU's own limit the rest could go out."""
    tell, failing = SimHypervisor.set_max_downtime, [Unreachable("libvirtd is being restarted")]

    async def told(self: SimHypervisor, uuid: str, ms: int) -> None:
        if failing:
            raise failing.pop()
        await tell(self, uuid, ms)

    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm(memory_bytes=150 * MIB, dirty_bytes_per_s=2048 * MIB)
        fleet.world.guests[vm].working_set_bytes = 130 * MIB  # 127 ms of sending
        with patch.object(SimHypervisor, "set_max_downtime", told):
            asked = Asked(may=frozenset(), max_downtime_ms=80, finish_within_s=30)
            assert await steer(fleet, vm, asked) is Status.FAILED
        assert not failing
        assert fleet.world.running(vm) == ["host1"]


@pytest.mark.parametrize("down_s", [1.0, 20.0, 60.0])
async def test_an_agent_that_dies_meanwhile_still_keeps_the_deadline(down_s: float) -> None:
    """Dead past it, it gives the copy up as soon as it is back: libvirt went on meanwhile."""
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm, began = busy(fleet, 1.2), fleet.clock.monotonic_ms()
        await fleet.start(vm, asked=Asked(may=frozenset(), finish_within_s=45))
        await fleet.clock.sleep(15)
        await fleet.agents["host1"].kill()
        await fleet.clock.sleep(down_s)
        await fleet.agents["host1"].start()
        assert await fleet.ended() is Status.FAILED
        assert fleet.clock.monotonic_ms() - began < (max(45, 15 + down_s) + 4) * 1000
        assert fleet.world.running(vm) == ["host1"]
        assert not fleet.world.violations


@pytest.mark.parametrize(("jump_s", "ratio", "ending"), [
    (43_200, 0.4, Status.COMPLETED),
    (-43_200, 1.2, Status.FAILED),
])  # fmt: skip
async def test_the_deadline_is_no_matter_of_the_wall_clock(jump_s: float, ratio: float, ending: Status) -> None:
    fleet = slow_fleet()
    source = fleet.agents["host1"]

    def jump() -> None:
        source.clock.wrong_by_s += jump_s

    when(source, "pre-live-migration", jump)
    async with fleet, fleet.clock.auto():
        vm, began = busy(fleet, ratio), fleet.clock.monotonic_ms()
        assert await steer(fleet, vm, Asked(may=frozenset(), finish_within_s=60)) is ending
        assert fleet.clock.monotonic_ms() - began < 62_000


async def test_what_was_given_up_stays_given_up_after_a_restart() -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm = busy(fleet, 1.2)
        await fleet.start(vm, asked=Asked(may=frozenset(), finish_within_s=30))
        while not notes(fleet, "gave-up"):
            await fleet.clock.sleep(0.05)
        await fleet.agents["host1"].kill()
        await fleet.agents["host1"].start()
        assert await fleet.ended() is Status.FAILED
        assert len(notes(fleet, "gave-up")) == 1


@pytest.mark.parametrize("method", ["start_migration", "check_migration"])
@pytest.mark.parametrize(
    "options", [None, {}, {"objective": None}, {"objective": {"policy": "default"}}, {"may": []}]
)
async def test_a_request_without_a_valid_objective_is_refused(method: str, options: Data | None) -> None:
    async with slow_fleet() as fleet, fleet.clock.auto():
        vm = busy(fleet, 0.5)
        params = {"id": str(uuid.uuid4()), "vm": vm, "destination": "host2", "options": options}
        with pytest.raises(BadRequest):
            await fleet.client.call("host1", method, params)
        assert fleet.agents["host1"].journal.open() == []
