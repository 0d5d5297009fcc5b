"""What is calculated of a large fleet holds up nothing else of the controller."""

from __future__ import annotations

import threading

import pytest

from sterna.controller.intents.operate import OperationRequest
from sterna.controller.operations import calculating, observing, planning
from tests.unit.controller.operating import Stage


@pytest.mark.parametrize("vms", [0, 500])
async def test_plans_and_what_begins_of_them_are_calculated_in_a_thread(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, vms: int
) -> None:
    monkeypatch.setattr(calculating, "SMALL", vms)
    here, threads = threading.get_ident(), dict[str, set[bool]]()
    for module, name in ((planning, "plan"), (planning, "admit"), (observing, "resolve")):
        act = getattr(module, name)

        def noted(*args: object, of: str = name, act: object = act, **more: object) -> object:
            threads.setdefault(of, set()).add(threading.get_ident() == here)
            return act(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(module, name, noted)
    await stage.refresh()
    await stage.controller.operate.preview(OperationRequest(hosts=("a",)))
    await stage.begin()
    await stage.run()
    assert threads == {name: {vms == 500} for name in ("plan", "admit", "resolve")}
