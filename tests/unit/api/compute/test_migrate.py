"""`os-migrateLive`: what is accepted, in which version, and how each refusal is answered."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.api.compute.hiding import without_names
from sterna.domain.errors import Unknown, Unreachable
from sterna.domain.fleet.rules import Rule, RuleKind
from sterna.domain.model import GuestState, Refusal
from sterna.domain.objective import Asked
from sterna.domain.policies import May

from ...controller.conftest import World
from .cloud import DB1, LOCAL, OFF1, USER, WEB1, Cloud, FakeCloud, fault_of, make

AUTO = {"host": None, "block_migration": "auto"}
OLD = {"host": "b", "block_migration": False, "disk_over_commit": False}
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def act(cloud: Cloud, body: Any, version: str = "2.30", server: str = WEB1, token: str = "admin") -> Any:
    return await cloud.ask(f"/servers/{server}/action", version, method="POST", body=body, token=token)


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("2.1", OLD),
        ("2.1", OLD | {"block_migration": "True", "disk_over_commit": "0"}),
        ("2.25", AUTO),
        ("2.25", AUTO | {"block_migration": True}),
        ("2.30", AUTO | {"host": "b"}),
        ("2.30", AUTO | {"host": "b", "force": True}),
        ("2.30", AUTO | {"force": False}),
        ("2.68", AUTO),
        ("2.96", AUTO | {"host": "b"}),
    ],
)
async def test_it_is_accepted_with_an_empty_answer(cloud: Cloud, version: str, wanted: dict[str, Any]) -> None:
    answer = await act(cloud, {"os-migrateLive": wanted}, version)
    assert (answer.status_code, answer.content) == (202, b""), answer.text


async def test_the_server_migrates_before_the_answer_is_there_and_is_elsewhere_when_it_is_active_again(
    cloud: Cloud,
) -> None:
    """Clients poll until it is ACTIVE, and read the host in that answer."""
    assert (await cloud.migrate(host="b")).status_code == 202
    shown = (await cloud.get(f"/servers/{WEB1}"))["server"]
    assert (shown["status"], shown["OS-EXT-STS:task_state"], shown["OS-EXT-STS:vm_state"]) == (
        "MIGRATING",
        "migrating",
        "active",
    )
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["progress"]) == ("a", 0)
    await cloud.arrive()
    shown = (await cloud.get(f"/servers/{WEB1}"))["server"]
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["OS-EXT-SRV-ATTR:hypervisor_hostname"]) == ("b", "b")


async def test_the_migration_has_the_id_of_the_request_and_knows_who_asked(cloud: Cloud) -> None:
    answer = await cloud.migrate(token="manager", host=None)
    request = answer.headers["x-openstack-request-id"]
    (record,) = cloud.world.a.migrations.values()
    assert f"req-{record.id}" == request and record.requested_by == "keystone:manager@Default"
    (listed,) = (await cloud.get("/os-migrations", "2.80"))["migrations"]
    assert (listed["uuid"], listed["user_id"]) == (record.id, USER)


async def test_what_may_be_done_to_the_guest_is_the_settings_to_say(world: World) -> None:
    cloud = await make(world, asked=Asked(policy="urgent", may=frozenset({May.POSTCOPY})))
    assert (await cloud.migrate()).status_code == 202
    (record,) = world.a.migrations.values()
    wanted = record.options.wanted
    assert wanted.policy == "urgent" and wanted.may == frozenset({May.POSTCOPY})


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("2.1", {"host": "b", "block_migration": False}),
        ("2.1", OLD | {"block_migration": "auto"}),
        ("2.24", OLD | {"force": True}),
        ("2.25", AUTO | {"disk_over_commit": False}),
        ("2.25", AUTO | {"force": True}),
        ("2.30", {"block_migration": "auto"}),
        ("2.30", {"host": None}),
        ("2.30", AUTO | {"block_migration": "maybe"}),
        ("2.30", AUTO | {"block_migration": None}),
        ("2.30", AUTO | {"foo": 1}),
        ("2.30", AUTO | {"force": "maybe"}),
        ("2.30", AUTO | {"host": ""}),
        ("2.30", AUTO | {"host": 7}),
        ("2.30", AUTO | {"host": "x" * 256}),
        ("2.30", []),
        ("2.68", AUTO | {"host": "b", "force": True}),
    ],
)
async def test_what_a_version_does_not_have_is_a_bad_request(cloud: Cloud, version: str, wanted: Any) -> None:
    answer = await act(cloud, {"os-migrateLive": wanted}, version)
    assert answer.status_code == 400, answer.text
    assert "Invalid input for field/attribute" in fault_of(answer, "badRequest")
    assert cloud.world.bus.asked("start_migration") == 0


async def test_force_needs_a_host(cloud: Cloud) -> None:
    answer = await act(cloud, {"os-migrateLive": AUTO | {"force": True}})
    assert answer.status_code == 400 and "non-provided" in fault_of(answer, "badRequest")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"os-doSomething": {}}, "no such action: os-doSomething"),
        ({"os-doSomething": {}, "pause": None}, "Malformed"),
        ({}, "Malformed"),
        ([], "Malformed"),
        ("hello", "Malformed"),
    ],
)
async def test_what_is_no_action_is_a_bad_request(cloud: Cloud, body: Any, told: str) -> None:
    answer = await act(cloud, body, "2.1")
    assert answer.status_code == 400 and told in fault_of(answer, "badRequest")


async def test_a_body_that_is_not_json_is_refused(cloud: Cloud) -> None:
    for content, kind, status, name in (
        (b"hello", "application/json", 400, "badRequest"),
        (b"[" * 100_000, "application/json", 400, "badRequest"),
        (b"<a/>", "application/xml", 415, "badMediaType"),
    ):
        headers = {"X-Auth-Token": "admin", "Content-Type": kind}
        answer = await cloud.http.post(f"/compute/v2.1/servers/{WEB1}/action", content=content, headers=headers)
        assert answer.status_code == status and fault_of(answer, name)


@pytest.mark.parametrize("action", ["migrate", "evacuate", "os-stop", "reboot", "pause", "resize"])
async def test_what_nova_does_besides_is_refused_with_a_sentence(cloud: Cloud, action: str) -> None:
    answer = await act(cloud, {action: None})
    assert answer.status_code == 501 and action in fault_of(answer, "notImplemented")
    assert (await cloud.migrate()).status_code == 202
    answer = await act(cloud, {action: None})
    assert answer.status_code == 409 and "task_state migrating" in fault_of(answer, "conflictingRequest")


@pytest.mark.parametrize("token", ["member", "reader", "manager"])
async def test_what_is_no_migration_is_no_question_of_the_role(cloud: Cloud, token: str) -> None:
    """`openstack server stop` of a member: nobody may do it here, and the sentence says why."""
    for body, status, name in (
        ({"os-stop": None}, 501, "notImplemented"),
        ({"foo": 1}, 400, "badRequest"),
        ({}, 400, "badRequest"),
        ({"os-stop": None, "os-migrateLive": AUTO}, 400, "badRequest"),
    ):
        answer = await act(cloud, body, token=token)
        assert answer.status_code == status and fault_of(answer, name)
    assert (await act(cloud, {"os-stop": None}, server=DB1, token=token)).status_code == 404
    long = {"os-migrateLive": AUTO | {"host": "x" * 20_000}}
    assert (await act(cloud, long, token=token)).status_code == (400 if token == "manager" else 403)
    assert (await act(cloud, {"os-stop": None}, token="nobody")).status_code == 404


async def test_a_nova_that_is_silent_may_answer_later(world: World) -> None:
    cloud = await make(world)
    nova = FakeCloud(fault=Unreachable("Nova does not answer"))
    world.controller._migrate._nova = nova
    for version in ("2.30", "2.68"):
        answer = await act(cloud, {"os-migrateLive": AUTO | {"host": "b"}}, version)
        assert answer.status_code == 503 and "Nova does not answer" in fault_of(answer, "serviceUnavailable")
    await world.controller.registry.set_maintenance("b", True)
    assert (await act(cloud, {"os-migrateLive": AUTO | {"host": "b"}})).status_code == 400  # that stays
    nova.fault, nova.owned = None, {WEB1: "compute7"}
    answer = await act(cloud, {"os-migrateLive": AUTO | {"host": "b"}})
    assert answer.status_code == 409 and "compute7" in fault_of(answer, "conflictingRequest")


async def test_an_unknown_server_is_not_found(cloud: Cloud) -> None:
    for server in (UNKNOWN, "web1"):
        answer = await act(cloud, {"os-migrateLive": AUTO}, server=server)
        assert answer.status_code == 404 and server in fault_of(answer, "itemNotFound")


async def test_a_server_that_does_not_run_is_in_conflict(cloud: Cloud) -> None:
    answer = await act(cloud, {"os-migrateLive": AUTO}, server=OFF1)
    assert answer.status_code == 409 and "vm_state stopped" in fault_of(answer, "conflictingRequest")


async def test_a_paused_guest_is_in_conflict_as_its_host_says(cloud: Cloud) -> None:
    world = cloud.world
    world.a.vms[WEB1] = world.a.vms[WEB1].model_copy(update={"state": GuestState.PAUSED})
    await world.controller.inventory.vms()
    answer = await cloud.migrate()
    assert answer.status_code == 409 and "is paused" in fault_of(answer, "conflictingRequest")


async def test_one_that_migrates_already_is_in_conflict(cloud: Cloud) -> None:
    assert (await cloud.migrate()).status_code == 202
    answer = await cloud.migrate()
    assert answer.status_code == 409 and "task_state migrating" in fault_of(answer, "conflictingRequest")


@pytest.mark.parametrize("version", ["2.30", "2.68"])
async def test_hosts_that_will_not_do_are_a_bad_request_in_every_version(cloud: Cloud, version: str) -> None:
    """From 2.34 on Nova would accept, and fail afterwards."""
    await cloud.world.controller.registry.set_maintenance("c", True, "new fans")
    for host, told in (("nohost", "there is no host nohost"), ("a", "is already on a"), ("c", "(new fans)")):
        answer = await act(cloud, {"os-migrateLive": AUTO | {"host": host}}, version)
        assert answer.status_code == 400 and told in fault_of(answer, "badRequest"), host
        assert (await cloud.get(f"/servers/{WEB1}"))["server"]["status"] == "ACTIVE"


async def test_every_reason_is_in_the_message_with_what_would_fix_it(cloud: Cloud) -> None:
    cloud.world.b.against = [
        Refusal(code="memory-short", message="b has 200 MiB of memory free", fix="stop another VM there"),
        Refusal(code="machine-type-missing", message="b has no q35", fix="update QEMU there."),
    ]
    told = fault_of(await cloud.migrate(host="b"), "badRequest")
    assert told == (
        "b has 200 MiB of memory free. Fix: stop another VM there. b has no q35. Fix: update QEMU there."
    )


@pytest.mark.parametrize(("block", "status"), [("auto", 202), (True, 202), (False, 400)])
@pytest.mark.parametrize("host", ["b", None])
async def test_without_block_migration_a_local_disk_is_refused_by_name(
    cloud: Cloud, block: object, status: int, host: str | None
) -> None:
    cloud.world.a.disks[WEB1] = (*cloud.world.a.disks[WEB1], LOCAL)
    answer = await act(cloud, {"os-migrateLive": {"host": host, "block_migration": block}})
    assert answer.status_code == status, answer.text
    if status == 400:
        assert "forbids copying them: vdb" in fault_of(answer, "badRequest")
        cloud.world.a.disks[WEB1] = cloud.world.a.disks[WEB1][:1]
        assert (await act(cloud, {"os-migrateLive": {"host": host, "block_migration": block}})).status_code == 202


async def test_a_source_that_does_not_answer_is_unavailable(cloud: Cloud) -> None:
    cloud.world.bus.faults["start_migration"] = [Unreachable("a: nobody answers", fix="start its agent")]
    answer = await cloud.migrate()
    assert answer.status_code == 503 and "a: nobody answers" in fault_of(answer, "serviceUnavailable")


async def test_an_answer_that_was_lost_is_asked_for_again(cloud: Cloud) -> None:
    cloud.world.bus.faults["start_migration"] = [Unknown("the answer of a was lost")]
    assert (await cloud.migrate()).status_code == 202
    assert len(cloud.world.a.migrations) == 1


def test_names_of_hosts_are_taken_out_of_a_text() -> None:
    said = "host1 has none; host12: host1-b, (host1)"
    assert without_names(said, ["host1", "host12", ""]) == "a host has none; a host: host1-b, (a host)"
    assert without_names(said, []) == said


async def test_placement_rules_hold_and_users_learn_nothing_of_other_vms(cloud: Cloud) -> None:
    every = [Rule(name=f"keep-{host}", kind=RuleKind.NEVER_ON, vms=(WEB1,), hosts=(host,)) for host in "bc"]
    every += [Rule(name="pair", kind=RuleKind.TOGETHER, vms=(DB1, WEB1))]
    for one in every:
        await cloud.world.controller.rules.put(one, "token:ops", replace=False)
    assert "the rule keep-b keeps instance-00000001 off b" in fault_of(await cloud.migrate(host="b"), "badRequest")
    told = fault_of(await cloud.migrate(host=None, token="manager"), "badRequest")
    assert told == "the operator's placement rules keep the server where it is. Fix: ask the operator of the cloud."
    assert "the rule pair" in fault_of(await cloud.migrate(host=None), "badRequest")
