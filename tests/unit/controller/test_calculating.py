"""What is calculated of a large fleet holds up nothing else of the controller."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sterna.controller.intents.operate import OperationRequest
from sterna.controller.operations import calculating, looking, observing, planning
from sterna.domain.errors import Unreachable
from sterna.ports.fleet import VmRecord
from tests.unit.controller.operating import Stage


@pytest.mark.parametrize("vms", [0, 500])
async def test_plans_and_what_begins_of_them_are_calculated_in_a_thread(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, vms: int
) -> None:
    monkeypatch.setattr(calculating, "SMALL", vms)
    here, threads = threading.get_ident(), dict[str, set[bool]]()
    noted_in = {"plan": planning, "admit": planning, "marked": planning, "resolve": observing, "_inside": looking}
    for name, module in noted_in.items():
        act = getattr(module, name)

        def noted(*args: object, of: str = name, act: object = act, **more: object) -> object:
            threads.setdefault(of, set()).add(threading.get_ident() == here)
            return act(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(module, name, noted)
    await stage.refresh()
    await stage.controller.operate.preview(OperationRequest(hosts=("a",)))
    await stage.begin()
    await stage.run()
    assert threads == {name: {vms == 500} for name in noted_in}


async def test_operations_that_are_looked_at_together_share_a_reading_of_all_vms(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, host in enumerate("abc", 1):
        await stage.begin(host, id=f"bbbbbbbb-0000-4000-8000-00000000000{number}")
    reads, read = 0, stage.controller.fleet.vms

    async def counted() -> list[VmRecord]:
        nonlocal reads
        reads += 1
        return await read()

    monkeypatch.setattr(stage.controller.fleet, "vms", counted)
    observer = stage.controller.operate._observer
    seen = await asyncio.gather(*(observer.observe() for _ in range(5)))
    assert reads == 1 and all(one == seen[0] for one in seen)
    await observer.observe()
    assert reads == 2


async def test_who_observes_while_others_read_gets_what_is_true_afterwards(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.refresh()
    observer, read = stage.controller.operate._observer, stage.controller.fleet.vms
    later: list[asyncio.Task[observing.Observed]] = []

    async def changing() -> list[VmRecord]:
        found = await read()
        if not later:  # the reading of the first one has begun
            later.append(asyncio.create_task(observer.observe()))
            await asyncio.sleep(0)
            stage.bus.agents["b"].add_vm("new", 9)
            await stage.refresh()
        return found

    monkeypatch.setattr(stage.controller.fleet, "vms", changing)
    first = await observer.observe()
    second = await later[0]
    assert "new" not in {vm.name for vm in first.snapshot.vms}
    assert "new" in {vm.name for vm in second.snapshot.vms}


async def test_an_error_of_the_records_reaches_all_who_observe(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> list[VmRecord]:
        raise Unreachable("the database is away")

    monkeypatch.setattr(stage.controller.fleet, "vms", away)
    observer = stage.controller.operate._observer
    found = await asyncio.gather(*(observer.observe() for _ in range(2)), return_exceptions=True)
    assert all(isinstance(one, Unreachable) for one in found) and found[0] is not found[1]
