"""Two real controllers on one database over real agents on simulated hosts, as users of their APIs see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2

from sterna.controller.controller import Controller
from sterna.domain.trust.identities import CONTROLLER_TOKEN
from sterna.rpc.client import RpcClient
from tests.saga.controlled import HoldingFleet
from tests.saga.fleet import SimFleet
from tests.unit.api.clients import client, served


@asynccontextmanager
async def serving(fleet: SimFleet, database: str, name: str) -> AsyncIterator[httpx2.AsyncClient]:
    """The API of a controller of its own."""
    calls = RpcClient(fleet.broker.bus(name, CONTROLLER_TOKEN), CONTROLLER_TOKEN, fleet.clock)
    controller = Controller(HoldingFleet(database, fleet.clock), calls, fleet.clock)
    await controller.start()
    async with client(served(controller), timeout=60) as http:
        yield http
    await controller.stop()


async def get(http: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/{path}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def events(http: httpx2.AsyncClient, id: str) -> list[dict[str, Any]]:
    """Its stream, to the end: each event with its kind and its number."""
    found = []
    for block in (await http.get(f"/v1/migrations/{id}/events")).text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
        if "data" in fields:
            found.append(json.loads(fields["data"]) | {"event": fields["event"], "number": fields.get("id")})
    return found


async def test_what_is_asked_of_one_is_seen_at_both(database: str) -> None:
    fleet = SimFleet()

    async def inside() -> None:
        async with fleet, AsyncExitStack() as stack:
            both = [await stack.enter_async_context(serving(fleet, database, n)) for n in ("one", "two")]
            await fleet.clock.sleep(2)  # two beacons
            vm = fleet.vm()
            ask = {"vm": "tern", "destination": "host2"}
            answers = await asyncio.gather(*(both[n % 2].post("/v1/migrations", json=ask) for n in range(10)))
            assert sorted(a.status_code for a in answers) == [202] + [409] * 9
            id = next(a.json()["id"] for a in answers if a.status_code == 202)
            following = [asyncio.create_task(events(http, id)) for http in both]
            fleet.migration = id
            await fleet.ended()
            told = await asyncio.gather(*following)
            short, long = sorted(([e for e in one if e["number"]] for one in told), key=len)
            assert short == long[: len(short)]  # one may end a moment earlier
            numbers = [int(e["number"]) for e in long]
            assert numbers == sorted(set(numbers))
            statuses = [e["status"] for e in short if e["event"] == "status"]
            assert statuses == ["queued", "preparing", "migrating", "post-migrating", "completed"]
            assert {"P12", "M5", "F11"} <= {e["row"] for e in short}
            for http, one in zip(both, told, strict=True):
                assert one[-1] == {"event": "end", "number": None, "migration_id": id, "status": "completed"}
                assert [m["id"] for m in (await get(http, "migrations"))["migrations"]] == [id]
                record = await get(http, f"migrations/{id}")
                assert (record["status"], record["vm_uuid"]) == ("completed", vm), record
                (listed,) = (await get(http, "vms"))["vms"]
                assert (listed["host"], listed["state"], listed["task_state"]) == ("host2", "running", None)
        assert not fleet.world.violations

    await fleet.clock.run(inside())
