"""A rehearsal does a migration's own steps and undoes them: both hosts are as before, whatever happens in it."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.diagram import draw
from sterna.domain.errors import Conflict
from sterna.domain.hosts import Transport
from sterna.domain.model import Data
from sterna.domain.objective import Asked
from sterna.domain.plugs import HOSTDEV, OVS
from sterna.domain.policies import May
from sterna.domain.status import Status
from sterna.domain.timeline import build_timeline
from sterna.sim.libvirt.guests import add_vm
from tests.asking import to_check

from .fleet import SimFleet

MIB = 2**20


def options(how: str, **asked: object) -> dict[str, Any]:
    return {"asked": Asked(**asked), "rehearse": how}  # type: ignore[arg-type]


def encrypted(fleet: SimFleet) -> SimFleet:
    for host in fleet.world.hosts.values():
        host.abilities = host.abilities.model_copy(update={"tls": True})
    return fleet


def notes(fleet: SimFleet) -> dict[str, Data]:
    return fleet.agents["host1"].history(fleet.migration).notes


@pytest.mark.parametrize("how", ["prepare", "copy"])
async def test_everything_is_done_and_undone(how: str) -> None:
    async with encrypted(SimFleet()) as fleet, fleet.clock.auto():
        vm = fleet.vm(memory_bytes=1024 * MIB, dirty_bytes_per_s=MIB)
        before = fleet.snapshots()
        await fleet.start(vm, **options(how, may=frozenset({May.POSTCOPY})))
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.snapshots() == before
        assert fleet.world.running(vm) == ["host1"]
        told = notes(fleet)["rehearsed"]
        assert told["refusals"] == []
        assert [w.split()[0] for w in told["tried"]] == ["volumes", "the", "userfaultfd", "TLS"]
        assert ("rehearsed-copy" in notes(fleet)) is (how == "copy")
        assert "suspended" not in str(sorted(notes(fleet)))  # the guest never stood still
        entries = [e for a in fleet.agents.values() for e in a.journal.entries(fleet.migration)]
        migration = fleet.agents["host1"].journal.get(fleet.migration)[0]  # type: ignore[index]
        assert "rehearse" in draw(migration, build_timeline(migration, entries))
        left = fleet.world.hosts["host1"].domains[vm].max_downtime_ms
        assert left in (None, 300)  # QEMU's own: a rehearsal's 1 ms would hold up whoever migrates it next
        # and the real one goes as it would have
        await fleet.start(vm, **options(""))
        assert await fleet.ended() is Status.COMPLETED
        assert notes(fleet)["stream"]["parameters"]["transport"] == "tls"


@pytest.mark.parametrize(
    ("order", "how"),
    [("switch_to_postcopy", {}), ("pause_guest", {}), ("tune_migration", {"bandwidth_bytes_s": None})],
)
async def test_a_rehearsal_takes_no_order_that_could_bring_its_copy_to_an_end(
    order: str, how: dict[str, Any]
) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm(memory_bytes=1024 * MIB)
        before = fleet.snapshots()
        await fleet.start(vm, **options("copy", may=frozenset({May.POSTCOPY})))
        with pytest.raises(Conflict, match="rehearsal"):
            await fleet.client.call("host1", order, {"id": fleet.migration} | how)
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.world.running(vm) == ["host1"]
        assert fleet.snapshots() == before


async def test_what_would_fail_at_the_copy_is_found_before_it() -> None:
    async with encrypted(SimFleet()) as fleet, fleet.clock.auto():
        vm = fleet.vm()
        before = fleet.snapshots()
        fleet.world.hosts["host2"].authority = "somebody else"
        fleet.world.hosts["host2"].untranslatable = {"iscsi"}
        await fleet.start(vm, **options("copy"))
        assert await fleet.ended() is Status.FAILED
        found = notes(fleet)["rehearsed"]["refusals"]
        assert [r["code"] for r in found] == ["definition-refused", "tls-handshake"]
        assert "copy-started" not in notes(fleet)
        assert fleet.snapshots() == before


async def test_an_aborted_rehearsal_is_undone_as_any_migration() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        before = fleet.snapshots()
        fleet.agents["host1"].rules = [("rehearse", "before", "abort")]
        await fleet.start(vm, **options("copy"))
        assert await fleet.ended() is Status.CANCELLED
        assert fleet.snapshots() == before


MOMENTS = ("before", "after")
DYING = [(step, m) for step in ("rehearse", "set-migrating", "connect-volumes", "remove-vifs") for m in MOMENTS]


@pytest.mark.parametrize(("step", "moment"), [*DYING, ("copy", "before"), ("ask-both-hypervisors", "after")])
async def test_an_agent_that_dies_in_a_rehearsal_undoes_it_in_its_next_life(step: str, moment: str) -> None:
    async with encrypted(SimFleet()) as fleet, fleet.clock.auto():
        vm = fleet.vm(memory_bytes=1024 * MIB)
        before = fleet.snapshots()
        host = "host2" if step in ("connect-volumes", "remove-vifs") else "host1"
        fleet.agents[host].rules = [(step, moment, "kill")]
        await fleet.start(vm, **options("copy"))
        assert await fleet.ended() in (Status.CANCELLED, Status.FAILED)
        assert fleet.world.running(vm) == ["host1"]
        assert fleet.snapshots() == before


# ------------------------------------------------------------ the stream of a real one, chosen by the two agents


async def test_what_was_demanded_and_cannot_be_is_refused_before_anything_begins() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        params = to_check(vm, "host2", Asked(transport=Transport.TLS))
        answer = await fleet.client.call("host1", "check_migration", params)
        assert "no-tls" in [r["code"] for r in answer["refusals"]]
        assert all(r["fix"] for r in answer["refusals"])


async def test_a_tunnel_carries_a_guest_without_local_disks_and_leaves_post_copy_out() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        from sterna.sim.libvirt.guests import add_vm

        vm = add_vm(fleet.world, "host1", "tern", disks=("shared",))
        await fleet.start(vm, **options("", transport=Transport.SSH, may=frozenset({May.POSTCOPY})))
        assert await fleet.ended() is Status.COMPLETED
        made_of = notes(fleet)["stream"]
        assert made_of["parameters"]["transport"] == "ssh"
        assert "TUNNELLED" in made_of["parameters"]["flags"]
        assert any(w.startswith("postcopy is not used") for w in made_of["warnings"])
        assert not fleet.world.hosts["host2"].recovery_monitors


async def test_the_operators_setting_holds_where_nobody_asked() -> None:
    async with encrypted(SimFleet()) as fleet, fleet.clock.auto():
        here = fleet.world.hosts["host1"]
        here.abilities = here.abilities.model_copy(update={"transport": Transport.TCP})
        vm = fleet.vm()
        await fleet.start(vm, **options(""))
        assert await fleet.ended() is Status.COMPLETED
        assert notes(fleet)["stream"]["parameters"]["transport"] == "tcp"


async def test_a_guest_keeps_its_virtual_function_while_its_move_is_only_prepared() -> None:
    async with encrypted(SimFleet()) as fleet, fleet.clock.auto():
        add_vm(fleet.world, "host1", "tern", plugs=(OVS, HOSTDEV))
        before = fleet.snapshots()
        await fleet.start("tern", **options("prepare"))
        assert await fleet.ended() is Status.CANCELLED
        assert notes(fleet)["rehearsed"]["refusals"] == []
        assert "detach-devices" not in fleet.agents["host1"].history(fleet.migration).plans
        assert fleet.snapshots() == before
