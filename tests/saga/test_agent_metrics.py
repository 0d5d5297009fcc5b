"""An agent's metrics, over simulated hosts."""

from __future__ import annotations

from sterna.domain.metrics import catalogue
from sterna.domain.metrics.families import Distribution, Labels, Metric
from sterna.domain.status import Status
from sterna.domain.trouble import Trouble
from sterna.ports.records import Envelope
from tests.saga.fleet import SimFleet
from tests.saga.playing import run


async def shown(fleet: SimFleet, host: str) -> dict[Metric, dict[Labels, float | Distribution]]:
    agent = fleet.agents[host]._agent
    assert agent is not None
    return {family.metric: dict(family.samples) for family in await agent.metrics.families()}


async def test_what_an_agent_has_done() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        fleet.agents["host1"].rules.clear()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        source, destination = await shown(fleet, "host1"), await shown(fleet, "host2")
        assert source[catalogue.AGENT_FINISHED] == {("completed",): 1, ("failed",): 1, ("cancelled",): 0}
        assert set(destination[catalogue.AGENT_FINISHED].values()) == {0}  # counted where it came from
        assert source[catalogue.STEP_FAILURES] == {("M4",): 1}
        assert source[catalogue.AGENT_MIGRATIONS] == {("source",): 0, ("destination",): 0}

    await run(scenario)


async def test_all_of_the_catalogue_and_nothing_else() -> None:
    async def scenario(fleet: SimFleet) -> None:
        await fleet.clock.sleep(2)  # a heartbeat
        found = await shown(fleet, "host1")
        assert set(found) == set(catalogue.AGENT)
        assert found[catalogue.AGENT_USABLE] == {(): 1} and found[catalogue.BUS_CONNECTED] == {(): 1}
        assert found[catalogue.LIBVIRT_RESPONSE] and found[catalogue.OUTBOX_PENDING] == {(): 0}
        fleet.world.hosts["host1"].libvirtd_up = False
        await fleet.clock.sleep(2)
        away = await shown(fleet, "host1")
        assert away[catalogue.AGENT_USABLE] == {(): 0} and away[catalogue.LIBVIRT_RESPONSE] == {}
        fleet.world.hosts["host1"].libvirtd_up = True

    await run(scenario)


async def test_a_message_that_waits_and_a_warning() -> None:
    async def scenario(fleet: SimFleet) -> None:
        warned = Trouble(why="its certificate expires", since="2026-01-01T00:00:00Z")
        agent = fleet.agents["host1"]._agent
        assert agent is not None
        agent.metrics.warning = lambda: warned
        await fleet.agents["host2"].kill()
        params = {"method": "x", "why": "y"}
        agent._outbox.put(
            Envelope(id="1", to="host2", method="message_refused", migration_id="m", epoch=1, params=params)
        )
        await fleet.clock.sleep(1)
        found = await shown(fleet, "host1")
        assert found[catalogue.WARNING] == {(): 1}
        assert found[catalogue.OUTBOX_PENDING] == {(): 1}
        await fleet.agents["host2"].start()
        await fleet.clock.sleep(30)
        assert (await shown(fleet, "host1"))[catalogue.OUTBOX_PENDING] == {(): 0}

    await run(scenario)
