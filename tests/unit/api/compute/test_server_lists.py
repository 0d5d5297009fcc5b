"""Lists of servers: filters, orders, pages, and what has changed."""

from __future__ import annotations

import pytest

from sterna.api.compute.reading import NamePattern
from sterna.domain.model import GuestState

from .cloud import DB1, FLAVOR, LOST1, OFF1, USER, WEB1, Cloud, fault_of

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def names(cloud: Cloud, query: str, version: str = "2.96", token: str = "admin") -> list[str]:
    listed = (await cloud.get(f"/servers/detail?{query}", version, token))["servers"]
    return sorted(server["name"] for server in listed)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["off1", "web1"]),
        ("deleted=False", ["off1", "web1"]),
        ("deleted=True", []),
        ("name=web1", ["web1"]),
        ("name=WEB", ["web1"]),
        ("name=f+1", []),
        ("status=ACTIVE", ["web1"]),
        ("status=active&status=shutoff", ["off1", "web1"]),
        ("status=ERROR", []),
        ("host=a", ["web1"]),
        ("host=nohost", []),
        ("all_tenants=True", ["instance-00000002", "instance-00000004", "off1", "web1"]),
        ("all_tenants=True&host=a", ["instance-00000002", "web1"]),
        (f"uuid={WEB1}", ["web1"]),
        (f"flavor={FLAVOR}", ["off1", "web1"]),
        ("ip=10.79.0.35", ["web1"]),
        ("vm_state=stopped", ["off1"]),
        ("power_state=1", ["web1"]),
        (f"user_id={USER}", ["off1", "web1"]),
        ("image=x", []),
        ("tags=x", []),
        ("sort_key=created_at&sort_dir=desc", ["off1", "web1"]),
        ("sort_key=display_name&sort_dir=asc", ["off1", "web1"]),
        ("task_state=migrating", []),
        ("task_state=rebuilding", []),
        ("locked=True", []),
        ("locked=False", ["off1", "web1"]),
        ("availability_zone=nova", ["off1", "web1"]),
        ("availability_zone=other", []),
        ("config_drive=True", []),
        ("config_drive=", ["off1", "web1"]),
        ("description=x", []),
        ("key_name=x", []),
        ("not-tags=x", ["off1", "web1"]),
        ("created_at=2026-01-01", ["off1", "web1"]),
        ("created_at=2025", []),
        ("terminated_at=2026", []),
        ("progress=0", ["off1", "web1"]),
        ("progress=7", []),
        ("launch_index=1", []),
        (f"reservation_id=r-{WEB1[:8]}", ["off1", "web1"]),  # their UUIDs begin alike
        ("reservation_id=r-0", []),
        ("ip=10.79", ["web1"]),
        ("ip=%5E10%5C.79%5C.0%5C.35%24", ["web1"]),  # ^10\.79\.0\.35$
        ("ip=10.79.0.3$", []),
        ("ip=0.35", []),  # from the beginning on, as Nova
        ("ip=2001", []),
        ("ip6=2001:db8", ["web1"]),
        ("ip=192&ip6=2001", ["web1"]),
        ("changes-since=2026-06-01T00:00:00Z", []),
        ("changes-before=2026-06-01T00:00:00", ["off1", "web1"]),
    ],
)
async def test_a_filter_leaves_what_it_says(cloud: Cloud, query: str, found: list[str]) -> None:
    assert await names(cloud, query) == found


async def test_filters_by_what_one_may_not_see_are_ignored(cloud: Cloud) -> None:
    for query in ("host=nohost", "description=x", "metadata=x"):
        assert await names(cloud, query, token="reader") == ["off1", "web1"], query
    assert await names(cloud, "task_state=rebuilding", "2.82", "reader") == ["off1", "web1"]
    assert await names(cloud, "task_state=rebuilding", "2.83", "reader") == []
    assert await names(cloud, "locked=True", "2.73", "reader") == []


async def test_a_migrating_server_is_found_by_its_task_state(cloud: Cloud) -> None:
    assert (await cloud.migrate()).status_code == 202
    assert await names(cloud, "task_state=migrating") == ["web1"]
    assert await names(cloud, "task_state=rebuilding") == []


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("sort_key=display_name&sort_dir=asc", ["db1", "lost1", "off1", "web1"]),
        ("sort_key=display_name", ["web1", "off1", "lost1", "db1"]),
        ("sort_key=host&sort_dir=asc&sort_key=display_name&sort_dir=desc", ["web1", "db1", "off1", "lost1"]),
        ("sort_key=vm_state&sort_key=uuid&sort_dir=desc&sort_dir=asc", ["off1", "web1", "db1", "lost1"]),
        ("sort_key=locked&sort_dir=asc&sort_key=uuid&sort_dir=desc", ["lost1", "off1", "db1", "web1"]),
        ("", ["web1", "off1", "db1", "lost1"]),
    ],
)
async def test_a_list_is_in_the_order_that_is_asked_for(cloud: Cloud, query: str, order: list[str]) -> None:
    ids = {WEB1: "web1", OFF1: "off1", DB1: "db1", LOST1: "lost1"}
    listed = (await cloud.get(f"/servers?all_tenants=1&{query}"))["servers"]
    assert [ids[server["id"]] for server in listed] == order
    page = await cloud.get(f"/servers?all_tenants=1&{query}&limit=2")
    more = await cloud.get(page["servers_links"][0]["href"].partition("/v2.1")[2])
    assert [ids[s["id"]] for s in (*page["servers"], *more["servers"])] == order


async def test_a_poller_that_asks_for_changes_sees_the_end_of_a_migration(cloud: Cloud) -> None:
    """`updated` never goes back: a client that asks for what changed since its last look would miss it."""

    async def updated() -> str:
        return str((await cloud.get(f"/servers/{DB1}"))["server"]["updated"])

    async def changed(since: str) -> list[str]:
        return await names(cloud, f"all_tenants=1&changes-since={since}")

    world, seen = cloud.world, [await updated()]
    for step in (cloud.migrate, cloud.arrive):
        world.clock.ms += 60_000
        await world.bus.beat(world.controller)
        await step(DB1)
        seen.append(await updated())
    assert seen == sorted(set(seen))
    assert "instance-00000002" in await changed(seen[2])
    world.clock.ms += 60_000
    await world.bus.beat(world.controller)
    world.b.vms[DB1] = world.a.vms.pop(DB1)
    world.c.vms[LOST1] = world.c.vms[LOST1].model_copy(update={"state": GuestState.SHUTOFF})
    await world.controller.inventory.vms()
    assert await updated() == seen[2]
    stopped = (await cloud.get(f"/servers/{LOST1}"))["server"]["updated"]
    assert stopped > seen[2] and "instance-00000004" in await changed(stopped)
    assert "instance-00000002" not in await changed(stopped)


async def test_an_unknown_filter_is_a_bad_request_from_2_75_on(cloud: Cloud) -> None:
    assert await names(cloud, "foo=bar", "2.74") == ["off1", "web1"]
    answer = await cloud.ask("/servers/detail?foo=bar", "2.75")
    assert answer.status_code == 400 and "foo" in fault_of(answer, "badRequest")


@pytest.mark.parametrize(
    "query",
    [
        "sort_key=colour",
        "sort_key=vcpus",
        "sort_dir=up",
        "status=ASLEEP",
        "locked=perhaps",
        "metadata=x",
        "changes-since=2026-01-02T00:00:00Z&changes-before=2026-01-01T00:00:00Z",
        "limit=-1",
        "limit=x",
        f"marker={UNKNOWN}",
        "marker=web1",
        "all_tenants=perhaps",
        "changes-since=x",
    ],
)
async def test_a_query_that_makes_no_sense_is_a_bad_request(cloud: Cloud, query: str) -> None:
    answer = await cloud.ask(f"/servers?{query}")
    assert answer.status_code == 400 and fault_of(answer, "badRequest")


async def test_what_older_versions_take_without_effect(cloud: Cloud) -> None:
    assert await names(cloud, "sort_key=vcpus", "2.74") == ["off1", "web1"]
    assert await names(cloud, "status=ASLEEP", "2.37") == []
    for query in ("sort_key=host", "sort_key=node"):
        assert (await cloud.ask(f"/servers?{query}", token="reader")).status_code == 403


async def test_pages(cloud: Cloud) -> None:
    seen, path = [], "/servers?all_tenants=1&limit=1"
    for _ in range(4):
        page = await cloud.get(path)
        seen += [server["id"] for server in page["servers"]]
        path = page["servers_links"][0]["href"].partition("/v2.1")[2]
        assert "all_tenants=1" in path
    assert sorted(seen) == sorted([WEB1, OFF1, DB1, LOST1])
    assert (await cloud.get(path)) == {"servers": []}
    assert (await cloud.get("/servers?all_tenants=1&limit=0"))["servers"] == []


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("web", "web1", True),
        ("^web1$", "web1", True),
        ("^web1$", "web12", False),
        ("^eb", "web1", False),
        ("eb1$", "web1", True),
        ("w.b", "web1", True),
        ("w.*1", "web1", True),
        ("^w.*2$", "web1", False),
        ("^w.*b.*1$", "web1", True),
        (".*", "web1", True),
        ("", "web1", True),
        ("a (b)", "a (b)", True),
        ("a+", "aaa", False),
        ("[a-z]", "web1", False),
        ("^$", "web1", False),
        (r"w\.b", "web1", False),
        (r"w\.b", "w.b", True),
        (r"^w\$", "w$", True),
        ("\\", "web1", False),
        ("$", "web1", True),
    ],
)
def test_a_name_is_found_by_a_pattern(pattern: str, name: str, matches: bool) -> None:
    assert NamePattern(pattern).matches(name) is matches


def test_no_pattern_takes_long() -> None:
    """A regular expression of a user's could take for ever; here all but `.`, `.*`, `^` and `$` is itself."""
    assert not NamePattern(("a.*" * 80) + "b$").matches("a" * 250)
    assert not NamePattern("^(a+)+$").matches("a" * 250 + "!")
