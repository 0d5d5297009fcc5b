"""`plan`: every blocker at once, the load as measured, the bandwidth as asked or learnt, and nothing changed."""

from __future__ import annotations

import pytest

from sterna.controller.intents.request import MigrateRequest
from sterna.controller.reasons import VmMissing
from sterna.controller.records.forecasts import LOAD_HOLDS_S
from sterna.domain.copying import GuestLoad
from sterna.domain.errors import Conflict, Refused
from sterna.domain.forecast import Expectations, Forecast, Mode
from sterna.domain.journal import Kind
from sterna.domain.model import GuestState, Refusal
from sterna.domain.objective import Asked
from sterna.domain.policies import May
from sterna.ports.fleet import Page
from tests.unit.controller.requests import MOVE

from ..domain.journals import good_destination, good_source
from .conftest import World

AT = "2026-01-01T00:00:00+00:00"
MIB = 2**20
LIMITED = Asked(bandwidth_bytes_s=50 * MIB)


async def test_a_free_vm_is_forecast_in_every_way_and_nothing_changes(world: World) -> None:
    plan = await world.controller.plan("web1", "b", LIMITED)
    assert (plan.vm.name, plan.destination, plan.blockers) == ("web1", "b", ())
    assert plan.load is not None and plan.load.dirty_bytes / plan.load.dirty_period_s == 10 * MIB
    assert (plan.bandwidth_bytes_s, plan.bandwidth_from) == (50 * MIB, "asked")
    assert [f.mode for f in plan.forecasts] == ["precopy", "throttle", "postcopy", "pause"]
    assert plan.forecasts[0].ends and plan.forecasts[0].copy_ms is not None
    assert plan.forecasts[0].copy_ms > 600 / 50 * 1000
    assert any("unencrypted" in w for w in plan.warnings)
    assert world.bus.asked("start_migration") == 0
    assert await world.fleet.migrations(Page()) == []


async def test_sterna_chooses_where_nobody_said(world: World) -> None:
    assert (await world.controller.plan("web1", None, LIMITED)).destination in ("b", "c")


async def test_every_blocker_is_named_at_once_and_the_forecast_still_made(world: World) -> None:
    world.b.against = [
        Refusal(code="bridge-missing", message="b has no bridge", fix="create it"),
        Refusal(code="memory-short", message="b is full", fix="move one"),
    ]
    plan = await world.controller.plan("web1", "b", LIMITED)
    assert [r.code for r in plan.blockers] == ["bridge-missing", "memory-short"]
    assert plan.forecasts


async def test_a_paused_vm_is_not_measured(world: World) -> None:
    world.a.add_vm("web1", 1, GuestState.PAUSED)
    plan = await world.controller.plan("web1", "b", LIMITED)
    assert "vm-paused" in [r.code for r in plan.blockers]
    assert (plan.load, plan.forecasts, world.bus.asked("measure_load")) == (None, (), 0)
    assert "paused" in plan.load_reason


async def test_a_measurement_that_fails_says_why(world: World) -> None:
    world.bus.faults["measure_load"] = [Conflict("a VM in a migration is not measured")]
    plan = await world.controller.plan("web1", "b", LIMITED)
    assert (plan.load, plan.load_reason) == (None, "a VM in a migration is not measured")


async def test_without_a_limit_or_experience_the_bandwidth_is_unknown_and_says_so(world: World) -> None:
    plan = await world.controller.plan("web1", "b", Asked())
    assert (plan.bandwidth_bytes_s, plan.forecasts) == (None, ())
    assert "has sent enough data" in plan.bandwidth_from and "--" not in plan.bandwidth_from


async def test_a_busy_guest_does_not_converge_and_the_working_set_is_seen(world: World) -> None:
    world.a.loads = [
        GuestLoad(dirty_bytes=90 * MIB, period_s=1, allocated_bytes=600 * MIB),
        GuestLoad(dirty_bytes=180 * MIB, period_s=4, allocated_bytes=600 * MIB),
    ]
    plan = await world.controller.plan("web1", "b", LIMITED)
    assert plan.load is not None and plan.load.working_set_bytes is not None
    assert 180 * MIB < plan.load.working_set_bytes < 220 * MIB
    assert not plan.forecasts[0].ends
    assert plan.forecasts[2].ends


async def test_the_bandwidth_is_learnt_from_finished_migrations_between_the_hosts(world: World) -> None:
    await world.fleet.admit(MOVE, AT)
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.pull()
    plan = await world.controller.plan("web1", "b", Asked())
    assert (plan.bandwidth_bytes_s, plan.bandwidth_from) == (250 * MIB, "learnt")
    assert plan.forecasts
    assert (await world.controller.plan("web1", "c", Asked())).bandwidth_bytes_s is None


async def test_a_migration_takes_along_what_is_known_before_it_begins(world: World) -> None:
    await world.fleet.admit(MOVE, AT)
    world.a.write(good_source(MOVE))
    world.b.write(good_destination(MOVE))
    await world.pull()
    assert (await expectations(world, "1" * 8)).load is None
    await world.controller.plan("web1", "b", Asked())
    known = await expectations(world, "2" * 8)
    assert known.load is not None and known.load.dirty_bytes / known.load.dirty_period_s == 10 * MIB
    assert known.link is not None and (known.link.bandwidth_bytes_s, known.link.limited) == (250 * MIB, False)
    world.clock.ms += 1000 * (LOAD_HOLDS_S + 1)  # by now the guest may do something else
    await world.bus.beat(world.controller)
    assert (await expectations(world, "3" * 8)).load is None


async def test_an_outcome_in_words_of_another_version_stops_no_migration(world: World) -> None:
    source = good_source(MOVE)
    source.write(Kind.NOTE, "M3", "load", {"forecast": {"mode": "beamed", "ends": True, "odds": 1}})
    await world.fleet.admit(MOVE, AT)
    world.a.write(source)
    world.b.write(good_destination(MOVE))
    await world.pull()
    assert (await expectations(world, "1" * 8)).link is None
    assert (await world.controller.accuracy()).time.compared == 0


async def expectations(world: World, number: str) -> Expectations:
    """Of a migration to b that is asked for now, and refused by its source."""
    request = MigrateRequest(id=f"{number}-0000-4000-8000-000000000000", vm="web1", destination="b")
    world.b.against = [Refusal(code="memory-short", message="b is full", fix="move one")]
    with pytest.raises(Refused):
        await world.controller.migrate(request)
    world.b.against = []
    asked = [params for _, method, params in world.bus.calls if method == "start_migration"]
    return Expectations.model_validate(asked[-1]["options"]["expectations"])


async def test_forecasts_are_held_against_what_was(world: World) -> None:
    assert (await world.controller.accuracy()).time.compared == 0
    said = Forecast(
        mode=Mode.PRECOPY, ends=True, odds=1, total_ms=300, copy_ms=200, downtime_ms=50, bytes_sent=2**20
    )
    source = good_source(MOVE)
    source.write(Kind.NOTE, "M3", "load", {"forecast": said.model_dump()})
    await world.fleet.admit(MOVE, AT)
    world.a.write(source)
    world.b.write(good_destination(MOVE))
    await world.pull()
    seen = await world.controller.accuracy()
    assert (seen.downtime.compared, seen.downtime.within_10_percent) == (1, 1.0)  # 48 ms of 50
    assert seen.bytes_sent.within_25_percent == 0.0  # 300 MiB of 1


async def test_nonsense_is_refused_and_an_unknown_vm_is_not_found(world: World) -> None:
    with pytest.raises(Refused):
        await world.controller.plan("web1", "b", Asked(policy="none such"))
    with pytest.raises(VmMissing):
        await world.controller.plan("web9", "b", Asked())


async def test_what_may_be_done_is_planned_for_and_what_cannot_be_is_said(world: World) -> None:
    asked = Asked(may=frozenset({May.POSTCOPY}))
    plan = await world.controller.plan("web1", "b", asked)
    assert any(r.startswith("postcopy: it is allowed") for r in plan.reasons)
    world.b.against = [Refusal(code="postcopy-impossible", message="b's kernel ...", fix="sysctl ...")]
    world.b.userfaultfd = False
    await world.bus.beat(world.controller)
    plan = await world.controller.plan("web1", "b", asked)
    assert [r.code for r in plan.blockers] == ["postcopy-impossible"]
    assert any(w.startswith("postcopy is not used") for w in plan.warnings)


async def test_a_guest_that_converges_by_itself_will_not_be_throttled(world: World) -> None:
    asked = LIMITED.model_copy(update={"may": frozenset({May.THROTTLE})})
    plan = await world.controller.plan("web1", "b", asked)
    assert any(r.startswith("no throttle") for r in plan.reasons)
