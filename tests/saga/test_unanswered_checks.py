"""A service that does not answer a check is a reason against the migration, with a code that says which service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from sterna.domain.errors import Unreachable
from sterna.migration.context import HostPorts
from tests.asking import to_check
from tests.saga.fleet import SimFleet


class Silent:
    """A port whose checks nobody answers."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def check(self, *_: object) -> NoReturn:
        raise Unreachable("it does not answer")


def without_network(ports: HostPorts) -> HostPorts:
    return replace(ports, network=Silent(ports.network))


def without_switch(ports: HostPorts) -> HostPorts:
    return replace(ports, vif=Silent(ports.vif))


def without_volumes(ports: HostPorts) -> HostPorts:
    return replace(ports, volumes=tuple(Silent(volumes) for volumes in ports.volumes))


@pytest.mark.parametrize(
    ("host", "without", "code"),
    [
        ("host1", without_network, "network-service"),
        ("host2", without_switch, "nic-unchecked"),
        ("host2", without_volumes, "disk-unreachable"),
    ],
)
async def test_a_service_that_does_not_answer(
    host: str, without: Callable[[HostPorts], HostPorts], code: str
) -> None:
    fleet = SimFleet()
    whole = fleet.agents[host].ports
    fleet.agents[host].ports = lambda: without(whole())  # type: ignore[method-assign]
    async with fleet, fleet.clock.auto():
        vm, before = fleet.vm(), fleet.snapshots()
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        assert {refusal["code"] for refusal in answer["refusals"]} == {code}
        assert all("does not answer" in r["message"] and r["fix"] for r in answer["refusals"])
        assert fleet.snapshots() == before


async def test_a_destination_that_still_cleans_up_is_not_asked_to_prepare_again() -> None:
    fleet = SimFleet()
    async with fleet, fleet.clock.auto():
        vm = fleet.vm()
        fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        fleet.agents["host2"].rules.append(("remove-instance-directory", "before", "permanent"))
        await fleet.start(vm)
        while fleet.agents["host1"].journal.holder(vm) is not None:
            await fleet.clock.sleep(0.5)
        answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
        (refusal,) = [r for r in answer["refusals"] if r["code"] == "destination-not-clean"]
        assert fleet.migration in refusal["message"]
