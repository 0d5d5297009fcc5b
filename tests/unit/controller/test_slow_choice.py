"""A host is chosen within a time, however slow the source and the hosts are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sterna.controller.intents import choose_host, migrate_vm
from sterna.domain.errors import NotFound, Refused, SternaError, Unknown, Unreachable
from sterna.domain.model import Data, Refusal
from sterna.domain.objective import Asked
from tests.unit.controller.refused import refusals
from tests.unit.controller.requests import request

from .conftest import World
from .fakes import GIB, FakeAgent

FULL = Refusal(code="memory-short", message="too little memory", fix="free some")


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has not answered within 50 ms is slow; nobody waits for all of them for ever."""
    monkeypatch.setattr(choose_host, "SOON_S", 0.05)
    monkeypatch.setattr(choose_host, "CHOOSE_S", 5.0)


async def more_hosts(world: World, *names: str) -> None:
    """Each with less free memory than those before it; all with less than b and c."""
    for number, name in enumerate(names, 4):
        world.bus.agents[name] = FakeAgent(name, number, free=4 * GIB - number)
    await world.bus.beat(world.controller)


class Checks:
    """`check_migration` to some hosts hangs."""

    def __init__(self, world: World, hangs: Callable[[str], bool]) -> None:
        self._call, self._hangs = world.bus.call, hangs
        self.asked: list[str] = []
        self.waiting = 0
        world.bus.call = self.call  # type: ignore[method-assign]

    async def call(self, to: str, method: str, params: Data, **more: object) -> Data:
        if method == "check_migration":
            self.asked.append(params["destination"])
            if self._hangs(params["destination"]):
                self.waiting += 1
                try:
                    async with asyncio.timeout(20):
                        await asyncio.Event().wait()
                finally:
                    self.waiting -= 1
        return await self._call(to, method, params, **more)  # type: ignore[arg-type]


async def test_a_source_that_is_silent_is_not_asked_about_the_next_hosts(world: World) -> None:
    await more_hosts(world, "d", "e")
    world.b.against = [FULL]
    world.bus.faults["check_migration"] = [None, *[Unknown("nothing received for 15 s")] * 4]
    found = await refusals(world, request(to=None))
    assert [(r.code, r.message) for r in found] == [
        ("source-down", "a, where web1 runs, cannot be asked: nothing received for 15 s"),
        ("memory-short", "b: too little memory"),
    ]
    assert world.bus.asked("check_migration") == 3


async def test_hosts_that_hang_keep_no_vm_from_going_to_another(world: World) -> None:
    await more_hosts(world, "d", "e", "f", "g", "h")
    checks = Checks(world, lambda host: host in "bcd")
    record, _ = await world.controller.migrate(request(to=None))
    assert record.migration.destination == "e"
    assert checks.asked == ["b", "c", "d", "e", "f", "g", "h"]
    assert checks.waiting == 0, "nobody waits for them any more"


async def test_where_the_source_answers_about_no_host_that_is_what_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest whose QEMU hangs: each further check would be one more call to it."""
    monkeypatch.setattr(choose_host, "CHOOSE_S", 1.0)
    await more_hosts(world, *"defghijklmnop")
    checks = Checks(world, lambda host: True)
    (reason,) = await refusals(world, request(to=None))
    assert reason.code == "check-failed" and "QEMU" in reason.fix
    assert "a, where web1 runs, has not said within 1 s" in reason.message
    assert len(checks.asked) == choose_host.MOST_UNHEARD


async def test_what_is_known_when_the_time_is_over_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_host, "SOON_S", 10.0)
    monkeypatch.setattr(choose_host, "CHOOSE_S", 0.5)
    await more_hosts(world, *"defghijklmnopqrstu")
    await world.controller.registry.set_maintenance("u", True)
    world.b.against = [FULL]
    Checks(world, lambda host: host in "cd")
    found = await refusals(world, request(to=None))
    assert [r.code for r in found] == ["memory-short", "destination-in-maintenance", "check-failed", "check-failed"]
    assert found[0].message == "b: too little memory"
    assert found[2].message.endswith("can run web1: c, d")
    assert found[3].message.endswith("can run web1: e, f, g, h, i, j, k, l, m, n and 6 more")


async def test_no_more_hosts_at_once_than_may_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_host, "MOST_ASKED", 3)
    await more_hosts(world, *"defghi")
    world.b.against = [FULL]
    most = 0

    def hangs(host: str) -> bool:
        nonlocal most
        most = max(most, checks.waiting + 1)
        return host in "cd"

    checks = Checks(world, hangs)
    for host in "efgh":
        world.bus.agents[host].against = [FULL]
    record, _ = await world.controller.migrate(request(to=None))
    assert record.migration.destination == "i"
    assert most == 3


@pytest.mark.parametrize("error", [NotFound("no VM web1"), Unreachable("nobody listens")])
async def test_what_a_check_raises_ends_the_choice(world: World, error: SternaError) -> None:
    await more_hosts(world, "d")
    world.b.against = [FULL]
    checks = Checks(world, lambda host: host == "c")
    world.bus.faults["check_migration"] = [None, error]
    with pytest.raises(NotFound if isinstance(error, NotFound) else Refused):
        await world.controller.migrate(request(to=None))
    assert checks.waiting == 0


async def test_a_plan_is_judged_within_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate_vm, "JUDGE_S", 0.2)
    Checks(world, lambda host: True)
    with pytest.raises(Unreachable, match=r"could not be checked within 0.2 s"):
        await world.controller.plan("web1", None, Asked())


async def test_a_name_that_begins_as_another_one_is_not_taken_for_it(world: World) -> None:
    await more_hosts(world, "b1")
    world.b.against = [Refusal(code="disk-in-use", message="disk vda is used on b1 by web7", fix="stop it")]
    for host in ("c", "b1"):
        world.bus.agents[host].against = [FULL]
    found = await refusals(world, request(to=None))
    assert "b: disk vda is used on b1 by web7" in [r.message for r in found]
