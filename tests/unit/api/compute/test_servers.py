"""Servers: whose they are, and what is shown of them and of their flavors."""

from __future__ import annotations

import asyncio

import pytest

from sterna.controller.records import servers as module
from sterna.controller.records import under_way
from sterna.domain.errors import NotFound, Unreachable
from sterna.domain.model import GuestState
from sterna.domain.nova import NovaFacts

from ...controller.conftest import World
from .cloud import (
    DB1,
    LOST1,
    NETWORK,
    OFF1,
    OURS,
    SUBNET,
    THEIRS,
    VOLUME,
    WEB1,
    Cloud,
    FakeCloud,
    fault_of,
    make,
    port,
)

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_a_server_that_was_made_by_nobody_known_has_a_size_of_its_own(cloud: Cloud) -> None:
    shown = (await cloud.get(f"/servers/{LOST1}"))["server"]
    assert (shown["name"], shown["flavor"]["original_name"]) == ("instance-00000004", "v1-r1024-d0")
    assert (shown["tenant_id"], shown["user_id"], shown["addresses"]) == ("unknown", "unknown", {})
    old = (await cloud.get(f"/servers/{LOST1}", "2.1"))["server"]
    assert old["flavor"]["id"] == "v1-r1024-d0"
    assert (await cloud.get("/flavors/v1-r1024-d0"))["flavor"]["ram"] == 1024
    assert (await cloud.ask("/flavors/v1-r1024-d0", token="reader")).status_code == 404
    assert (await cloud.ask("/flavors/f1")).status_code == 404


async def test_addresses_are_those_of_the_ports(cloud: Cloud) -> None:
    shown = (await cloud.get(f"/servers/{WEB1}"))["server"]["addresses"]
    assert [(a["addr"], a["version"]) for a in shown["net1"]] == [("10.79.0.35", 4), ("2001:db8::35", 6)]
    assert shown["net1"][0]["OS-EXT-IPS-MAC:mac_addr"] == "fa:16:3e:89:a3:36"


async def test_interfaces_are_the_ports(cloud: Cloud) -> None:
    """As recorded of Nova, with `tag` from 2.70 on."""
    (found,) = (await cloud.get(f"/servers/{WEB1}/os-interface", "2.1", "reader"))["interfaceAttachments"]
    assert found == {
        "net_id": NETWORK,
        "port_id": f"cccccccc{WEB1[8:]}",
        "mac_addr": "fa:16:3e:89:a3:36",
        "port_state": "ACTIVE",
        "fixed_ips": [
            {"subnet_id": SUBNET, "ip_address": "10.79.0.35"},
            {"subnet_id": SUBNET, "ip_address": "2001:db8::35"},
        ],
    }
    path = f"/servers/{WEB1}/os-interface/{found['port_id']}"
    assert (await cloud.get(path, "2.70"))["interfaceAttachment"] == found | {"tag": None}
    unknown = await cloud.ask(f"/servers/{WEB1}/os-interface/{UNKNOWN}")
    assert unknown.status_code == 404 and UNKNOWN in fault_of(unknown, "itemNotFound")


async def test_interfaces_that_nobody_knows_are_not_said_to_be_none(world: World) -> None:
    """A client that reads `[]` takes them for detached."""
    cloud = await make(world)
    cloud.services.fault = Unreachable("Neutron does not answer")
    for path in ("", f"/{UNKNOWN}"):
        answer = await cloud.ask(f"/servers/{WEB1}/os-interface{path}")
        assert answer.status_code == 503 and "Neutron" in fault_of(answer, "serviceUnavailable")
    cloud.services.fault = None
    world.clock.ms += module.SILENT_MS
    assert len((await cloud.get(f"/servers/{WEB1}/os-interface"))["interfaceAttachments"]) == 1
    assert (await cloud.get(f"/servers/{OFF1}/os-interface"))["interfaceAttachments"] == []
    assert not (await module.Servers(world.fleet, world.clock, None, None).one(WEB1)).ports_known


async def test_diagnostics_are_what_the_host_knows(cloud: Cloud) -> None:
    """`openstack server show --diagnostics` asks at 2.48."""
    shown = await cloud.get(f"/servers/{WEB1}/diagnostics", "2.48")
    assert (shown["state"], shown["driver"], shown["num_cpus"], shown["num_disks"]) == ("running", "libvirt", 1, 1)
    assert shown["memory_details"] == {"maximum": 1024, "used": None}
    assert len(shown["disk_details"]) == 1 and set(shown["disk_details"][0].values()) == {None}
    assert (await cloud.get(f"/servers/{WEB1}/diagnostics", "2.47"))["memory"] == 2**20
    cloud.world.a.listening = False
    answer = await cloud.ask(f"/servers/{WEB1}/diagnostics", "2.48")
    assert answer.status_code == 503 and "does not answer" in fault_of(answer, "serviceUnavailable")


async def test_flavors_are_filtered_and_in_order(cloud: Cloud) -> None:
    async def found(query: str, token: str = "admin") -> list[str]:
        return [f["name"] for f in (await cloud.get(f"/flavors?{query}", token=token))["flavors"]]

    assert await found("is_public=None") == await found("") == ["f1", "v1-r1024-d0"]
    assert await found("is_public=False") == await found("minRam=1025") == await found("minDisk=1") == []
    assert await found("is_public=False", "reader") == ["f1"]
    assert await found("minRam=1024&sort_key=name&sort_dir=desc") == ["v1-r1024-d0", "f1"]
    for query in ("minRam=x", "is_public=perhaps", "sort_key=colour", "sort_dir=up", "foo=bar"):
        answer = await cloud.ask(f"/flavors?{query}")
        assert answer.status_code == 400 and fault_of(answer, "badRequest")


async def test_the_state_of_a_host_is_shown_and_a_silent_ones_servers_are_as_last_seen(cloud: Cloud) -> None:
    world = cloud.world

    async def seen() -> tuple[str, str]:
        shown = (await cloud.get(f"/servers/{WEB1}"))["server"]
        return shown["status"], shown["host_status"]

    assert await seen() == ("ACTIVE", "UP")
    await world.controller.registry.set_maintenance("a", True)
    assert await seen() == ("ACTIVE", "MAINTENANCE")
    world.clock.ms += 60_000
    world.a.listening = False
    await world.bus.beat(world.controller)
    assert await seen() == ("ACTIVE", "UNKNOWN")
    await world.controller.registry.set_dead("a", "2026-01-01T00:00:00+00:00")
    assert await seen() == ("ACTIVE", "DOWN")


async def test_a_paused_server(cloud: Cloud) -> None:
    cloud.world.a.vms[WEB1] = cloud.world.a.vms[WEB1].model_copy(update={"state": GuestState.PAUSED})
    await cloud.world.controller.inventory.vms()
    shown = (await cloud.get(f"/servers/{WEB1}"))["server"]
    states = (shown["status"], shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:power_state"])
    assert states == ("PAUSED", "paused", 3)


async def test_a_server_that_has_suspended_itself(cloud: Cloud) -> None:
    """Nova's SUSPENDED; it is not moved."""
    asleep = {"state": GuestState.PAUSED, "asleep": True}
    cloud.world.a.vms[WEB1] = cloud.world.a.vms[WEB1].model_copy(update=asleep)
    await cloud.world.controller.inventory.vms()
    shown = (await cloud.get(f"/servers/{WEB1}"))["server"]
    states = (shown["status"], shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:power_state"])
    assert states == ("SUSPENDED", "suspended", 7)
    found = (await cloud.get("/servers?status=SUSPENDED&vm_state=suspended&power_state=7"))["servers"]
    assert [server["id"] for server in found] == [WEB1]
    assert (await cloud.migrate()).status_code == 409
    awake = {"state": GuestState.RUNNING, "asleep": False}
    cloud.world.a.vms[WEB1] = cloud.world.a.vms[WEB1].model_copy(update=awake)
    await cloud.world.controller.inventory.vms()
    assert (await cloud.get(f"/servers/{WEB1}"))["server"]["status"] == "ACTIVE"


# ------------------------------------------------------------ whose it is


async def test_a_project_is_novas_word_then_the_ports_then_the_volumes(world: World) -> None:
    cloud = await make(world)
    services, servers = cloud.services, cloud.setup.servers
    services.listed = [port(WEB1, THEIRS), port(DB1, THEIRS)]
    assert (await servers.one(WEB1)).project_id == OURS
    assert (await servers.one(DB1)).project_id == THEIRS
    assert (await servers.one(LOST1)).project_id == ""
    services.listed, volume = [], "42bec667-7dd8-4de5-8734-b3b9164dc959"
    world.a.vms[DB1] = world.a.vms[DB1].model_copy(update={"volumes": (volume,)})
    await world.controller.inventory.vms()
    world.clock.ms += module.KNOWN_MS
    await world.bus.beat(world.controller)
    assert (await servers.one(DB1)).project_id == OURS  # as the volume's
    world.a.vms[DB1] = world.a.vms[DB1].model_copy(update={"nova": NovaFacts(project_id=THEIRS)})
    await world.controller.inventory.vms()
    assert (await servers.one(DB1)).project_id == THEIRS


async def test_ports_of_two_projects_say_nothing(cloud: Cloud) -> None:
    cloud.services.listed = [port(LOST1, OURS), port(LOST1, THEIRS)]
    assert (await cloud.setup.servers.one(LOST1)).project_id == ""
    assert (await cloud.ask(f"/servers/{LOST1}", token="reader")).status_code == 404


async def test_what_nobody_claims_is_the_configured_projects(world: World) -> None:
    servers = module.Servers(world.fleet, world.clock, None, None, THEIRS)
    await make(world)
    assert [s.project_id for s in await servers.all()] == [OURS, THEIRS, OURS, THEIRS]


async def test_the_cloud_is_not_asked_again_for_a_while(cloud: Cloud) -> None:
    for _ in range(3):
        await cloud.get("/servers/detail?all_tenants=1")
    assert cloud.services.asked.count("ports") == 1
    cloud.world.clock.ms += module.KNOWN_MS
    await cloud.get("/servers/detail?all_tenants=1")
    assert cloud.services.asked.count("ports") == 2


async def test_while_the_cloud_is_silent_what_was_known_is_shown(cloud: Cloud) -> None:
    before = (await cloud.get(f"/servers/{WEB1}"))["server"]["addresses"]
    cloud.world.clock.ms += module.KNOWN_MS
    cloud.services.fault = Unreachable("Neutron does not answer")
    for _ in range(3):
        assert before and (await cloud.get(f"/servers/{WEB1}"))["server"]["addresses"] == before
    assert cloud.services.asked.count("ports") == 2  # and not for each request
    assert (await cloud.ask(f"/servers/{DB1}", token="stranger")).status_code == 404  # not known to be theirs
    cloud.services.fault = None
    cloud.world.clock.ms += module.SILENT_MS
    assert (await cloud.ask(f"/servers/{DB1}", token="stranger")).status_code == 200


async def test_a_cloud_that_knows_nothing_of_ports(world: World) -> None:
    await make(world)
    servers = module.Servers(world.fleet, world.clock, None, FakeCloud())
    assert (await servers.one(WEB1)).ports == ()


# ------------------------------------------------------------ while records change


@pytest.mark.parametrize("path", [f"/servers/{WEB1}", "/servers/detail?name=web1"])
async def test_a_server_that_is_held_migrates_whatever_is_known_of_its_migration(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The VM and its migration are two records, and the second may be gone when it is read. A client that polls
    would take the old host for the new one."""
    assert (await cloud.migrate()).status_code == 202

    async def gone(*_: object) -> None:
        raise NotFound("there is no such migration")

    async def none(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(cloud.world.fleet, "migration", gone)
    monkeypatch.setattr(cloud.world.fleet, "migrations", none)
    found = await cloud.get(path)
    shown = found["server"] if "server" in found else found["servers"][0]
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("MIGRATING", "migrating")
    assert (await cloud.migrate()).status_code == 409
    answer = await cloud.ask(f"/servers/{WEB1}/os-volume_attachments/{VOLUME}", "2.89")
    assert answer.status_code == 503


async def test_no_migration_under_way_is_overlooked(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_way, "READ_AT_ONCE", 1)
    assert (await cloud.migrate(WEB1)).status_code == 202
    assert (await cloud.migrate(LOST1)).status_code == 202
    assert {s.vm.uuid for s in await cloud.setup.servers.all() if s.migration is not None} == {WEB1, LOST1}


async def test_those_who_ask_at_once_share_the_answer(cloud: Cloud) -> None:
    await asyncio.gather(*(cloud.get(f"/servers/{WEB1}") for _ in range(5)))
    assert cloud.services.asked.count("ports") == 1


async def test_a_look_at_the_cloud_is_of_a_few_servers(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands the rest is asked about in the next ones."""
    monkeypatch.setattr(module, "ASKED_AT_ONCE", 1)
    for asked in range(1, 5):
        await cloud.setup.servers.all()
        assert cloud.services.asked.count("ports") == asked
    await cloud.setup.servers.all()
    assert cloud.services.asked.count("ports") == 4
    assert (await cloud.setup.servers.one(DB1)).project_id == THEIRS
