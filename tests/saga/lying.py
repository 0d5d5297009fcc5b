"""An agent whose answers are not what it was asked for."""

from __future__ import annotations

from collections.abc import Callable

from sterna.domain.model import Data
from sterna.rpc.envelope import Request

from .fleet import SimFleet


def lie(fleet: SimFleet, host: str, method: str, change: Callable[[Data], Data]) -> None:
    """From now on that host's answers to `method` are changed on their way."""
    agent = fleet.agents[host]._agent
    assert agent is not None
    honest = agent._server._methods[method]

    async def changed(request: Request) -> Data:
        return change(await honest(request))

    agent._server.method(method, changed)
