from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from sterna.api.problems import STATUS, status_of
from sterna.cli import formatting
from sterna.controller.records import registry
from sterna.domain import errors
from sterna.domain.journal import Role
from sterna.domain.objective import Objective
from sterna.domain.policies import May
from sterna.ports.bus import BusState
from sterna.ports.fleet import Page
from tests.unit.api.rest import Api, body
from tests.unit.controller.requests import ID, MOVE
from tests.unit.otlp_schema import Request

from ..domain.journals import Book, good_source


async def test_hosts(api: Api) -> None:
    hosts = (await api.get("/v1/hosts"))["hosts"]
    assert [(h["name"], h["state"], h["libvirt_version"]) for h in hosts] == [
        ("a", "up", "11.3.0"),
        ("b", "up", "11.3.0"),
        ("c", "up", "11.3.0"),
    ]
    assert (await api.get("/v1/hosts/a"))["qemu_version"] == "10.0.2"
    assert (await api.problem("GET", "/v1/hosts/z", 404))["reasons"][0]["code"] == "not-found"


async def test_maintenance(api: Api) -> None:
    answer = await api.http.patch("/v1/hosts/b", json={"maintenance": True})
    assert (answer.json()["maintenance"], answer.json()["maintenance_reason"]) == (True, None)
    said = {"maintenance": True, "reason": "new \x1b[31mfans"}
    assert (await api.http.patch("/v1/hosts/b", json=said)).json()["maintenance_reason"] == "new \\x1b[31mfans"
    problem = await api.problem("POST", "/v1/migrations", 422, json=body())
    assert problem["type"] == "urn:sterna:problem:refused"
    assert [r["code"] for r in problem["reasons"]] == ["destination-in-maintenance"]
    assert "--off" in problem["reasons"][0]["fix"]
    await api.problem("PATCH", "/v1/hosts/z", 404, json={"maintenance": True})
    await api.problem("PATCH", "/v1/hosts/a", 422, json={"maintenance": "perhaps"})
    await api.problem("PATCH", "/v1/hosts/a", 422, json={"maintenance": True, "colour": "blue"})


async def test_vms(api: Api) -> None:
    listed = await api.get("/v1/vms")
    assert listed["silent_hosts"] == []
    assert listed["vms"][0]["name"] == "web1" and listed["vms"][0]["task_state"] is None
    assert (await api.get("/v1/vms/web1"))["details"]["disks"] == []
    assert (await api.problem("GET", "/v1/vms/nope", 404))["reasons"][0]["code"] == "no-such-vm"


async def test_a_migration_from_request_to_report(api: Api) -> None:
    answer = await api.http.post("/v1/migrations", json=body())
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/migrations/{ID}"
    assert answer.json()["id"] == ID and answer.json()["status"] == "queued"
    assert (await api.get("/v1/vms"))["vms"][0]["task_state"] == "migrating"
    again = await api.http.post("/v1/migrations", json=body())
    assert again.status_code == 200 and again.json()["id"] == ID
    await api.run_to_the_end()
    shown = await api.get(f"/v1/migrations/{ID}")
    assert shown["status"] == "completed" and shown["progress"]["percent"] == 100
    assert shown["report"]["downtime_ms"] == 48 and shown["report"]["bytes_memory"] == 300 * 2**20
    items = (await api.get(f"/v1/migrations/{ID}/timeline"))["items"]
    assert {"P9", "F11"} <= {i["row"] for i in items} and "data" not in items[0]
    diff = await api.get(f"/v1/migrations/{ID}/definition-diff")
    assert diff["recorded"] is False and "earlier version" in diff["summary"] and diff["differences"] == []
    diagram = await api.http.get(f"/v1/migrations/{ID}/diagram")
    assert diagram.headers["content-type"].startswith("text/plain") and "@enduml" in diagram.text
    picture = await api.http.get(f"/v1/migrations/{ID}/diagram?format=svg")
    assert picture.headers["content-type"] == "image/svg+xml" and picture.text.startswith("<svg ")
    assert picture.headers["content-security-policy"] == "default-src 'none'"
    await api.problem("GET", f"/v1/migrations/{ID}/diagram?format=gif", 422)
    trace = Request.model_validate(await api.get(f"/v1/migrations/{ID}/trace"))
    assert {span.traceId for span in trace.spans} == {ID.replace("-", "")}
    assert {span.told.get("sterna.row") for span in trace.spans} >= {None, "P9", "F11"}
    await api.problem("GET", f"/v1/migrations/{ID[:-1]}f/trace", 404)


async def test_what_is_wanted_is_handed_to_the_source(api: Api) -> None:
    said = {"max_downtime_ms": 200, "finish_within_s": 60, "may": ["pause", "throttle"], "policy": "gentle"}
    await api.http.post("/v1/migrations", json=body(bandwidth_bytes_s=5 * 2**20, **said))
    sent = next(p for _, m, p in api.world.bus.calls if m == "start_migration")["options"]
    wanted = Objective.model_validate(sent["objective"])
    assert (wanted.bandwidth_bytes_s, wanted.may) == (5 * 2**20, frozenset({May.PAUSE, May.THROTTLE}))
    assert (wanted.policy, wanted.max_downtime_ms, wanted.finish_within_s) == ("gentle", 200, 60)
    assert wanted.first_downtime_ms <= 200


async def test_a_request_that_says_nothing_gets_the_default_policy(api: Api) -> None:
    await api.http.post("/v1/migrations", json=body())
    sent = next(p for _, m, p in api.world.bus.calls if m == "start_migration")["options"]
    wanted = Objective.model_validate(sent["objective"])
    assert (wanted.policy, wanted.bandwidth_bytes_s) == ("default", None)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"policy": "hasty"}, "policy-unknown"),
        ({"max_downtime_ms": 0}, "downtime-out-of-range"),
        ({"finish_within_s": -1}, "deadline-out-of-range"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_fix(api: Api, said: dict[str, object], code: str) -> None:
    answer = await api.http.post("/v1/migrations", json=body(**said))
    assert answer.status_code == 422
    (reason,) = answer.json()["reasons"]
    assert reason["code"] == code and reason["fix"]
    assert await api.world.fleet.migrations(Page()) == []


async def test_fifty_at_once_for_one_vm_make_one_migration_and_49_conflicts(api: Api) -> None:
    answers = await asyncio.gather(
        *(api.http.post("/v1/migrations", json={"vm": "web1", "destination": "b"}) for _ in range(50))
    )
    assert sorted(a.status_code for a in answers) == [202] + [409] * 49
    accepted = next(a.json()["id"] for a in answers if a.status_code == 202)
    assert all(accepted in a.json()["detail"] for a in answers if a.status_code == 409)
    assert len((await api.get("/v1/migrations"))["migrations"]) == 1


@pytest.mark.parametrize(
    ("change", "status", "codes"),
    [
        ({"vm": "nope"}, 404, ["no-such-vm"]),
        ({"destination": "z"}, 422, ["no-such-host"]),
        ({"destination": "a"}, 422, ["same-host"]),
        ({"vm": "nope", "destination": "z"}, 404, ["no-such-host", "no-such-vm"]),
        ({"vm": ""}, 422, ["invalid"]),
        ({"id": "not-a-uuid"}, 422, ["invalid"]),
        ({"force": True}, 422, ["invalid"]),
        ({"bandwidth_bytes_s": 5}, 422, ["invalid"]),
    ],
)
async def test_refusals(api: Api, change: dict[str, object], status: int, codes: list[str]) -> None:
    problem = await api.problem("POST", "/v1/migrations", status, json=body(**change))
    assert sorted(r["code"] for r in problem["reasons"]) == codes
    assert (await api.get("/v1/migrations"))["migrations"] == []


async def test_not_json_unknown_route_wrong_method(api: Api) -> None:
    await api.problem(
        "POST", "/v1/migrations", 422, content=b"{nonsense", headers={"content-type": "application/json"}
    )
    assert "/docs" in (await api.problem("GET", "/v1/nothing", 404))["reasons"][0]["fix"]
    await api.problem("DELETE", "/v1/migrations", 405)
    assert (await api.http.delete("/v1/migrations")).headers["Allow"] == "GET, POST"
    assert (await api.http.options("/v1/hosts/a")).headers["Allow"] == "GET, PATCH"
    assert (await api.http.options("/v1/operations/preview")).headers["Allow"] == "POST"
    for cursor in ("%20", "\u00e9", "a" * 9000):
        await api.problem("GET", f"/v1/vms?cursor={cursor}", 422)


async def test_a_bug_is_a_problem_too_and_tells_no_secrets(api: Api) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2")

    api.world.controller.registry.page = broken  # type: ignore[method-assign,assignment]
    with capture_logs() as logs:
        problem = await api.problem("GET", "/v1/hosts", 500)
    assert "hunter2" not in json.dumps(problem)
    assert any(line.get("exc_info") for line in logs)


async def test_pages(api: Api) -> None:
    for n in range(5):
        one = MOVE.model_copy(update={"id": f"m{n}"})
        api.world.a.write(good_source(one) if n % 2 else Book(Role.SOURCE, migration=one).accepted())
    await api.world.pull()
    first = await api.get("/v1/migrations?limit=2")
    assert [m["id"] for m in first["migrations"]] == ["m4", "m3"]
    second = await api.get(f"/v1/migrations?limit=2&cursor={first['next_cursor']}")
    third = await api.get(f"/v1/migrations?limit=2&cursor={second['next_cursor']}")
    assert [m["id"] for m in third["migrations"]] == ["m0"] and third["next_cursor"] is None
    completed = await api.get("/v1/migrations?status=completed&vm=web1")
    assert [m["id"] for m in completed["migrations"]] == ["m3", "m1"]
    assert await api.get(f"/v1/migrations?status=completed&vm={MOVE.vm_uuid.upper()}") == completed
    assert [m["id"] for m in (await api.get("/v1/migrations?id=M2"))["migrations"]] == ["m2"]
    assert (await api.get("/v1/migrations?id=%25"))["migrations"] == []
    await api.problem("GET", "/v1/migrations?cursor=x", 400)
    await api.problem("GET", "/v1/migrations?limit=0", 422)
    await api.problem("GET", "/v1/migrations?status=lost", 422)


async def test_abort(api: Api) -> None:
    await api.http.post("/v1/migrations", json=body())
    answer = await api.http.post(f"/v1/migrations/{ID}/abort")
    assert answer.status_code == 202 and answer.json()["id"] == ID
    await api.run_to_the_end()
    problem = await api.problem("POST", f"/v1/migrations/{ID}/abort", 409)
    assert "already on b" in problem["detail"]
    await api.problem("POST", f"/v1/migrations/{'0' * 36}/abort", 404)


async def test_a_source_that_is_away(api: Api) -> None:
    await api.http.post("/v1/migrations", json=body())
    api.world.a.listening = False
    await api.problem("POST", f"/v1/migrations/{ID}/abort", 503)


async def test_events_and_resuming(api: Api) -> None:
    await api.http.post("/v1/migrations", json=body())
    await api.run_to_the_end()
    whole = (await api.http.get(f"/v1/migrations/{ID}/events")).text
    ids = [line.removeprefix("id: ") for line in whole.splitlines() if line.startswith("id: ")]
    assert whole.rstrip().endswith('"status":"completed"}') or "event: end" in whole.split("\n\n")[-2]
    rest = await api.http.get(f"/v1/migrations/{ID}/events", headers={"Last-Event-ID": ids[3]})
    assert rest.headers["content-type"].startswith("text/event-stream")
    assert [x.removeprefix("id: ") for x in rest.text.splitlines() if x.startswith("id: ")] == ids[4:]
    await api.problem("GET", "/v1/migrations/nope/events", 404)
    await api.problem("GET", f"/v1/migrations/{ID}/events", 400, headers={"Last-Event-ID": "x"})


async def test_a_stream_whose_database_goes_away_ends_and_is_no_bug(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.run_to_the_end()

    async def away(*_: object) -> None:
        raise errors.Unreachable("the controller's database does not answer")

    monkeypatch.setattr(api.world.fleet, "events", away)
    with capture_logs() as logs:
        answer = await api.http.get(f"/v1/migrations/{ID}/events")
    assert answer.status_code == 200 and "event: end" not in answer.text
    assert [e["log_level"] for e in logs] == ["info"]


async def test_health(api: Api) -> None:
    assert (await api.get("/v1/health")) | {"version": ""} == {
        "status": "ok",
        "version": "",
        "bus": {"connected": True, "since": "2026-01-01T00:00:00+00:00", "why": None},
        "hosts_up": 3,
        "hosts_degraded": 0,
        "hosts_down": 0,
        "problems": {},
    }


LOST = {
    "why": "libvirtd cannot be used since 2026-11-29 11:00:00 UTC: refused",
    "since": "2026-11-29T11:00:00+00:00",
}


async def test_a_host_without_libvirtd_is_degraded_everywhere_and_for_that_reason(api: Api) -> None:
    world = api.world
    world.clock.ms += 6_000
    await world.bus.beat(world.controller, "b", "c")
    await world.controller.registry.beacon("host.a", {"name": "a", "host": None, "trouble": LOST})
    a = await api.get("/v1/hosts/a")
    assert (a["state"], a["reason"], a["reason_since"]) == ("degraded", LOST["why"], LOST["since"])
    assert a["cpus"] == 4, "what was seen before is still shown"
    health = await api.get("/v1/health")
    assert (health["status"], health["hosts_up"], health["hosts_degraded"]) == ("degraded", 2, 1)
    assert health["problems"] == {"a": LOST["why"]}
    vms = await api.get("/v1/vms")
    assert not vms["complete"] and vms["silent_reasons"] == {"a": LOST["why"]}
    audit = (await api.http.post("/v1/audit", json={})).json()
    assert not audit["complete"] and audit["silent_reasons"] == {"a": LOST["why"]}
    b = (await api.http.post("/v1/audit", json={"host": "b"})).json()
    assert b["complete"] and b["silent_hosts"] == ["a"]


async def test_what_a_host_warns_of_is_shown_while_it_is_up(api: Api) -> None:
    why = "its certificate expires on 2026-12-09 10:00 UTC; nothing here renews it"
    warning = {"why": why, "since": "2026-11-25T10:00:00Z", "fix": "set `server` in [identity]"}
    told = {"name": "a", "host": api.world.a.facts().model_dump(), "warning": warning}
    await api.world.controller.registry.beacon("host.a", told)
    a, b, _ = (await api.get("/v1/hosts"))["hosts"]
    assert (a["state"], a["reason"], a["warning"]) == ("up", None, why)
    assert a["warning_fix"] == "set `server` in [identity]"
    assert (b["warning"], b["warning_fix"]) == (None, None)
    assert formatting.host_notes([a, b]) == [f"a: WARNING: {why}; fix: set `server` in [identity]"]


async def test_where_no_host_is_up_nothing_looks_healthy(api: Api) -> None:
    api.world.clock.ms += 6_000
    assert (await api.get("/v1/health"))["status"] == "no-host-up"
    assert not (await api.get("/v1/vms"))["complete"]


async def test_a_host_that_was_never_described_has_a_name_and_a_reason_only(api: Api) -> None:
    await api.world.controller.registry.beacon("host.new", {"name": "new", "host": None, "trouble": LOST})
    new = await api.get("/v1/hosts/new")
    assert (new["state"], new["reason"]) == ("degraded", LOST["why"])
    assert {new[k] for k in ("address", "host_uuid", "cpus", "memory_free_bytes", "libvirt_version")} == {None}


async def test_a_controller_that_has_lost_the_bus_says_so_and_since_when(api: Api) -> None:
    since = datetime(2026, 11, 29, 12, 0, 1, tzinfo=UTC)
    api.world.bus.bus = BusState(connected=False, since=since, why="its server has sent nothing for 5.1 s")
    lost = {"connected": False, "since": since.isoformat(), "why": "its server has sent nothing for 5.1 s"}
    health = await api.http.get("/v1/health")
    assert health.status_code == 503
    assert health.json()["status"] == "bus-lost" and health.json()["bus"] == lost
    listed = await api.get("/v1/hosts")
    assert listed["bus"] == lost
    assert [h["reason"] for h in listed["hosts"]] == [None, None, None]  # heard lately: up until they are silent


async def test_a_host_that_is_silent_has_a_reason(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "UP_FOR_MS", -1)
    a, *_ = (await api.get("/v1/hosts"))["hosts"]
    assert a["state"] == "down"
    assert a["bus_since"] == "2026-11-29T11:00:00+00:00"
    assert a["reason"].startswith(f"nothing received from its agent since {a['seen_at'][:19]}")
    api.world.bus.bus = BusState(connected=False, since=datetime(2026, 11, 29, tzinfo=UTC), why="refused")
    reason = (await api.get("/v1/hosts/a"))["reason"]
    assert "not been connected to the message bus since 2026-11-29 00:00:00 UTC: refused" in reason


async def test_openapi_has_a_summary_for_every_route_and_documents_problems(api: Api) -> None:
    spec = await api.get("/openapi.json")
    for path, methods in spec["paths"].items():
        for method, route in methods.items():
            assert route["summary"] and route["description"], (method, path)
    post = spec["paths"]["/v1/migrations"]["post"]
    assert {"200", "202", "404", "409", "422", "503"} <= set(post["responses"])
    assert spec["components"]["schemas"]["MigrationIn"]["examples"][0]["vm"] == "web1"


def test_every_error_has_a_status() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.SternaError)]
    assert set(kinds) == set(STATUS)
    assert status_of(errors.Unreachable("x")) == 503 and status_of(errors.Refused([])) == 422


EVENT = {"name": "network-vif-plugged", "server_uuid": "aaaaaaaa-0000-4000-8000-000000000001", "tag": "p-1"}


async def test_neutron_s_notifier_is_answered_as_nova_would(api: Api) -> None:
    """The body is the notifier's own, `status` and all; it looks at each event's `code`."""
    await api.world.controller.inventory.vms()
    posted = {
        "events": [EVENT | {"status": "completed"}, EVENT | {"name": "network-changed", "status": "completed"}]
    }
    for path in ("/v2.1/os-server-external-events", "/os-server-external-events"):
        answer = await api.http.post(path, json=posted)
        assert answer.status_code == 200
        assert [(e["name"], e["code"]) for e in answer.json()["events"]] == [
            ("network-vif-plugged", 200),
            ("network-changed", 200),
        ]
    topic, hint = api.world.bus.announced[0]
    assert topic == f"external.{EVENT['server_uuid']}"
    assert hint == {"name": EVENT["name"], "vm": EVENT["server_uuid"], "port": "p-1", "status": "completed"}


async def test_what_is_not_done_about_an_event_is_said(api: Api) -> None:
    """Cinder must not believe that a guest's disk was resized."""
    await api.world.controller.inventory.vms()
    unknown = EVENT | {"server_uuid": "aaaaaaaa-0000-4000-8000-000000000099"}
    extended = {"name": "volume-extended", "server_uuid": EVENT["server_uuid"]}
    answer = await api.http.post("/v2.1/os-server-external-events", json={"events": [EVENT, unknown, extended]})
    assert answer.status_code == 207
    told = [(e["code"], e["status"], "tag" in e) for e in answer.json()["events"]]
    assert told == [(200, "completed", True), (404, "failed", True), (400, "failed", False)]


@pytest.mark.parametrize(
    "wrong", [{"server_uuid": "x.>"}, {"tag": "x" * 256}, {"name": "a-b"}, {"status": "perhaps"}]
)
async def test_events_that_are_none(api: Api, wrong: dict[str, str]) -> None:
    await api.problem("POST", "/v2.1/os-server-external-events", 422, json={"events": [EVENT | wrong]})
    assert api.world.bus.announced == []


LARGE = "9" * 23


@pytest.mark.parametrize("number", [LARGE, "9" * 5000], ids=len)
async def test_places_beyond_any_database_are_refused(api: Api, number: str) -> None:
    assert (await api.problem("GET", f"/v1/migrations?cursor={number}", 400))["reasons"][0]["fix"]
    assert (await api.problem("GET", "/v1/events", 400, headers={"Last-Event-ID": number}))["reasons"][0]["fix"]


@pytest.mark.parametrize("raw", [b'{"\\ud800": 1, "vm": "web1"}', b'{"vm": "\\ud800"}', b'{"vm": "a\\u0000b"}'])
async def test_text_that_is_none_is_refused(api: Api, raw: bytes) -> None:
    json_ = {"content-type": "application/json"}
    answer = await api.http.post("/v1/migrations", content=raw, headers=json_)
    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.json()["reasons"]


async def test_numbers_beyond_libvirt_are_refused(api: Api) -> None:
    for path, sent in (
        ("/v1/migrations", body(bandwidth_bytes_s=int(LARGE))),
        (f"/v1/migrations/{ID}/tune", {"bandwidth_bytes_s": int(LARGE)}),
    ):
        assert "bandwidth_bytes_s" in (await api.problem("POST", path, 422, json=sent))["detail"]
