"""`GET /v1/cpus`."""

from __future__ import annotations

from sterna.domain.cpus import HostCpu
from sterna.domain.model import Data
from tests.unit.api.rest import Api


async def test_the_cpus_of_all_hosts(api: Api) -> None:
    facts: Data = {"arch": "x86_64", "virt_type": "kvm", "vendor": "Intel"}
    old = HostCpu(**facts, model="Nehalem", features=("sse2",), models=("Nehalem",))
    new = HostCpu(**facts, model="Haswell", features=("avx", "sse2"), models=("Haswell", "Nehalem"))
    api.world.a.cpu, api.world.b.cpu = old, new
    await api.world.bus.beat(api.world.controller)
    found = await api.get("/v1/cpus")
    assert found["common_features"] == ["sse2"] and found["common_models"] == ["Nehalem"]
    assert [(g["number"], g["hosts"], g["model"], g["beyond"]) for g in found["groups"]] == [
        (1, ["a"], "Nehalem", []),
        (2, ["b"], "Haswell", ["avx"]),
    ]
    assert found["pairs"] == [{"source": 2, "destination": 1, "why": "", "missing": ["avx"]}]
    assert found["pairs_left_out"] == 0 and list(found["unknown"]) == ["c"]
