"""The intent "which CPUs do the hosts have?": one host of each group is asked, once."""

from __future__ import annotations

from sterna.domain.cpus import HostCpu
from sterna.domain.errors import Unreachable

from .conftest import World


def cpu(*features: str) -> HostCpu:
    return HostCpu(arch="x86_64", virt_type="kvm", model="Nehalem", vendor="Intel", features=features)


OLD, NEW = cpu("sse2"), cpu("avx", "sse2")


async def with_cpus(world: World, a: HostCpu | None, b: HostCpu | None, c: HostCpu | None) -> None:
    world.a.cpu, world.b.cpu, world.c.cpu = a, b, c
    await world.bus.beat(world.controller)


async def test_one_of_each_group_is_asked_once(world: World) -> None:
    await with_cpus(world, OLD, OLD, NEW)
    for _ in range(2):
        found = await world.controller.cpus.compare()
        assert [(group.hosts, group.cpu) for group in found.groups] == [(("a", "b"), OLD), (("c",), NEW)]
        assert [(pair.source, pair.destination, pair.missing) for pair in found.pairs] == [(2, 1, ("avx",))]
        assert found.unknown == {}
    assert world.bus.asked("describe_host") == 2


async def test_agents_of_earlier_versions_are_named(world: World) -> None:
    await with_cpus(world, OLD, None, None)
    found = await world.controller.cpus.compare()
    assert [group.hosts for group in found.groups] == [("a",)]
    assert found.unknown.keys() == {"b", "c"} and "earlier version" in found.unknown["b"]


async def test_the_next_host_is_asked_where_one_does_not_answer(world: World) -> None:
    await with_cpus(world, OLD, OLD, OLD)
    world.bus.faults["describe_host"] = [Unreachable("it hangs")]
    assert [group.hosts for group in (await world.controller.cpus.compare()).groups] == [("a", "b", "c")]
    assert world.bus.asked("describe_host") == 2


async def test_where_none_answers_it_is_said_of_each(world: World) -> None:
    await with_cpus(world, OLD, OLD, NEW)
    world.bus.faults["describe_host"] = [Unreachable("it hangs")] * 3
    found = await world.controller.cpus.compare()
    assert found.groups == () and found.unknown.keys() == {"a", "b", "c"}
    assert "did not describe its CPU: it hangs" in found.unknown["a"]


async def test_a_host_that_describes_another_cpu_is_not_believed(world: World) -> None:
    await with_cpus(world, OLD, NEW, NEW)
    world.a.said_cpu = NEW.model_dump(mode="json")
    found = await world.controller.cpus.compare()
    assert [group.hosts for group in found.groups] == [("b", "c")]
    assert "another CPU than its heartbeats" in found.unknown["a"]
    world.a.said_cpu = {"features": 7}
    assert "cannot be read" in (await world.controller.cpus.compare()).unknown["a"]


async def test_a_host_that_is_down_is_compared_by_its_last_heartbeat(world: World) -> None:
    await with_cpus(world, OLD, OLD, NEW)
    await world.controller.cpus.compare()
    world.clock.ms += 60_000
    found = await world.controller.cpus.compare()
    assert [group.hosts for group in found.groups] == [("a", "b"), ("c",)]
