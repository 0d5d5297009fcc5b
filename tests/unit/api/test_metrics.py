"""`/metrics` of the API: who may read it, and what it answers."""

from __future__ import annotations

import pytest

from sterna.adapters.metrics.exposition import Exposition
from sterna.api.app import create_app
from sterna.controller.metrics import ControllerMetrics
from sterna.domain.access import UserRole

from ..controller.conftest import World
from .clients import ACCESS, client
from .rest import Api


@pytest.mark.parametrize(("role", "status"), [(None, 401), (UserRole.NEUTRON, 403), (UserRole.VIEWER, 200)])
async def test_viewers_may_read_it(world: World, role: UserRole | None, status: int) -> None:
    exposition = Exposition(ControllerMetrics(world.controller, "0.1.0").families, world.clock)
    async with client(create_app(world.controller, ACCESS, scraped=exposition), role) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == status
    if status == 200:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'sterna_host_state{host="a",state="up"} 1.0\n' in answer.text
        assert "process_resident_memory_bytes " in answer.text


async def test_an_application_without_metrics(api: Api) -> None:
    problem = await api.problem("GET", "/metrics", 404)
    assert problem["reasons"][0]["message"] == "this controller has no metrics"
