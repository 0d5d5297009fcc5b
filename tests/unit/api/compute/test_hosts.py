"""Services, hypervisors, hosts, zones and aggregates: the hosts in Nova's words. And events of Neutron."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.controller.intents.operate import OperationRequest

from .cloud import DB1, VOLUME, WEB1, Cloud, fault_of

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def service(cloud: Cloud, host: str = "b", version: str = "2.69") -> dict[str, Any]:
    (found,) = (await cloud.get(f"/os-services?binary=nova-compute&host={host}", version))["services"]
    return dict(found)


async def put(cloud: Cloud, id: str, body: Any, version: str = "2.69") -> Any:
    return await cloud.ask(f"/os-services/{id}", version, method="PUT", body=body)


async def test_there_is_one_service_for_each_host(cloud: Cloud) -> None:
    found = (await cloud.get("/os-services", "2.69"))["services"]
    assert [(s["host"], s["binary"], s["status"], s["state"]) for s in found] == [
        (name, "nova-compute", "enabled", "up") for name in ("a", "b", "c")
    ]
    assert len({s["id"] for s in found}) == 3
    assert found == (await cloud.get("/os-services", "2.69"))["services"]  # the same IDs
    assert (await cloud.get("/os-services?binary=nova-scheduler", "2.69"))["services"] == []
    assert (await cloud.get("/os-services?host=z", "2.69"))["services"] == []
    assert (await cloud.get("/os-services?host=&binary=", "2.69"))["services"] == found  # as no filter
    assert isinstance((await service(cloud, version="2.1"))["id"], int)


async def test_disabled_is_maintenance_with_its_reason(cloud: Cloud) -> None:
    id = (await service(cloud))["id"]
    changed = (await put(cloud, id, {"status": "disabled", "disabled_reason": "new fans"})).json()["service"]
    assert (changed["status"], changed["disabled_reason"], changed["id"]) == ("disabled", "new fans", id)
    host = await cloud.world.controller.registry.host("b")
    assert (host.maintenance, host.maintenance_reason) == (True, "new fans")
    assert (await cloud.migrate(host="b")).status_code == 400
    assert (await cloud.get("/os-hypervisors/detail", "2.88"))["hypervisors"][1]["service"] == {
        "id": id,
        "host": "b",
        "disabled_reason": "new fans",
    }
    changed = (await put(cloud, id, {"status": "enabled"})).json()["service"]
    assert (changed["status"], changed["disabled_reason"]) == ("enabled", None)
    assert (await cloud.migrate(host="b")).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"foo": 1},
        {"status": "off"},
        {"status": "enabled", "disabled_reason": "x"},
        {"disabled_reason": "x"},
        {"status": "disabled", "disabled_reason": ""},
        {"status": "disabled", "disabled_reason": "x" * 256},
        {"forced_down": "perhaps"},
    ],
)
async def test_what_makes_no_sense_changes_nothing(cloud: Cloud, body: dict[str, Any]) -> None:
    answer = await put(cloud, (await service(cloud))["id"], body)
    assert answer.status_code == 400 and fault_of(answer, "badRequest")
    assert (await service(cloud))["status"] == "enabled"


async def test_an_unknown_service_is_not_found_and_a_known_one_stays(cloud: Cloud) -> None:
    assert (await put(cloud, UNKNOWN, {"status": "disabled"})).status_code == 404
    assert (await cloud.ask(f"/os-services/{UNKNOWN}", "2.69", method="DELETE")).status_code == 404
    kept = await cloud.ask(f"/os-services/{(await service(cloud))['id']}", "2.69", method="DELETE")
    assert kept.status_code == 409 and "stop its agent" in fault_of(kept, "conflictingRequest")


async def test_a_host_that_is_being_emptied_is_not_enabled(cloud: Cloud) -> None:
    await cloud.world.controller.operate.begin(OperationRequest(hosts=("b",)))
    answer = await put(cloud, (await service(cloud))["id"], {"status": "enabled"})
    assert answer.status_code == 409 and "is emptying b" in fault_of(answer, "conflictingRequest")
    assert (await service(cloud))["status"] == "disabled"


async def test_before_2_53_the_path_says_what_is_done(cloud: Cloud) -> None:
    named = {"host": "b", "binary": "nova-compute"}
    answer = await put(cloud, "disable-log-reason", named | {"disabled_reason": "new fans"}, "2.1")
    assert answer.json() == {"service": named | {"status": "disabled", "disabled_reason": "new fans"}}
    assert (await service(cloud))["disabled_reason"] == "new fans"
    assert (await put(cloud, "enable", named, "2.1")).json() == {"service": named | {"status": "enabled"}}
    assert (await put(cloud, "disable", named, "2.1")).json() == {"service": named | {"status": "disabled"}}
    reason = named | {"disabled_reason": "old fans"}
    assert (await put(cloud, "disable", reason, "2.1")).json() == {"service": named | {"status": "disabled"}}
    assert (await service(cloud))["disabled_reason"] == "old fans"
    assert (await put(cloud, "enable", reason | {"forced_down": False}, "2.11")).status_code == 200
    assert (await put(cloud, "enable", reason | {"forced_down": False}, "2.1")).status_code == 400
    assert (await put(cloud, "disable", {"host": "z", "binary": "nova-compute"}, "2.1")).status_code == 404
    assert (await put(cloud, "disable", named | {"binary": "nova-conductor"}, "2.1")).status_code == 404
    assert (await put(cloud, "disable", {"host": "b"}, "2.1")).status_code == 400
    assert (await put(cloud, "disable-log-reason", named, "2.1")).status_code == 400
    assert (await put(cloud, "explode", named, "2.1")).status_code == 404
    assert (await put(cloud, "force-down", named, "2.10")).status_code == 404
    assert (await put(cloud, "force-down", named | {"forced_down": True}, "2.11")).status_code == 409


async def test_a_host_is_declared_dead_only_where_that_is_said(cloud: Cloud) -> None:
    """Nova's schema requires the field as well."""
    world = cloud.world
    world.b.listening = False
    world.clock.ms += 60_000
    await world.bus.beat(world.controller)
    named = {"host": "b", "binary": "nova-compute"}
    answer = await put(cloud, "force-down", named, "2.11")
    assert answer.status_code == 400 and "'forced_down' is required" in fault_of(answer, "badRequest")
    assert world.a.told_dead == [] and not (await world.controller.registry.host("b")).dead
    assert (await put(cloud, "force-down", named | {"forced_down": True}, "2.11")).status_code == 200


async def test_forced_down_is_believed_only_of_a_silent_host(cloud: Cloud) -> None:
    id, world = (await service(cloud))["id"], cloud.world
    answer = await put(cloud, id, {"forced_down": True})
    assert answer.status_code == 409 and "answers" in fault_of(answer, "conflictingRequest")
    world.b.listening = False
    world.clock.ms += 60_000
    await world.bus.beat(world.controller)
    changed = (await put(cloud, id, {"forced_down": True})).json()["service"]
    assert (changed["forced_down"], changed["state"]) == (True, "down")
    assert world.a.told_dead == ["b"]
    changed = (await put(cloud, id, {"forced_down": False})).json()["service"]
    assert (changed["forced_down"], world.a.told_dead) == (False, [])
    assert (await put(cloud, id, {"forced_down": False})).status_code == 200


async def test_a_hypervisor_is_found_by_its_id_and_its_name_in_the_list(cloud: Cloud) -> None:
    (first, *_) = (await cloud.get("/os-hypervisors", "2.88"))["hypervisors"]
    shown = (await cloud.get(f"/os-hypervisors/{first['id']}", "2.88"))["hypervisor"]
    assert (shown["hypervisor_hostname"], shown["hypervisor_type"], shown["host_ip"]) == ("a", "QEMU", "10.0.0.1")
    by_name = await cloud.ask("/os-hypervisors/a", "2.88")
    assert by_name.status_code == 400 and fault_of(by_name, "badRequest")
    assert (await cloud.ask("/os-hypervisors/a", "2.1")).status_code == 404
    assert (await cloud.ask(f"/os-hypervisors/{UNKNOWN}", "2.88")).status_code == 404


async def test_hypervisors_with_their_servers(cloud: Cloud) -> None:
    query = "hypervisor_hostname_pattern=A&with_servers=True"
    (found,) = (await cloud.get(f"/os-hypervisors?{query}", "2.80"))["hypervisors"]
    assert [s["uuid"] for s in found["servers"]] == [WEB1, DB1]
    (found,) = (await cloud.get("/os-hypervisors/a/servers", "2.1"))["hypervisors"]
    assert [s["uuid"] for s in found["servers"]] == [WEB1, DB1]
    assert len((await cloud.get("/os-hypervisors/a/search", "2.1"))["hypervisors"]) == 1
    for path, version in (("/os-hypervisors?hypervisor_hostname_pattern=z", "2.80"),
                          ("/os-hypervisors/z/servers", "2.1"), ("/os-hypervisors/a/servers", "2.53")):  # fmt: skip
        assert (await cloud.ask(path, version)).status_code == 404
    assert (await cloud.ask("/os-hypervisors?foo=bar", "2.80")).status_code == 400


async def test_a_server_that_runs_on_two_hosts_is_on_both(cloud: Cloud) -> None:
    """`nova host-evacuate-live` asks for those of a host, and moves each: it is refused with the reason."""
    await cloud.run_twice()
    for host in ("a", "b"):
        (found,) = (await cloud.get(f"/os-hypervisors?hypervisor_hostname_pattern={host}&with_servers=True"))[
            "hypervisors"
        ]
        assert WEB1 in [s["uuid"] for s in found["servers"]]
        assert WEB1 in [s["id"] for s in (await cloud.get(f"/servers?all_tenants=1&host={host}"))["servers"]]
    answer = await cloud.migrate(host="c")
    assert answer.status_code == 409 and "runs on several hosts" in fault_of(answer, "conflictingRequest")


async def test_what_a_hypervisor_has_and_what_is_used_of_it(cloud: Cloud) -> None:
    (a, *_) = (await cloud.get("/os-hypervisors/detail", "2.80"))["hypervisors"]
    assert (a["vcpus"], a["memory_mb"], a["memory_mb_used"], a["free_ram_mb"]) == (4, 16384, 8192, 8192)
    assert (a["vcpus_used"], a["running_vms"], a["cpu_info"]["arch"]) == (2, 2, "x86_64")
    assert isinstance((await cloud.get("/os-hypervisors/detail", "2.1"))["hypervisors"][0]["cpu_info"], str)
    sums = (await cloud.get("/os-hypervisors/statistics", "2.1"))["hypervisor_statistics"]
    assert (sums["count"], sums["vcpus"], sums["running_vms"]) == (3, 12, 3)
    uptime = await cloud.ask(f"/os-hypervisors/{a['id']}/uptime", "2.80")
    assert uptime.status_code == 501 and fault_of(uptime, "notImplemented")


async def test_hypervisors_come_in_pages(cloud: Cloud) -> None:
    first = await cloud.get("/os-hypervisors?limit=2", "2.88")
    assert [h["hypervisor_hostname"] for h in first["hypervisors"]] == ["a", "b"]
    path = first["hypervisors_links"][0]["href"].partition("/v2.1")[2]
    assert [h["hypervisor_hostname"] for h in (await cloud.get(path, "2.88"))["hypervisors"]] == ["c"]


async def test_hosts_of_old_clients(cloud: Cloud) -> None:
    found = (await cloud.get("/os-hosts", "2.1"))["hosts"]
    assert found[0] == {"host_name": "a", "service": "compute", "zone": "nova"}
    assert (await cloud.get("/os-hosts?zone=elsewhere", "2.1"))["hosts"] == []
    total = (await cloud.get("/os-hosts/a", "2.1"))["host"][0]["resource"]
    assert (total["project"], total["cpu"], total["memory_mb"]) == ("(total)", 4, 16384)
    assert (await cloud.ask("/os-hosts/z", "2.1")).status_code == 404


async def test_one_zone_and_no_aggregates(cloud: Cloud) -> None:
    assert (await cloud.get("/os-availability-zone", token="reader"))["availabilityZoneInfo"] == [
        {"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}
    ]
    (zone,) = (await cloud.get("/os-availability-zone/detail"))["availabilityZoneInfo"]
    assert set(zone["hosts"]) == {"a", "b", "c"} and zone["hosts"]["a"]["nova-compute"]["available"] is True
    for name in ("a", "b", "c"):
        await cloud.world.controller.registry.set_maintenance(name, True)
    (zone,) = (await cloud.get("/os-availability-zone"))["availabilityZoneInfo"]
    assert zone["zoneState"] == {"available": False}
    assert (await cloud.get("/os-aggregates")) == {"aggregates": []}
    assert (await cloud.ask("/os-aggregates/1")).status_code == 404


PLUGGED = {"name": "network-vif-plugged", "server_uuid": WEB1, "tag": "p-1", "status": "completed"}
EXTENDED = {"name": "volume-extended", "server_uuid": WEB1, "tag": VOLUME}


async def post(cloud: Cloud, *events: Any, version: str = "2.1") -> Any:
    path = "/os-server-external-events"
    return await cloud.ask(path, version, method="POST", token="service", body={"events": list(events)})


async def test_neutrons_events_are_passed_on(cloud: Cloud) -> None:
    answer = await post(cloud, PLUGGED)
    assert (answer.status_code, answer.json()) == (200, {"events": [PLUGGED | {"code": 200}]})
    ((topic, told),) = cloud.world.bus.announced
    assert (topic, told["port"]) == (f"external.{WEB1}", "p-1")


async def test_each_event_has_a_code_of_its_own(cloud: Cloud) -> None:
    """Cinder reads them: it must not believe that a guest's disk was resized."""
    untagged = {"name": "network-changed", "server_uuid": WEB1}
    asked = [PLUGGED, untagged, PLUGGED | {"server_uuid": UNKNOWN}, EXTENDED,
             {"name": "volume-extended", "server_uuid": WEB1}]  # fmt: skip
    answer = await post(cloud, *asked, version="2.51")
    assert answer.status_code == 207
    codes = [200, 200, 404, 422, 400]
    words = ["completed" if code == 200 else "failed" for code in codes]
    assert answer.json()["events"] == [
        event | {"status": word, "code": code} for event, word, code in zip(asked, words, codes, strict=True)
    ]
    alone = await post(cloud, EXTENDED, version="2.51")
    assert alone.status_code == 207 and alone.json()["events"][0]["code"] == 422


async def test_an_event_is_of_a_server_in_whatever_case(cloud: Cloud) -> None:
    asked = [PLUGGED | {"server_uuid": WEB1.upper(), "tag": "a_b " + "x" * 251}] * 250
    answer = await post(cloud, *asked)
    assert answer.status_code == 200 and len(answer.json()["events"]) == 250
    assert cloud.world.bus.announced[0][0] == f"external.{WEB1}"
    many = [PLUGGED | {"server_uuid": f"{n:08x}{UNKNOWN[8:]}"} for n in range(1, 30)]
    assert {e["code"] for e in (await post(cloud, *many)).json()["events"]} == {404}


@pytest.mark.parametrize(
    "event",
    [
        {"name": "Plugged!"},
        {"name": "volume-extended"},  # from 2.51 on
        {"name": None},
        {"server_uuid": "web1"},
        {"server_uuid": 7},
        {"tag": "x" * 256},
        {"tag": None},
        {"status": "perhaps"},
        {"more": 1},
    ],
    ids=str,
)
async def test_an_event_that_is_none_is_named_and_nothing_is_passed_on(cloud: Cloud, event: Any) -> None:
    answer = await post(cloud, PLUGGED, PLUGGED | event, version="2.50")
    assert answer.status_code == 400 and "events.1" in fault_of(answer, "badRequest")
    assert cloud.world.bus.announced == []
    path, good = "/os-server-external-events", {"events": [PLUGGED]}
    bodies: list[Any] = [{}, {"events": []}, {"events": 7}, {"events": [7]}, good | {"x": 1}, {"events": [{}]}]
    for body in bodies:
        answer = await cloud.ask(path, "2.1", method="POST", token="service", body=body)
        assert answer.status_code == 400 and fault_of(answer, "badRequest")
