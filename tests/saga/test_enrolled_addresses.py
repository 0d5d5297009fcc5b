"""A host is where it was enrolled: what it says of its addresses itself is not believed."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.entries.source import DestinationAnswer
from sterna.domain.errors import BadRequest, Refused
from sterna.domain.model import Data
from sterna.domain.status import Status
from tests.asking import to_check, to_start

from .fleet import SimFleet
from .lying import lie

ELSEWHERE = "192.0.2.66"


def there(fleet: SimFleet) -> str:
    return fleet.world.hosts["host2"].address


async def start(fleet: SimFleet, addresses: Any) -> None:
    """As a controller that has the CA asks for it."""
    params = to_start(fleet.vm(), "host2")
    params["options"] |= {"addresses": addresses}
    fleet.migration = str(params["id"])
    await fleet.client.call("host1", "start_migration", params)


@pytest.mark.parametrize("enrolled", [[], ["10.9.9.9", "host2.example"]])
async def test_a_host_that_was_enrolled_elsewhere_is_not_dialled(enrolled: list[str], dialled: list[str]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        with pytest.raises(Refused) as caught:
            await start(fleet, enrolled)
        (refusal,) = caught.value.refusals
        assert refusal.code == "address-not-enrolled" and "sterna host add host2" in refusal.fix
        params = to_check(fleet.vm(), "host2")
        params["options"] |= {"addresses": enrolled}
        answer: Data = await fleet.client.call("host1", "check_migration", params)
        assert [r["code"] for r in answer["refusals"]] == ["address-not-enrolled"]
        assert dialled == []


async def test_where_it_was_enrolled_it_is_dialled(dialled: list[str]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        await start(fleet, ["192.0.2.1", there(fleet)])
        assert await fleet.ended() is Status.COMPLETED
        assert dialled and all(there(fleet) in uri for uri in dialled)


async def test_an_address_that_comes_with_the_answer_to_p3_is_no_other(dialled: list[str]) -> None:
    """It told the truth while it was checked."""
    async with SimFleet() as fleet, fleet.clock.auto():
        lie(fleet, "host2", "pre_live_migration", lambda told: told | {"address": ELSEWHERE})
        await start(fleet, [there(fleet)])
        assert await fleet.ended() is Status.FAILED
        assert not any(ELSEWHERE in uri for uri in dialled)
        assert not fleet.world.violations


async def test_of_more_addresses_those_are_left_that_it_was_enrolled_with(dialled: list[str]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        more = [there(fleet), ELSEWHERE]
        lie(fleet, "host2", "pre_live_migration", lambda told: told | {"addresses": more})
        await start(fleet, [there(fleet)])
        assert await fleet.ended() is Status.COMPLETED
        answer = fleet.agents["host1"].history(fleet.migration).get(DestinationAnswer)
        assert answer.addresses == (there(fleet),)


@pytest.mark.parametrize("addresses", ["10.0.0.2", [1], ["h/system?command=x"], {"a": 1}])
async def test_what_is_no_list_of_addresses(addresses: Any, dialled: list[str]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        with pytest.raises(BadRequest, match="addresses"):
            await start(fleet, addresses)
        assert dialled == []
