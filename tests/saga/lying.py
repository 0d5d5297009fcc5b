"""An agent whose answers are not what it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sterna.domain.errors import SternaError
from sterna.domain.model import Data
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request
from sterna.sim.libvirt import qemu
from sterna.sim.world.things import Change

from .fleet import SimFleet


def lie(fleet: SimFleet, host: str, method: str, change: Callable[[Data], Data]) -> None:
    """From now on that host's answers to `method` are changed on their way."""
    agent = fleet.agents[host]._agent
    assert agent is not None
    honest = agent._server._methods[method]

    async def changed(request: Request) -> Data:
        return change(await honest(request))

    agent._server.method(method, changed)


CLAIMS: dict[str, Data] = {
    "runs there": {"state": "running", "reason": "migrated"},
    "runs in post-copy": {"state": "running", "reason": "postcopy", "job_active": True},
    "runs, stream broken": {"state": "running", "reason": "postcopy-failed", "job_active": True},
    "ran and paused": {"state": "paused", "reason": "user", "ran": True},
    "ran and ended": {"state": "shutoff", "reason": "shutdown", "ran": True},
    "ran and gone": {"state": "absent", "ran": True},
    "ran, cannot say": {"state": "unknown", "reason": "busy", "ran": True},
    "taken over": {"state": "running", "reason": "migrated", "written_off": True},
}
"""What a destination may say of a guest that it does not have."""


class Liar:
    """host2, which says of the only guest what it likes, whenever `claim` is set."""

    def __init__(self, fleet: SimFleet) -> None:
        self._fleet = fleet
        self.claim = ""
        lie(fleet, "host2", "observe_guest", self._answer)

    def _answer(self, honest: Data) -> Data:
        if not self.claim:
            return honest
        said = CLAIMS[self.claim]
        epoch = next(m.epoch for m, _ in self._fleet.agents["host1"].journal.open())
        seen = {key: value for key, value in said.items() if key != "written_off"}
        answer: Data = {"observation": {"epoch": epoch, "ran": seen["state"] == "running"} | seen}
        if said.get("written_off"):
            answer["written_off"] = {"outcome": "completed", "why": "the guest runs here", "host": "host1"}
        return answer

    def from_change(self, detail: str, claim: str, also: Callable[[], None] = lambda: None) -> None:
        """Begin to say it when this happens to the guest, or its copy, on host1; and do something else with it."""
        begun = list[Change]()

        def look(change: Change) -> None:
            if change.host == "host1" and change.detail == detail and not begun:
                begun.append(change)
                self.claim = claim
                also()

        self._fleet.world.watch(look)


def change_call(monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[Data], Data]) -> list[SternaError]:
    """From now on whoever calls `method` sends something else; the errors it was answered with."""
    call, said = RpcClient.call, list[SternaError]()

    async def changed(self: RpcClient, to: str, named: str, params: Data, **more: Any) -> Data:
        if named != method:
            return await call(self, to, named, params, **more)
        try:
            return await call(self, to, named, change(params), **more)
        except SternaError as error:
            said.append(error)
            raise

    monkeypatch.setattr(RpcClient, "call", changed)
    return said


def pause_by_hand(fleet: SimFleet, vm: str) -> None:
    """`virsh suspend` on host1."""
    here = fleet.world.hosts["host1"]
    qemu.pause(fleet.world, here, here.domains[vm], reason="user", event="suspended")
