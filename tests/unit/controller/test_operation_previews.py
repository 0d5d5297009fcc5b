"""What an operation is planned with, and what is refused before it begins."""

from __future__ import annotations

import pytest

from sterna.controller.intents.operate import OperationRequest, Preview
from sterna.controller.operations.observing import Capacity
from sterna.controller.operations.planning import may_of
from sterna.domain.errors import Refused, Undelivered
from sterna.domain.forecast import Load
from sterna.domain.hosts import Abilities, HostFacts
from sterna.domain.model import GuestState
from sterna.domain.policies import DEFAULT, POLICIES
from sterna.ports.operations import OperationRecord
from tests.unit.controller.fakes import GIB, FakeAgent
from tests.unit.controller.operating import OPERATION, Stage, X

MIB = 2**20


async def preview(stage: Stage, *hosts: str, **more: object) -> Preview:
    await stage.refresh()
    request = OperationRequest.model_validate({"hosts": hosts or ("a",)} | more)
    return await stage.controller.operate.preview(request)


async def refused(stage: Stage, *hosts: str, **more: object) -> tuple[str, str]:
    """The code and the message with which it is refused."""
    with pytest.raises(Refused) as raised:
        await stage.begin(*hosts, **more)  # type: ignore[arg-type]
    (refusal,) = raised.value.refusals
    assert not await stage.controller.fleet.unfinished_operations()
    return refusal.code, refusal.message


# ------------------------------------------------------------ what makes no sense


async def test_all_hosts_cannot_be_emptied_at_once(stage: Stage) -> None:
    code, message = await refused(stage, "a", "b", "c")
    assert (code, message) == (
        "no-open-host",
        "no other host accepts VMs: all are in the request, in maintenance or dead",
    )
    for name in "bc":
        await stage.controller.registry.set_maintenance(name, True)
    assert (await refused(stage, "a"))[0] == "no-open-host"
    with pytest.raises(Refused, match="no other host accepts VMs"):
        await preview(stage, "a")


async def test_hosts_without_vms_need_no_other_host(stage: Stage) -> None:
    stage.bus.agents["a"].vms.clear()
    await stage.begin("a", "b", "c")
    assert (await stage.run()).standing.left == ()


async def test_a_dead_host_cannot_be_emptied(stage: Stage) -> None:
    await stage.refresh()
    stage.bus.agents["b"].listening = False
    stage.clock.ms += 30_000
    await stage.refresh()
    await stage.controller.deaths.declare("b", fenced=True)
    assert await refused(stage, "a", "b") == (
        "host-gone",
        "b was declared dead: its VMs cannot be migrated",
    )


async def test_a_repeated_request_is_not_refused_by_what_has_changed_since(stage: Stage) -> None:
    first = await stage.begin()
    for name in "bc":
        await stage.controller.registry.set_maintenance(name, True)
    assert (await stage.begin()).number == first.number


# ------------------------------------------------------------ deadlines


async def test_a_deadline_is_refused_where_vms_would_be_left(stage: Stage) -> None:
    stage.set_state("x2", GuestState.PAUSED)
    code, message = await refused(stage, finish_within_s=3600.0)
    assert code == "deadline-missed"
    assert message == "some VMs would stay on its hosts: x2 cannot be migrated: it is paused"
    await stage.begin(finish_within_s=3600.0, even_if_late=True)


async def test_a_vm_that_rests_makes_the_end_later(stage: Stage) -> None:
    def but_x1() -> None:
        for migration in stage.open():
            stage.fail(migration) if migration.vm_name == "x1" else stage.complete(migration)

    await stage.begin()
    while len(stage.moved) < 2:
        await stage.tick()
        but_x1()
    await stage.tick()
    standing = (await stage.operation()).standing
    assert [one.name for one in standing.waits] == ["x1"]
    assert standing.expected_s is not None and standing.expected_s > 28  # at rest for 18 more


# ------------------------------------------------------------ what is known of the VMs


async def test_what_was_measured_is_planned_with(stage: Stage) -> None:
    before = await preview(stage)
    assert before.unmeasured == 3
    load = Load(memory_bytes=GIB, dirty_bytes=40 * MIB, dirty_period_s=1.0, disk_bytes=500 * GIB)
    stage.controller.forecast_history.measured(X["x1"], load)
    after = await preview(stage)
    assert after.unmeasured == 2
    assert after.expected_s > 3600 > before.expected_s


async def test_a_vm_that_was_never_measured_is_not_left_for_a_guess(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(agent: FakeAgent) -> HostFacts:
        link = Abilities(userfaultfd=True, insecure=True, link_bytes_s=12 * MIB)
        return facts(agent).model_copy(update={"abilities": link})

    facts = FakeAgent.facts
    monkeypatch.setattr(FakeAgent, "facts", slow)
    found = await preview(stage, may=frozenset())
    assert found.plan.left == () and len(found.plan.moves) == 3
    load = Load(memory_bytes=GIB, dirty_bytes=40 * MIB, dirty_period_s=1.0)
    stage.controller.forecast_history.measured(X["x1"], load)
    (left,) = (await preview(stage, may=frozenset())).plan.left
    assert left.reason.startswith("x1 writes 40 MiB/s of memory, but a copy from a sends only 12 MiB/s")


async def test_a_vm_that_is_off_takes_no_memory(stage: Stage) -> None:
    for number, name in ((2, "b"), (3, "c")):
        for n in range(15):
            stage.bus.agents[name].add_vm(f"{name}{n}", 100 * number + n, GuestState.SHUTOFF)
    found = await preview(stage)
    assert len(found.plan.moves) == 3 and not found.plan.left


async def test_a_host_that_does_not_list_its_vms_is_named(stage: Stage) -> None:
    await stage.refresh()
    stage.bus.faults["list_vms"] = [Undelivered("nobody answers for a")] * 3
    found = await stage.controller.operate.preview(OperationRequest(hosts=("a",)))
    assert found.unheard == {"a": "nobody answers for a"}


# ------------------------------------------------------------ settings


@pytest.mark.parametrize(
    "capacity, left",
    [
        (Capacity(), 0),
        (Capacity(vcpus_per_cpu=0.25), 1),
        (Capacity(kept_memory_bytes=15 * GIB), 1),
        (Capacity(spare_hosts=1), 0),
        (Capacity(spare_hosts=2), 3),
    ],
)
async def test_hosts_are_filled_as_the_settings_say(stage: Stage, capacity: Capacity, left: int) -> None:
    stage.controller.fill_hosts(capacity)
    assert len((await preview(stage)).plan.left) == left


async def test_so_many_are_prepared_at_once(stage: Stage) -> None:
    stage.controller.fill_hosts(Capacity(preparing=1))
    await stage.begin()
    await stage.tick()
    assert len(stage.open()) == 1


def test_an_operation_outlives_its_policy() -> None:
    known = OperationRecord(id=OPERATION, hosts=("a",), policy="of an earlier version")
    assert may_of(known) == POLICIES[DEFAULT].may
