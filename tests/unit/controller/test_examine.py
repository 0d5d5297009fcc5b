"""The doctor of a fleet: whom it asks, what it compares, and what it says of hosts that do not answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from sterna.controller.intents.examine import MOST_EACH
from sterna.domain.doctor.findings import Finding, Level
from sterna.domain.errors import BadRequest, NotFound

from .conftest import World
from .fakes import FakeAgent


def of(found: tuple[Finding, ...], check: str, host: str) -> list[Finding]:
    return [one for one in found if (one.check, one.host) == (check, host)]


async def test_every_host_looks_at_itself_and_all_others(world: World) -> None:
    world.b.looks = {"kvm": False}
    world.a.ways = {"libvirt": {"code": "peer-unreachable", "message": "no route", "fix": "open port 16514"}}
    diagnosis = await world.controller.doctor.examine()
    assert diagnosis.asked == 3 and diagnosis.silent == {} and diagnosis.level is Level.WRONG
    (kvm,) = of(diagnosis.findings, "kvm", "b")
    assert kvm.level is Level.WRONG and "modprobe" in kvm.fix
    ways = of(diagnosis.findings, "peer-libvirt", "a")
    assert {(one.peer, one.level) for one in ways} == {("b", Level.WRONG), ("c", Level.WRONG)}
    asked = {to: params["peers"] for to, method, params in world.bus.calls if method == "examine"}
    assert asked["b"] == [{"name": "c", "address": "10.0.0.3"}, {"name": "a", "address": "10.0.0.1"}]


async def test_only_the_named_and_the_ways_between_them(world: World) -> None:
    diagnosis = await world.controller.doctor.examine(["a", "b"])
    assert {one.host for one in diagnosis.findings} == {"a", "b"}
    assert {one.peer for one in diagnosis.findings} == {"", "a", "b"}
    with pytest.raises(NotFound):
        await world.controller.doctor.examine(["a", "nobody"])


async def test_hosts_that_do_not_answer_have_a_line_with_what_to_do(world: World) -> None:
    world.clock.ms += 6_000
    await world.bus.beat(world.controller, "a", "b")
    world.bus.faults["examine"] = [BadRequest("there is no method examine")]
    diagnosis = await world.controller.doctor.examine()
    assert diagnosis.asked == 1 and set(diagnosis.silent) == {"a", "c"}
    for host, words in (("a", "no method examine"), ("c", "nothing received")):
        (line,) = of(diagnosis.findings, "agent", host)
        assert line.level is Level.WRONG and words in line.message and line.fix


async def test_a_host_without_libvirtd_still_looks(world: World) -> None:
    world.clock.ms += 6_000
    world.b.lost = "libvirtd cannot be used"
    await world.bus.beat(world.controller)
    diagnosis = await world.controller.doctor.examine(["b"])
    (agent,) = of(diagnosis.findings, "agent", "b")
    assert diagnosis.asked == 1 and "libvirtd cannot be used" in agent.message


async def test_hosts_are_compared(world: World) -> None:
    world.a.looks, world.b.looks = {"bridges": ["br0"]}, {"bridges": []}
    diagnosis = await world.controller.doctor.examine()
    (bridges,) = of(diagnosis.findings, "bridges", "b")
    assert bridges.level is Level.WARNING and "br0" in bridges.message
    assert of(diagnosis.findings, "same-versions", "a")[0].level is Level.OK


@pytest.mark.parametrize(("ahead_s", "level"), [(0, Level.OK), (30, Level.WARNING), (-120, Level.WRONG)])
async def test_clocks_are_compared_with_the_controllers(world: World, ahead_s: int, level: Level) -> None:
    world.bus.now = (world.clock.now() + timedelta(seconds=ahead_s)).isoformat
    diagnosis = await world.controller.doctor.examine(["a"])
    (clock,) = of(diagnosis.findings, "clock", "a")
    assert clock.level is level


def after(world: World, looked_s: float, stamped: str, **more: object) -> None:
    """Host a looks for so long. Its clock is `more` ahead."""
    ahead = timedelta(seconds=float(str(more.pop("ahead_s", 0))))

    def slowly() -> str:
        began = (world.clock.now() + ahead).isoformat()
        world.clock.ms += looked_s * 1000
        return began if stamped == "before" else (world.clock.now() + ahead).isoformat()

    world.bus.now = slowly
    world.a.looks = more


@pytest.mark.parametrize(("ahead_s", "level"), [(0, Level.OK), (-30, Level.WARNING), (-50, Level.WARNING)])
async def test_a_clock_is_compared_when_the_host_has_looked(world: World, ahead_s: int, level: Level) -> None:
    """Which took a minute."""
    after(world, 60, "after", ahead_s=ahead_s, took_s=60.0)
    (clock,) = of((await world.controller.doctor.examine(["a"])).findings, "clock", "a")
    assert clock.level is level and ("behind" in clock.message) == (ahead_s < 0)


@pytest.mark.parametrize("took_s", [None, -5.0, 600.0, float("nan")])
async def test_what_the_answer_took_is_taken_neither_for_a_wrong_clock_nor_for_a_right_one(
    world: World, took_s: float | None
) -> None:
    """It answered at some moment in between, and does not say when, or says nonsense."""
    after(world, 60, "before", ahead_s=30, **({} if took_s is None else {"took_s": took_s}))
    (clock,) = of((await world.controller.doctor.examine(["a"])).findings, "clock", "a")
    assert clock.level is Level.WARNING and "cannot be compared" in clock.message and clock.fix


async def test_a_host_speaks_of_itself_and_of_those_it_was_asked_about(world: World) -> None:
    """Not in another host's name, whatever it sends."""
    world.a.looks = {"host": "b", "kvm": False}
    world.a.ways = {"peer": "nobody", "error": "lies"}
    diagnosis = await world.controller.doctor.examine()
    assert of(diagnosis.findings, "kvm", "b") == [] and of(diagnosis.findings, "kvm", "a")
    assert "nobody" not in {one.peer for one in diagnosis.findings}


async def test_the_configuration_of_the_bus_beside_the_controller(world: World) -> None:
    async def seen() -> str:
        return "/etc/nats-server.conf"

    assert of((await world.controller.doctor.examine()).findings, "bus-rights", "controller") == []
    world.controller.doctor.bus_rights = seen
    (found,) = of((await world.controller.doctor.examine()).findings, "bus-rights", "controller")
    assert found.level is Level.WRONG and "sterna bus config" in found.fix


async def test_a_fleet_without_hosts_is_not_well(world: World) -> None:
    for name in "abc":
        await world.controller.registry.set_dead(name, "2026-01-01T00:00:00+00:00")
    world.clock.ms += 6_000
    diagnosis = await world.controller.doctor.examine()
    assert diagnosis.asked == 0 and diagnosis.level is Level.WARNING
    (line,) = diagnosis.findings
    assert (line.host, line.check) == ("controller", "agent") and line.fix


async def test_hosts_for_which_there_was_no_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named, and not taken for well."""
    monkeypatch.setattr(world.controller.doctor, "_turns", asyncio.Semaphore(1))

    def slowly() -> str:
        world.clock.ms += 60_000
        return world.clock.now().isoformat()

    world.bus.now = slowly
    diagnosis = await world.controller.doctor.examine()
    assert diagnosis.asked == 2 and "not enough" in diagnosis.silent["c"] and diagnosis.level is Level.WRONG


async def test_a_large_fleet_is_a_ring(world: World) -> None:
    """No host looks at, or is looked at by, more than a few others."""
    for number in range(4, 24):
        agent = FakeAgent(f"d{number:02d}", number)
        world.bus.agents[agent.name] = agent
    await world.bus.beat(world.controller)
    await world.controller.doctor.examine()
    asked = [params["peers"] for _, method, params in world.bus.calls if method == "examine"]
    assert len(asked) == 23 and {len(peers) for peers in asked} == {MOST_EACH}
    seen = [one["name"] for peers in asked for one in peers]
    assert {seen.count(name) for name in world.bus.agents} == {MOST_EACH}
