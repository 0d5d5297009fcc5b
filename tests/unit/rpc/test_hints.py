"""Hints and beacons: they may be lost, and never fail whoever sends them."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from sterna.domain.errors import (
    Unreachable,
)
from sterna.domain.model import Data
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import MAX_MESSAGE_BYTES
from sterna.rpc.presence import Beacon
from sterna.rpc.subjects import host_topic

from .conftest import World


async def test_hints_reach_listeners_and_failures_are_silent(world: World) -> None:
    got = []

    async def handler(topic: str, data: Data) -> None:
        got.append((topic, data))

    subscription = await world.b.client.listen("host.*", handler)
    await world.a.client.announce("host.a", {"n": 1})
    await world.a.client.announce("other.a", {"n": 2})
    await world.a.bus.publish("sterna.event.host.evil", b"\xff not json")
    await world.a.client.announce("host.a", {"n": "x" * MAX_MESSAGE_BYTES})
    await world.clock.run_until_idle()
    world.broker.stop()
    await world.a.client.announce("host.a", {"n": 3})
    world.broker.start()
    await subscription.close()
    await world.a.client.announce("host.a", {"n": 4})
    await world.clock.run_until_idle()
    assert got == [("host.a", {"n": 1})]


async def test_hints_in_anothers_name_are_dropped_and_logged(world: World) -> None:
    got = []

    async def handler(topic: str, data: Data) -> None:
        got.append(topic)

    await world.b.client.listen("*.*", handler)
    await world.b.client.listen("progress.*.*", handler)
    with capture_logs() as said:
        for topic in ("host.c", "journal.c", "progress.c.m1", "external.vm1", "host.a", "progress.a.m1"):
            await world.a.client.announce(topic, {})
        await world.clock.run_until_idle()
    assert got == ["host.a", "progress.a.m1"]
    assert sum("'a'" in entry.get("why", "") for entry in said) == 4


@pytest.mark.parametrize("error", [RuntimeError("libvirt is away"), asyncio.CancelledError()])
async def test_the_beacon_shines_and_survives_bad_facts(world: World, error: BaseException) -> None:
    got, count = [], 0

    async def handler(topic: str, data: Data) -> None:
        got.append((topic, data["n"], world.clock.monotonic_ms()))

    async def facts() -> Data:
        nonlocal count
        count += 1
        if count == 2:
            raise error
        return {"n": count}

    await world.b.client.listen("host.*", handler)
    client = RpcClient(world.a.bus, "a.example.org", world.clock)
    beacon = Beacon(client, host_topic("a.example.org"), facts, every_s=2)
    await beacon.start()
    await world.clock.advance(5)
    await beacon.stop()
    await world.clock.advance(5)
    topic = "host.a%2Eexample%2Eorg"
    assert got == [(topic, 1, 0), (topic, 3, 4000)]


async def test_a_beacon_without_facts_says_why_once(world: World) -> None:
    told = ["libvirtd is away"] * 5 + ["", "libvirtd is away"]

    async def facts() -> Data:
        if why := told.pop(0) if told else "":
            raise Unreachable(why)
        return {}

    with capture_logs() as said:
        beacon = Beacon(world.a.client, host_topic("a"), facts, every_s=1)
        await beacon.start()
        await world.clock.advance(10)
        await beacon.stop()
    warned = [entry for entry in said if entry["log_level"] == "warning"]
    assert [(entry["why"], entry["exc_info"]) for entry in warned] == [("libvirtd is away", False)] * 2
