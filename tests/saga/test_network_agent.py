"""With a network service: P12 waits until the destination's agent has wired the port, R6 until the source's has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sterna.domain.entries.base import NoPlan
from sterna.domain.errors import Permanent, Temporary
from sterna.domain.model import Nic
from sterna.domain.status import Status
from sterna.domain.step import History
from sterna.migration.context import Context
from sterna.migration.destination.wiring import wait_wired
from sterna.migration.source.rollback import GiveBindingsBack
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.network import SimNetwork
from sterna.sim.ports.vif import SimVif
from sterna.sim.simulation import SimWorld
from sterna.sim.world.clock import SimClock
from tests.saga.fleet import SimFleet

PORT = "7d1c64c4-0000-4000-8000-0000000000aa"
LOOK_MS, ASK_MS = 50, 200
"""How often P12 looks at the switch, and R6 asks the service."""
NIC = Nic(mac="52:54:00:00:00:aa", plug="ovs", port_id=PORT, bridge="br-int", mtu=1500)


class Destination:
    """Its half of P12, for one port that no agent has wired yet."""

    def __init__(self, nic: Nic = NIC, **settings: Any) -> None:
        self.nic = nic
        self.clock = SimClock()
        self.world = SimWorld(self.clock)
        self.world.add_host("a")
        given = {"wait_for": "", "vif_plugging_timeout_s": 10.0, "vif_plugging_is_fatal": False} | settings
        network = SimNetwork(self.world)
        host = SimpleNamespace(name="a", vif=SimVif(self.world, "a"), network=network, **given)
        taps = {"taps": [{"device": "tap0", "nic": NIC.model_dump(mode="json")}]}
        history = History(plans={"plug-vifs": taps})
        ctx = SimpleNamespace(host=host, clock=self.clock, history=history, vm_uuid="vm")
        self.ctx = cast(Context, ctx)

    async def waits(self, agent_after_s: float | None, **says: str) -> dict[str, Any]:
        """P12's answer, and `ms`: how long it took. The agent gives a tag, or `says` so in the external_ids."""

        async def agent() -> None:
            if agent_after_s is not None:
                await self.clock.sleep(agent_after_s)
                ports = self.world.hosts["a"].ports
                seen = ports["tap0"]
                ports["tap0"] = (
                    replace(seen, external_ids=seen.external_ids | says) if says else replace(seen, tag=3)
                )

        async def both() -> dict[str, Any]:
            await self.ctx.host.vif.plug(self.nic, vm_uuid="vm", device="tap0")
            began = self.clock.monotonic_ms()
            working = asyncio.ensure_future(agent())
            answer = await wait_wired(self.ctx)
            taken = self.clock.monotonic_ms() - began
            await working
            return answer.to_data() | {"ms": taken}

        return await self.clock.run(both())


async def test_the_copy_waits_for_the_agent_and_no_longer() -> None:
    answer = await Destination().waits(agent_after_s=1.7)
    assert answer["by_agent"] is True
    assert 1700 <= answer["ms"] < 1800


@pytest.mark.parametrize("agent_after_s", [0.3, 3.0, 9.0])
async def test_no_event_is_needed_the_switch_is_looked_at_all_the_time(agent_after_s: float) -> None:
    """What Neutron reports (`network-vif-plugged`) is lost, or never sent."""
    answer = await Destination().waits(agent_after_s)
    assert answer["by_agent"] is True
    assert agent_after_s * 1000 <= answer["ms"] < agent_after_s * 1000 + 2 * LOOK_MS


async def test_an_agent_that_does_not_wire_ahead_holds_nothing_up_for_good() -> None:
    answer = await Destination().waits(agent_after_s=None)
    assert (answer["by_agent"], answer["wired"]) == (False, ["tap0"])
    assert "network agent of a" in answer["why"]
    assert 10_000 <= answer["ms"] < 10_200
    assert (await Destination(vif_plugging_timeout_s=0).waits(agent_after_s=None))["ms"] < 200


async def test_or_the_migration_fails_where_that_is_wanted() -> None:
    with pytest.raises(Permanent, match="within 10 s") as raised:
        await Destination(vif_plugging_is_fatal=True).waits(agent_after_s=None)
    assert raised.value.fix


async def test_a_switch_that_never_forwards_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the agent's own time begins."""

    async def never(*_: object) -> bool:
        return False

    here = Destination(vif_plugging_timeout_s=600.0)
    monkeypatch.setattr(SimVif, "wired", never)
    with pytest.raises(Temporary, match="the switch does not forward"):
        await here.waits(None)
    assert 30_000 <= here.clock.monotonic_ms() <= 31_000


async def test_without_a_network_service_nobody_is_waited_for() -> None:
    answer = await Destination().waits(agent_after_s=0)
    native = Destination()
    native.ctx.host.network.service = ""  # type: ignore[misc]
    without = await native.waits(agent_after_s=None)
    assert "by_agent" not in without and without["ms"] <= answer["ms"]


async def test_a_patience_of_minutes_is_kept() -> None:
    fleet = SimFleet()
    fleet.agents["host2"].settings["vif_plugging_timeout_s"] = 300.0

    async def scenario() -> None:
        async with fleet:
            await fleet.start(fleet.vm(vlan=None))  # no agent gives its ports a tag
            assert await fleet.ended(limit_s=900) is Status.COMPLETED
            outcome = fleet.agents["host1"].history(fleet.migration).results["network-vif-plugged"]
            assert (outcome["by_agent"], outcome["why"][-12:]) == (False, "within 300 s")

    await fleet.clock.run(scenario())


async def test_without_one_it_may_be_told_what_its_agent_says_and_waits_for_just_that() -> None:
    tagged_and_wired_at_its_source = NIC.model_copy(
        update={"vlan": 100, "external_ids": {"ovn-installed": "true", "ovn-installed-ts": "1"}}
    )
    native = Destination(tagged_and_wired_at_its_source, wait_for="ovn-installed")
    native.ctx.host.network.service = ""  # type: ignore[misc]
    answer = await native.waits(agent_after_s=1.7, **{"ovn-installed": "true"})
    assert answer["by_agent"] is True
    assert 1700 <= answer["ms"] < 1800


class Source:
    """R6's first part, after a copy that failed as it handed over: was the destination's binding activated?"""

    def __init__(self) -> None:
        self.clock = SimClock()
        self.world = SimWorld(self.clock)
        for name in ("a", "b"):
            self.world.add_host(name)
        self.network = SimNetwork(self.world)
        self.uuid = add_vm(self.world, "a", "tern")

    async def gives_back(self, activated_after_s: float | None, *, left: bool = True) -> dict[str, Any]:
        """The step's outcome, and `ms`; the request to activate arrives late, or never."""
        vm = await SimHypervisor(self.world, "a").vm(self.uuid)
        await self.network.prepare(vm, "a", "b")
        host = SimpleNamespace(network=self.network, vif=SimVif(self.world, "a"))
        leaves = asyncio.Event()
        if left:
            leaves.set()
        ctx = SimpleNamespace(
            host=host, clock=self.clock, history=History(), leaves=leaves, network_hosts=("a", "b"),
            asked_network="neutron", vm_before=lambda: vm,
        )  # fmt: skip

        async def late() -> None:
            if activated_after_s is not None:
                await self.clock.sleep(activated_after_s)
                await self.network.switch(vm, "a", "b")

        began, asked = self.clock.monotonic_ms(), asyncio.ensure_future(late())
        answer = await GiveBindingsBack().do(cast(Context, ctx), NoPlan())
        taken = self.clock.monotonic_ms() - began
        await asked
        return answer.to_data() | {"ms": taken}


async def test_an_activation_still_on_its_way_when_the_rollback_begins_is_given_back() -> None:
    source = Source()
    answer = await source.clock.run(source.gives_back(activated_after_s=0.4))
    assert answer["wired"] is True
    (port,) = source.world.bindings.values()
    assert port == {"a": True, "b": False}


@pytest.mark.parametrize("agent_after_s", [0.3, 3.0, 9.0])
async def test_that_the_port_is_wired_again_is_asked_for_and_needs_no_event(agent_after_s: float) -> None:
    source = Source()
    wired_ms = source.clock.monotonic_ms() + agent_after_s * 1000

    async def wired(vm: Any, host: str) -> bool:
        return source.clock.monotonic_ms() >= wired_ms

    source.network.wired = wired  # type: ignore[method-assign]
    answer = await source.clock.run(source.gives_back(activated_after_s=0.0))
    assert answer["wired"] is True
    assert agent_after_s * 1000 <= answer["ms"] < agent_after_s * 1000 + 2 * ASK_MS


async def test_one_that_never_arrives_is_waited_for_so_long_and_only_where_it_may_be_on_its_way() -> None:
    source = Source()
    answer = await source.clock.run(source.gives_back(activated_after_s=None))
    assert answer["wired"] is False and 10_000 <= answer["ms"] < 11_000
    source = Source()
    assert (await source.clock.run(source.gives_back(activated_after_s=None, left=False)))["ms"] < 500
