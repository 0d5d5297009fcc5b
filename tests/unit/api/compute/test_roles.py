"""Who may do what: the table of Nova's defaults, asked route by route with a token of each role."""

from __future__ import annotations

from typing import Any

import pytest

from .cloud import DB1, FLAVOR, LOST1, OFF1, VOLUME, WEB1, Cloud, fault_of

MOVE = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
MOVE_TO_B = {"os-migrateLive": {"host": "b", "block_migration": "auto"}}
EVENTS = {"events": [{"name": "network-vif-plugged", "server_uuid": WEB1, "tag": "p-1"}]}
EVERYBODY = ("admin", "manager", "member", "reader", "nobody", "service", "unscoped", "of-a-domain")
READERS, MANAGERS, ADMINS = ("admin", "manager", "member", "reader"), ("admin", "manager"), ("admin",)
Case = tuple[str, str, Any, tuple[str, ...]]
CASES: dict[str, Case] = {
    "list servers": ("GET", "/servers", None, READERS),
    "list all servers": ("GET", "/servers?all_tenants=True", None, ADMINS),
    "show": ("GET", f"/servers/{WEB1}", None, READERS),
    "tags": ("GET", f"/servers/{WEB1}/tags", None, READERS),
    "volumes": ("GET", f"/servers/{WEB1}/os-volume_attachments", None, READERS),
    "volume": ("GET", f"/servers/{WEB1}/os-volume_attachments/{VOLUME}", None, READERS),
    "interfaces": ("GET", f"/servers/{WEB1}/os-interface", None, READERS),
    "interface": ("GET", f"/servers/{WEB1}/os-interface/cccccccc{WEB1[8:]}", None, READERS),
    "diagnostics": ("GET", f"/servers/{WEB1}/diagnostics", None, ADMINS),
    "actions": ("GET", f"/servers/{WEB1}/os-instance-actions", None, READERS),
    "migrate": ("POST", f"/servers/{WEB1}/action", MOVE, MANAGERS),
    "migrate to a host": ("POST", f"/servers/{WEB1}/action", MOVE_TO_B, ADMINS),
    "server migrations": ("GET", f"/servers/{WEB1}/migrations", None, MANAGERS),
    "all migrations": ("GET", "/os-migrations", None, ADMINS),
    "services": ("GET", "/os-services", None, ADMINS),
    "maintenance": ("PUT", "/os-services/ID", {"status": "disabled"}, ADMINS),
    "hypervisors": ("GET", "/os-hypervisors/detail", None, ADMINS),
    "flavors": ("GET", "/flavors/detail", None, EVERYBODY),
    "extra specs": ("GET", f"/flavors/{FLAVOR}/os-extra_specs", None, READERS),
    "zones": ("GET", "/os-availability-zone", None, EVERYBODY),
    "zones with hosts": ("GET", "/os-availability-zone/detail", None, ADMINS),
    "aggregates": ("GET", "/os-aggregates", None, ADMINS),
    "events": ("POST", "/os-server-external-events", EVENTS, ("admin", "service")),
}


@pytest.mark.parametrize("token", EVERYBODY)
async def test_each_role_may_what_novas_defaults_allow_it(cloud: Cloud, token: str) -> None:
    services = (await cloud.get("/os-services"))["services"]
    for name, (method, path, body, allowed) in CASES.items():
        if name.startswith("migrate") and token in allowed:
            continue  # below: only one can be accepted
        filled = path.replace("ID", services[0]["id"])
        answer = await cloud.ask(filled, "2.80", method=method, token=token, body=body)
        if token in allowed:
            assert answer.status_code < 300, f"{name}: {answer.text}"
        elif token == "service" and WEB1 in path and answer.status_code == 404:
            pass  # of another project
        else:
            assert answer.status_code == 403, f"{name}: {answer.text}"
            assert "policy os_compute_api:" in fault_of(answer, "forbidden"), name


@pytest.mark.parametrize(("token", "host"), [("manager", None), ("admin", "b")])
async def test_who_may_migrate_can(cloud: Cloud, token: str, host: str | None) -> None:
    assert (await cloud.migrate(token=token, host=host)).status_code == 202


@pytest.mark.parametrize("token", ["manager", "reader"])
async def test_a_server_of_another_project_is_not_there(cloud: Cloud, token: str) -> None:
    for server in (DB1, LOST1):
        for path in ("", "/os-instance-actions", "/migrations", "/os-volume_attachments"):
            answer = await cloud.ask(f"/servers/{server}{path}", "2.80", token=token)
            allowed = token == "manager" or path != "/migrations"
            assert answer.status_code == (404 if allowed else 403), answer.text
    moved = await cloud.migrate(DB1, None, token="manager")
    assert moved.status_code == 404 and DB1 in fault_of(moved, "itemNotFound")


async def test_a_list_is_of_the_project_of_the_token(cloud: Cloud) -> None:
    async def seen(token: str, query: str = "") -> set[str]:
        return {s["id"] for s in (await cloud.get(f"/servers{query}", token=token))["servers"]}

    assert await seen("reader") == await seen("admin") == {WEB1, OFF1}
    assert await seen("stranger") == {DB1}  # by its port
    assert await seen("admin", "?all_tenants=True") == {WEB1, OFF1, DB1, LOST1}
    assert await seen("admin", "?project_id=f84103e230c646d09a81148ebebf7dc9") == {DB1}
    assert await seen("reader", "?project_id=f84103e230c646d09a81148ebebf7dc9") == {WEB1, OFF1}


async def test_an_administrator_reaches_every_server_by_its_id(cloud: Cloud) -> None:
    for server in (WEB1, DB1, LOST1):
        assert (await cloud.get(f"/servers/{server}"))["server"]["id"] == server


@pytest.mark.parametrize("token", ["manager", "reader"])
async def test_who_is_no_administrator_sees_no_host(cloud: Cloud, token: str) -> None:
    shown = (await cloud.get(f"/servers/{WEB1}", token=token))["server"]
    assert not {"OS-EXT-SRV-ATTR:host", "OS-EXT-SRV-ATTR:instance_name", "host_status"} & set(shown)
    assert len(shown["hostId"]) == 56 and shown["OS-EXT-SRV-ATTR:hostname"] == "web1"
    assert (await cloud.migrate()).status_code == 202
    await cloud.world.pull()
    done = (await cloud.get(f"/servers/{WEB1}/os-instance-actions", token=token))["instanceActions"][0]
    path = f"/servers/{WEB1}/os-instance-actions/{done['request_id']}"
    (event, *_) = (await cloud.get(path, token=token))["instanceAction"]["events"]
    assert set(event) == {"event", "start_time", "finish_time", "result", "hostId"}
    if token == "manager":
        (moving,) = (await cloud.get(f"/servers/{WEB1}/migrations", token=token))["migrations"]
        hosts = {moving[k] for k in ("source_compute", "source_node", "dest_compute", "dest_node", "dest_host")}
        assert hosts == {None}


async def test_a_refusal_names_no_host_to_who_is_no_administrator(cloud: Cloud) -> None:
    for name in ("b", "c"):
        await cloud.world.controller.registry.set_maintenance(name, True)
    told = fault_of(await cloud.migrate(host=None, token="admin"), "badRequest")
    assert "b is in maintenance" in told and "c is in maintenance" in told
    told = fault_of(await cloud.migrate(host=None, token="manager"), "badRequest")
    assert "a host is in maintenance" in told
    assert "b is" not in told and "c is" not in told


async def test_managers_list_what_their_project_has_asked_for(cloud: Cloud) -> None:
    assert (await cloud.migrate(token="manager", host=None)).status_code == 202
    own = f"/os-migrations?project_id={'b9d31071c22140c98214a11262d297e4'}"
    (found,) = (await cloud.get(own, "2.80", token="manager"))["migrations"]
    assert (found["instance_uuid"], found["source_compute"]) == (WEB1, None)
    for wrong in ("/os-migrations", "/os-migrations?project_id=f84103e230c646d09a81148ebebf7dc9"):
        assert (await cloud.ask(wrong, "2.80", token="manager")).status_code == 403
    assert (await cloud.get(own, "2.80", token="admin"))["migrations"][0]["source_compute"] == "a"
