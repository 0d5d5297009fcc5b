"""What `/v1/health` costs, which anybody may ask for."""

from __future__ import annotations

from ..controller.fakes import FakeAgent
from .rest import Api

TROUBLE = {"why": "no KVM", "since": "2026-11-29T11:00:00+00:00"}


async def _reads(api: Api) -> int:
    reads, run = 0, api.world.fleet._run

    async def counted(*args: object, **more: object) -> object:
        nonlocal reads
        reads += 1
        return await run(*args, **more)  # type: ignore[arg-type]

    api.world.fleet._run = counted  # type: ignore[method-assign, assignment]
    try:
        health = await api.get("/v1/health")
    finally:
        api.world.fleet._run = run  # type: ignore[method-assign]
    assert health["hosts_degraded"] == sum(agent.name.startswith("ill") for agent in api.world.bus.agents.values())
    return reads


async def test_it_reads_no_more_where_many_hosts_are_degraded(api: Api) -> None:
    world, costs = api.world, list[int]()
    for number in range(8):
        ill = FakeAgent(f"ill{number}", 10 + number)
        world.bus.agents[ill.name] = ill
        told = {"name": ill.name, "host": ill.facts().model_dump(), "trouble": TROUBLE}
        await world.controller.registry.beacon(f"host.{ill.name}", told)
        costs.append(await _reads(api))
    assert costs == [costs[0]] * 8 and costs[0] <= 2
