"""Migrations: listed, shown below their server, aborted, forced to their end; and the actions of a server."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.controller.intents.request import MigrateRequest
from sterna.domain.compute.statuses import MIGRATION, statuses_called
from sterna.domain.copying import JobSample
from sterna.domain.errors import Conflict, Permanent, Unknown
from sterna.domain.journal import Kind, Role
from sterna.domain.objective import Asked
from sterna.domain.policies import May
from sterna.domain.status import Status

from ...controller.conftest import World
from ...domain.journals import Book
from .cloud import DB1, OURS, USER, WEB1, Cloud, fault_of, make

UNKNOWN = "00000000-0000-4000-8000-000000000000"
BELOW = f"/servers/{WEB1}/migrations"


async def moving(cloud: Cloud, *statuses: str) -> Any:
    """A migration of web1 that its agent has brought so far."""
    assert (await cloud.migrate()).status_code == 202
    (migration,) = cloud.world.a.migrations.values()
    book = Book(Role.SOURCE, migration=migration)
    for status in statuses:
        book.status(status, f"{status} now")
    cloud.world.a.write(book)
    await cloud.world.pull()
    return migration


async def test_progress_is_counted_apart_for_memory_and_disks(cloud: Cloud) -> None:
    migration = await moving(cloud, "preparing", "migrating")
    sample = JobSample(
        memory_total=1000, memory_processed=400, memory_remaining=600, disk_total=500, disk_processed=100,
        disk_remaining=400, elapsed_ms=1000,
    )  # fmt: skip
    await cloud.world.controller.copies.sampled("a", migration.id, {"sample": sample.model_dump()})
    shown = (await cloud.get(f"{BELOW}/1", "2.80"))["migration"]
    assert (shown["status"], shown["id"], shown["uuid"]) == ("running", 1, migration.id)
    assert (shown["memory_total_bytes"], shown["disk_total_bytes"]) == (1000, 500)
    assert (shown["memory_processed_bytes"], shown["disk_processed_bytes"]) == (400, 100)
    assert (shown["memory_remaining_bytes"], shown["disk_remaining_bytes"]) == (600, 400)
    assert (shown["source_compute"], shown["dest_compute"], shown["dest_host"]) == ("a", "b", "10.0.0.2")


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        ((), "queued"),
        (("preparing",), "preparing"),
        (("preparing", "migrating"), "running"),
        (("preparing", "migrating", "post-copy"), "running (post-copy)"),
        (("preparing", "migrating", "post-migrating"), "post-migrating"),
        (("preparing", "rolling-back"), "running"),
        (("preparing", "rolling-back", "failed"), "failed"),
        (("preparing", "rolling-back", "cancelled"), "cancelled"),
        (("preparing", "error"), "error"),
    ],
)
async def test_a_status_is_said_in_novas_words_and_can_be_asked_for(
    cloud: Cloud, statuses: tuple[str, ...], word: str
) -> None:
    await moving(cloud, *statuses)
    (found,) = (await cloud.get("/os-migrations", "2.80"))["migrations"]
    assert found["status"] == word
    assert len((await cloud.get(f"/os-migrations?status={word}", "2.80"))["migrations"]) == 1
    assert (await cloud.get("/os-migrations?status=accepted", "2.80"))["migrations"] == []
    under_way = (await cloud.get(BELOW, "2.80"))["migrations"]
    assert len(under_way) == (0 if word in ("failed", "cancelled", "error") else 1)
    status = (await cloud.get(f"/servers/{WEB1}"))["server"]["status"]
    assert status == ("ACTIVE" if word in ("failed", "cancelled") else "MIGRATING")


async def test_filters_of_the_list(cloud: Cloud) -> None:
    await moving(cloud)

    async def found(query: str) -> int:
        return len((await cloud.get(f"/os-migrations?{query}", "2.80"))["migrations"])

    for query in (f"instance_uuid={WEB1}", "host=a", "host=b", "source_compute=a", "migration_type=live-migration",
                  f"user_id={USER}", f"project_id={OURS}", "changes-since=2020-01-01T00:00:00Z"):  # fmt: skip
        assert await found(query) == 1, query
    for query in (f"instance_uuid={DB1}", "host=c", "hidden=True", "source_compute=b", "migration_type=resize",
                  "user_id=x", "changes-since=2030-01-01T00:00:00Z",
                  "changes-before=2020-01-01T00:00:00Z"):  # fmt: skip
        assert await found(query) == 0, query


@pytest.mark.parametrize(
    "query", ["foo=bar", "limit=-1", "limit=x", f"marker={UNKNOWN}", "changes-since=yesterday",
              "changes-since=2026-01-02T00:00:00Z&changes-before=2026-01-01T00:00:00Z"]
)  # fmt: skip
async def test_a_query_that_makes_no_sense_is_a_bad_request(cloud: Cloud, query: str) -> None:
    answer = await cloud.ask(f"/os-migrations?{query}", "2.80")
    assert answer.status_code == 400 and fault_of(answer, "badRequest")


async def test_pages_are_newest_first_and_linked(cloud: Cloud) -> None:
    await moving(cloud, "preparing", "rolling-back", "failed")
    for _ in range(2):
        cloud.world.a.migrations.clear()
        await moving(cloud, "preparing", "rolling-back", "failed")
    ids = [m["uuid"] for m in (await cloud.get("/os-migrations", "2.80"))["migrations"]]
    first = await cloud.get("/os-migrations?limit=2&host=a", "2.80")
    assert [m["uuid"] for m in first["migrations"]] == ids[:2]
    (link,) = first["migrations_links"]
    assert link["rel"] == "next" and "host=a" in link["href"]
    rest = await cloud.get(link["href"].partition("/v2.1")[2], "2.80")
    assert [m["uuid"] for m in rest["migrations"]] == ids[2:] and "migrations_links" not in rest
    assert (await cloud.get(f"/os-migrations?limit=2&marker={ids[-1]}", "2.80"))["migrations"] == []
    old = [m["id"] for m in (await cloud.get("/os-migrations", "2.1"))["migrations"]]
    assert old == sorted(old) and len(old) == 3


async def test_a_rehearsal_is_not_shown(cloud: Cloud) -> None:
    """Nothing moves in it."""
    await cloud.world.controller.migrate(MigrateRequest(vm=WEB1, destination="b", rehearse="prepare"))
    assert (await cloud.get(f"/servers/{WEB1}"))["server"][
        "status"
    ] == "MIGRATING"  # nothing else can be done to it
    assert (await cloud.get("/os-migrations", "2.80"))["migrations"] == []
    assert (await cloud.get(BELOW, "2.80"))["migrations"] == []
    assert (await cloud.ask(f"{BELOW}/1", "2.80")).status_code == 404
    answer = await cloud.ask(f"{BELOW}/1", "2.80", method="DELETE")
    assert answer.status_code == 409 and "only rehearses" in fault_of(answer, "conflictingRequest")


async def test_only_what_is_under_way_is_shown_below_a_server(cloud: Cloud) -> None:
    await moving(cloud, "preparing", "rolling-back", "failed")
    answer = await cloud.ask(f"{BELOW}/1", "2.80")
    assert answer.status_code == 404 and "not in progress" in fault_of(answer, "itemNotFound")
    for number in ("99999", "x", UNKNOWN, "9" * 40):
        answer = await cloud.ask(f"{BELOW}/{number}", "2.80")
        assert answer.status_code == 404 and "not found" in fault_of(answer, "itemNotFound")


# ------------------------------------------------------------ abort


async def test_an_abort_is_accepted_twice(cloud: Cloud) -> None:
    await moving(cloud, "preparing", "migrating")
    for _ in range(2):
        answer = await cloud.ask(f"{BELOW}/1", "2.65", method="DELETE")
        assert (answer.status_code, answer.content) == (202, b"")
    assert cloud.world.bus.asked("abort_migration") == 2


@pytest.mark.parametrize(("version", "status"), [("2.23", 404), ("2.64", 400), ("2.65", 202)])
async def test_one_that_is_queued_can_be_aborted_from_2_65_on(cloud: Cloud, version: str, status: int) -> None:
    await moving(cloud)
    assert (await cloud.ask(f"{BELOW}/1", version, method="DELETE")).status_code == status


@pytest.mark.parametrize("status", ["post-copy", "post-migrating"])
async def test_who_has_arrived_is_neither_aborted_nor_forced(cloud: Cloud, status: str) -> None:
    """400, as Nova's InvalidMigrationState."""
    await moving(cloud, "preparing", "migrating", status)
    for token in ("admin", "manager"):
        aborted = await cloud.ask(f"{BELOW}/1", "2.80", method="DELETE", token=token)
        forced = await force(cloud, token=token)
        for answer, verb in ((aborted, "abort live migration"), (forced, "force complete")):
            told = fault_of(answer, "badRequest")
            assert f"is {status}. Cannot {verb} while the migration is in this state." in told
    assert cloud.world.bus.asked("abort_migration") == cloud.world.bus.asked("pause_guest") == 0


async def test_what_its_hosts_say_names_none_to_a_manager(cloud: Cloud) -> None:
    await moving(cloud, "preparing", "migrating")
    fault = Conflict("web1 is on b already: a, 10.0.0.2", fix="`sterna migrate web1 --to a` brings it back")
    for token, named in (("manager", False), ("admin", True)):
        cloud.world.bus.faults |= {"abort_migration": [fault], "pause_guest": [fault]}
        for answer in (
            await cloud.ask(f"{BELOW}/1", "2.80", method="DELETE", token=token),
            await force(cloud, token=token),
        ):
            told = fault_of(answer, "conflictingRequest")
            assert ("is on b already" in told) is named and ("10.0.0.2" in told) is named
            assert ("is on a host already: a host, a host" in told) is not named


# ------------------------------------------------------------ force complete


async def force(
    cloud: Cloud, number: str = "1", version: str = "2.80", body: Any = None, token: str = "admin"
) -> Any:
    body = {"force_complete": None} if body is None else body
    return await cloud.ask(f"{BELOW}/{number}/action", version, method="POST", body=body, token=token)


async def test_a_guest_pausing_where_post_copy_is_not_permitted(cloud: Cloud) -> None:
    await moving(cloud, "preparing", "migrating")
    answer = await force(cloud)
    assert (answer.status_code, answer.content) == (202, b"")
    assert (cloud.world.bus.asked("pause_guest"), cloud.world.bus.asked("switch_to_postcopy")) == (1, 0)


async def test_it_is_switched_to_post_copy_where_that_is_permitted(world: World) -> None:
    cloud = await make(world, asked=Asked(may=frozenset({May.POSTCOPY})))
    await moving(cloud, "preparing", "migrating")
    assert (await force(cloud)).status_code == 202
    assert (world.bus.asked("pause_guest"), world.bus.asked("switch_to_postcopy")) == (0, 1)
    world.a.write(Book(Role.SOURCE, migration=next(iter(world.a.migrations.values()))).status("post-copy", "there"))
    await world.pull()
    assert (await force(cloud)).status_code == 400  # it has been
    assert world.bus.asked("switch_to_postcopy") == 1


@pytest.mark.parametrize("statuses", [(), ("preparing",)])
async def test_it_is_too_early_before_the_copy(cloud: Cloud, statuses: tuple[str, ...]) -> None:
    await moving(cloud, *statuses)
    answer = await force(cloud)
    assert answer.status_code == 400 and "Cannot force complete" in fault_of(answer, "badRequest")


async def test_nothing_else_is_taken_for_a_force_complete(cloud: Cloud) -> None:
    await moving(cloud, "preparing", "migrating")
    for body in ({"force_complete": "x"}, {"force_complete": None, "x": 1}, {"x": None}, {"": None}):
        answer = await force(cloud, body=body)
        assert answer.status_code == 400 and fault_of(answer, "badRequest")
    assert (await force(cloud, version="2.21")).status_code == 404


@pytest.mark.parametrize("number", ["99999", "2", UNKNOWN, "x"])
async def test_an_unknown_migration_of_a_server_that_migrates(cloud: Cloud, number: str) -> None:
    await moving(cloud, "preparing", "migrating")
    assert (await force(cloud, number)).status_code == 400
    assert (await cloud.ask(f"{BELOW}/{number}", "2.80", method="DELETE")).status_code == 404


async def test_a_server_that_does_not_migrate_is_in_conflict(cloud: Cloud) -> None:
    for answer in (await force(cloud), await cloud.ask(f"{BELOW}/1", "2.80", method="DELETE")):
        assert answer.status_code == 409 and "invalid state" in fault_of(answer, "conflictingRequest")


# ------------------------------------------------------------ actions


async def test_each_accepted_request_is_an_action(cloud: Cloud) -> None:
    path = f"/servers/{WEB1}/os-instance-actions"
    refused = await cloud.migrate(host="nohost")
    migrated = await cloud.migrate(token="manager", host=None)
    (migration,) = cloud.world.a.migrations.values()
    cloud.world.a.write(Book(Role.SOURCE, migration=migration).status("preparing", "").status("migrating", ""))
    await cloud.world.pull()
    forced = await force(cloud)
    aborted = await cloud.ask(f"{BELOW}/1", "2.80", method="DELETE")
    done = {one["request_id"]: one for one in (await cloud.get(path, "2.84"))["instanceActions"]}
    assert {id: one["action"] for id, one in done.items()} == {
        aborted.headers["x-openstack-request-id"]: "live_migration_cancel",
        forced.headers["x-openstack-request-id"]: "live_migration_force_complete",
        migrated.headers["x-openstack-request-id"]: "live-migration",
    }
    assert refused.headers["x-openstack-request-id"] not in done
    assert {(one["user_id"], one["project_id"], one["message"]) for one in done.values()} == {(USER, OURS, None)}
    for id in done:
        assert (await cloud.get(f"{path}/{id}", "2.84"))["instanceAction"]["events"]


async def test_one_that_its_source_has_not_accepted_yet_has_an_event(cloud: Cloud) -> None:
    """`openstack server event show` right after the 202: no journal has anything of it."""
    cloud.world.bus.faults["start_migration"] = [Unknown("the answer of a was lost")] * 100
    cloud.world.bus.faults["journal_since"] = [Unknown("the answer of a was lost")] * 100
    accepted = await cloud.migrate()
    assert accepted.status_code == 202
    request = accepted.headers["x-openstack-request-id"]
    path = f"/servers/{WEB1}/os-instance-actions/{request}"
    for version, token in (("2.84", "admin"), ("2.51", "reader"), ("2.1", "admin")):
        (event,) = (await cloud.get(path, version, token))["instanceAction"]["events"]
        assert (event["event"], event["result"], event["finish_time"]) == ("sterna_queued", None, None)
    at = cloud.world.clock.now().isoformat()
    await cloud.world.fleet.settle(request.removeprefix("req-"), Status.FAILED, "a never accepted it", at)
    shown = (await cloud.get(path, "2.84"))["instanceAction"]
    (event,) = shown["events"]
    told = (event["event"], event["result"], event["details"], event["host"])
    assert told == ("sterna_failed", "Error", "a never accepted it", "a")
    assert event["finish_time"] and shown["message"] == "Error"


async def test_an_action_is_found_whatever_the_case_of_the_servers_id(cloud: Cloud) -> None:
    await moving(cloud, "preparing", "migrating")
    shouted = f"/servers/{WEB1.upper()}"
    aborted = await cloud.ask(f"{shouted}/migrations/1", "2.80", method="DELETE")
    assert aborted.status_code == 202
    for path in (f"/servers/{WEB1}", shouted):
        done = (await cloud.get(f"{path}/os-instance-actions", "2.84"))["instanceActions"]
        assert aborted.headers["x-openstack-request-id"] in {one["request_id"] for one in done}


async def test_a_failed_migration_says_why_in_its_events(cloud: Cloud) -> None:
    migration = await moving(cloud, "preparing")
    path = f"/servers/{WEB1}/os-instance-actions"
    book = Book(Role.SOURCE, migration=migration)
    cloud.world.a.write(
        book.write(Kind.COMPENSATING, data={"error": Permanent("no room on b").to_wire()})
        .status("rolling-back")
        .status("failed", "as it was")
    )
    await cloud.world.pull()
    (done,) = (await cloud.get(path, "2.84"))["instanceActions"]
    assert done["message"] == "Error"
    events = (await cloud.get(f"{path}/{done['request_id']}", "2.84"))["instanceAction"]["events"]
    told = {e["event"]: (e["result"], e["details"], e["host"]) for e in events}
    assert told["sterna_failed"] == ("Error", "no room on b", "a")
    assert told["sterna_preparing"] == ("Success", None, "a")
    assert events[0]["event"] == "sterna_failed"


async def test_actions_come_in_pages(cloud: Cloud) -> None:
    await moving(cloud, "preparing", "migrating")
    assert (await cloud.ask(f"{BELOW}/1", "2.80", method="DELETE")).status_code == 202
    path = f"/servers/{WEB1}/os-instance-actions"
    whole = [one["request_id"] for one in (await cloud.get(path, "2.84"))["instanceActions"]]
    first = await cloud.get(f"{path}?limit=1", "2.84")
    assert [one["request_id"] for one in first["instanceActions"]] == whole[:1]
    rest = await cloud.get(first["links"][0]["href"].partition("/v2.1")[2], "2.84")
    assert [one["request_id"] for one in rest["instanceActions"]] == whole[1:]
    assert (await cloud.get(f"{path}?changes-since=2030-01-01T00:00:00Z", "2.84"))["instanceActions"] == []
    assert (await cloud.ask(f"{path}?changes-before=2030-01-01T00:00:00Z", "2.65")).status_code == 400
    late = "changes-since=2026-01-02T00:00:00Z&changes-before=2026-01-01T00:00:00Z"
    assert (await cloud.ask(f"{path}?{late}", "2.66")).status_code == 400
    unknown = await cloud.ask(f"{path}/req-{UNKNOWN}", "2.84")
    assert unknown.status_code == 404 and "not found" in fault_of(unknown, "itemNotFound")


def test_every_status_has_a_word() -> None:
    assert set(MIGRATION) == set(Status)
    assert statuses_called("running") == (Status.MIGRATING, Status.ROLLING_BACK)
