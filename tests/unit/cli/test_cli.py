"""What each command prints, and its exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from sterna.cli import host
from sterna.cli.client import Client
from sterna.cli.main import app
from sterna.controller.records import registry
from sterna.domain.amounts import ms, rate, size
from tests.unit.cli.reading import ID, document
from tests.unit.otlp_schema import Request

from .served import MIB, Served


def test_hosts_and_vms(sterna) -> None:  # type: ignore[no-untyped-def]
    assert re.search(r"^a +up +no +4 +8\.0 GiB +16\.0 GiB +10\.0\.0\.1 +11\.3\.0", sterna("hosts").stdout, re.M)
    assert re.search(r"^web1 +a +running +- +1 +1\.0 GiB", sterna("vms").stdout, re.M)
    assert [h["name"] for h in document(sterna("hosts", "--json"))["hosts"]] == ["a", "b", "c"]
    assert [v["name"] for v in document(sterna("vms", "--json"))["vms"]] == ["idle", "web1"]


LOST = "libvirtd cannot be used since 2026-11-29 11:00:00 UTC: refused"


def test_a_host_without_libvirtd(sterna, fleet: Served, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(registry, "UP_FOR_MS", 1500)
    sterna("vms")
    fleet.a.lost = LOST
    while document(sterna("hosts", "--json"))["hosts"][0]["state"] != "degraded":
        pass  # until its last description is old
    shown = sterna("hosts").stdout
    assert re.search(r"^a +degraded ", shown, re.M) and f"\na: {LOST}" in shown
    listed = sterna("vms", code=6)
    assert re.search(r"^web1 +a +unknown ", listed.stdout, re.M)
    assert f"no answer, VMs as last seen: a ({LOST})" in listed.stderr
    assert document(sterna("vms", "--json", code=6))["complete"] is False
    assert f"not asked: a ({LOST})" in sterna("audit", code=6).stderr
    alone = sterna("audit", "--host", "a", code=6)
    assert alone.stdout == "no host could be asked: leftovers are unknown\n"
    refused = sterna("migrate", "web1", "--to", "b", code=3).stderr
    assert LOST in refused


def test_no_host_at_all_is_no_empty_fleet(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.run(_forget(fleet))
    for command in ("hosts", "vms"):
        said = sterna(command, code=6).stderr
        assert "no host is known" in said and "fix: start the Sterna agent" in said, command
    assert "leftovers are unknown" in sterna("audit", code=6).stdout


async def _forget(fleet: Served) -> None:
    fleet.controller.registry._described.clear()
    for agent in fleet.agents:
        agent.listening = False

    async def nobody() -> list[object]:
        return []

    fleet.controller.registry._fleet.hosts = nobody  # type: ignore[method-assign,assignment]


def test_maintenance(sterna) -> None:  # type: ignore[no-untyped-def]
    assert " yes " in sterna("host", "maintenance", "b", "--on").stdout
    assert "b: in maintenance: new fans" in sterna("host", "maintenance", "b", "--reason", "new fans").stdout
    refused = sterna("migrate", "web1", "--to", "b", code=3)
    assert refused.stdout == ""
    assert "b is in maintenance" in refused.stderr and "fix: `sterna host maintenance b --off`" in refused.stderr
    assert document(sterna("host", "maintenance", "b", "--off", "--json"))["maintenance"] is False
    sterna("host", "maintenance", "z", "--on", code=5)


def test_a_host_with_another_uuid(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    uuid = "99999999-0000-4000-8000-000000000000"
    assert document(sterna("host", "pin", "b", uuid, "--json"))["name"] == "b"
    assert sterna("host", "pin", "b", uuid).stdout.splitlines()[1].startswith("b ")
    taken = sterna("host", "pin", "a", uuid, code=4)
    assert f"{uuid} is the UUID of b" in taken.stderr and "fix: " in taken.stderr
    sterna("host", "pin", "z", uuid, code=5)
    assert "host_uuid" in sterna("host", "pin", "a", "not-a-uuid", code=3).stderr


def test_a_dead_host(sterna, fleet: Served, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    will = "take the guest over and end it as completed: the guest runs here"
    fleet.b.shared = [{"id": ID, "vm": "web1", "role": "destination", "will": will}]
    lives = sterna("host", "declare-dead", "a", "--fenced", code=3)
    assert "the agent of a answers" in lives.stderr and "fix: " in lives.stderr
    sterna("host", "declare-dead", "z", "--fenced", code=5)
    monkeypatch.setattr(registry, "UP_FOR_MS", 1500)
    fleet.a.listening = False
    while document(sterna("hosts", "--json"))["hosts"][0]["state"] != "down":
        pass  # its last beacon grows old
    unsure = sterna("host", "declare-dead", "a", code=3)  # nobody to ask here: not confirmed
    assert "not confirmed that a is fenced" in unsure.stderr and "--fenced" in unsure.stderr
    assert fleet.b.told_dead == []
    done = sterna("host", "declare-dead", "a", "--fenced")
    assert re.search(rf"^{ID[:8]} +web1 +b +destination +{will}", done.stdout, re.M)
    assert fleet.b.told_dead == ["a"]
    assert document(sterna("host", "declare-dead", "a", "--fenced", "--json"))["silent_hosts"] == []
    listed = sterna("hosts").stdout
    assert re.search(r"^a +dead ", listed, re.M)
    assert re.search(r"^a: declared dead 20.*; nothing received from its agent since 20", listed, re.M)
    fleet.a.listening = True
    while document(sterna("hosts", "--json"))["hosts"][0]["state"] != "up":
        pass
    assert "BACK ONLINE since" in sterna("hosts").stdout
    assert "declared dead" not in sterna("host", "declare-alive", "a").stdout
    assert fleet.b.told_dead == []


def test_audit(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    assert sterna("audit").stdout == "no leftovers\n"
    why = "made ahead of a guest that has no QEMU here"
    tap = {"kind": "tap", "host": "b", "subject": "tap1", "why": why, "safety": "safe", "repair": "delete it"}
    fleet.b.leftovers = [tap]
    found = sterna("audit", code=9).stdout
    assert f"b: tap tap1: {why}\n" in found and "--repair would: delete it" in found
    assert document(sterna("audit", "--json", code=9))["clean"] is False
    assert sterna("audit", "--host", "a").stdout == "no leftovers\n"
    sterna("audit", "--host", "z", code=5)
    done = sterna("audit", "--repair").stdout
    assert f"b: tap tap1: {why} -> done" in done and "no leftovers" in done
    assert sterna("audit").stdout == "no leftovers\n"


@pytest.mark.parametrize(("asked", "code"), [([], 6), (["--host", "a"], 6), (["--host", "b"], 0)])
def test_a_host_that_could_not_be_asked_is_not_clean(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], code: int
) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"leftovers": [], "silent_hosts": ["a"], "clean": True})

    http = httpx2.Client(base_url="http://sterna", transport=httpx2.MockTransport(answer))
    monkeypatch.setattr("sterna.cli.main.client_of", lambda api: Client("http://sterna", http))
    result = CliRunner().invoke(app, ["audit", *asked])
    assert result.exit_code == code
    assert "on the hosts that were asked" in result.stdout and "not asked: a" in result.stderr


def test_two_copies_are_shouted_and_never_repaired(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.b.add_vm("web1", 1)
    found = sterna("audit", "--repair", code=9).stdout
    assert "a, b: runs-twice web1: THE SAME VM RUNS ON a AND b" in found
    assert fleet.a.vms.keys() & fleet.b.vms.keys()


def test_the_word_about_a_dead_host_is_asked_for(sterna, fleet: Served, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(registry, "UP_FOR_MS", 1500)
    monkeypatch.setattr(host, "_asks", lambda: True)
    fleet.a.listening = False
    while document(sterna("hosts", "--json"))["hosts"][0]["state"] != "down":
        pass
    wrong = sterna("host", "declare-dead", "a", code=3, input="b\n")
    assert "nothing runs on it" in wrong.stderr and fleet.b.told_dead == []
    sterna("host", "declare-dead", "a", input="a\n")
    assert fleet.b.told_dead == ["a"]


def test_every_reason_is_listed_with_its_fix(sterna) -> None:  # type: ignore[no-untyped-def]
    result = sterna("migrate", "idle", "--to", "nowhere", code=3)
    assert "2 reasons" in result.stderr
    assert "- there is no host nowhere [no-such-host]" in result.stderr
    assert "- idle is paused [vm-paused]" in result.stderr
    assert "fix: resume it first" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("migrate", "nope"), 5),
        (("migrate", "web1", "--to", "a"), 3),
        (("migrate",), 2),
        (("migrate", "web1", "--id", "nonsense"), 2),
        (("migrations", "--cursor", "x"), 2),
        (("show", "abc"), 5),
        (("show", ID), 5),
        (("abort", ID), 5),
        (("show", ID, "file.puml"), 2),
        (("fly",), 2),
    ],
)
def test_exit_codes(sterna, arguments: tuple[str, ...], code: int) -> None:  # type: ignore[no-untyped-def]
    assert sterna(*arguments, code=code).stdout == ""


def test_watching_a_migration_to_its_report(sterna, fleet: Served, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fleet.pace_s = 0.02
    result = sterna("migrate", "web1", "--to", "b", "--id", ID, "--watch")
    lines = result.stdout.splitlines()
    percents = [float(m[1]) for line in lines if (m := re.match(r" *(\d+) %  ", line))]
    assert percents == sorted(percents) and percents[-1] == 100
    for word in ("preparing", "migrating", "post-migrating", "completed"):
        assert any(word in line for line in lines)
    assert any("iteration 2" in line and "/s" in line and "ETA" in line for line in lines)
    assert re.search(r"guest downtime +48\.0 ms", result.stdout)
    assert re.search(r"^web1 +b +running", sterna("vms").stdout, re.M)

    assert ID[:8] in sterna("migrations").stdout
    assert document(sterna("migrations", "--json"))["migrations"][0]["id"] == ID
    assert document(sterna("show", ID[:4], "--json"))["report"]["downtime_ms"] == 48
    assert re.search(r"^b +P9 +connect volumes +10\.0 ms +done", sterna("show", ID, "--timeline").stdout, re.M)
    assert {i["row"] for i in document(sterna("show", ID, "--timeline", "--json"))["items"]} >= {"P9", "F11"}
    assert "earlier version" in sterna("show", ID, "--diff").stdout
    assert document(sterna("show", ID, "--diff", "--json"))["recorded"] is False
    assert "only one of" in sterna("show", ID, "--diff", "--timeline", code=2).stderr
    text = sterna("show", ID, "--diagram").stdout
    assert text.startswith("@startuml") and text.endswith("@enduml\n")
    target = tmp_path / "run.puml"
    assert str(target) in sterna("show", ID, "--diagram", str(target)).stdout
    assert target.read_text() == text
    assert document(sterna("show", ID, "--diagram", "--json"))["diagram"] == text
    assert "cannot be written" in sterna("show", ID, "--diagram", str(tmp_path / "no/dir"), code=1).stderr
    svg = sterna("show", ID, "--diagram", "svg").stdout
    assert svg.startswith("<svg ") and svg.endswith("</svg>\n") and "connect volumes" in svg
    for words in (("svg", str(tmp_path / "run")), (str(tmp_path / "run.svg"),)):
        sterna("show", ID, "--diagram", *words)
        assert Path(words[-1]).read_text() == svg
    assert "one file" in sterna("show", ID, "--diagram", "svg", "a", "b", code=2).stderr
    assert "--diagram" in sterna("show", ID, "svg", code=2).stderr
    trace = document(sterna("show", ID, "--trace", "-"))
    assert {span.traceId for span in Request.model_validate(trace).spans} == {ID.replace("-", "")}
    assert str(tmp_path / "trace") in sterna("show", ID, "--trace", str(tmp_path / "trace")).stdout
    assert json.loads((tmp_path / "trace").read_text()) == trace
    assert document(sterna("show", ID, "--trace", "-", "--json")) == {"trace": trace, "file": None}
    assert "cannot be written" in sterna("show", ID, "--trace", str(tmp_path / "no/dir"), code=1).stderr
    assert "--trace" in sterna("show", ID, "--trace", "-", "--timeline", code=2).stderr
    assert "already on b" in sterna("abort", ID, code=4).stderr


def test_json_and_watch_print_one_document_on_stdout(sterna) -> None:  # type: ignore[no-untyped-def]
    result = sterna("migrate", "web1", "--to", "b", "--watch", "--json")
    assert document(result)["status"] == "completed"
    assert "migrating" in result.stderr


def test_without_watch_it_says_how_to_follow(sterna) -> None:  # type: ignore[no-untyped-def]
    assert f"sterna show {ID}" in sterna("migrate", "web1", "--id", ID).stdout


def test_a_busy_vm_is_a_conflict(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.outcome = "aborted"
    sterna("migrate", "web1", "--id", ID)
    assert ID in sterna("migrate", "web1", code=4).stderr
    assert document(sterna("migrate", "web1", "--id", ID, "--json"))["id"] == ID


def test_a_failed_migration(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.outcome = "failed"
    result = sterna("migrate", "web1", "--to", "b", "--watch", "--id", ID, code=7)
    assert "rolling-back: b has no bridge br-int" in result.stdout
    assert re.search(r"fix +create br-int there", result.stdout)
    assert "<color:red>P10" in sterna("show", ID, "--diagram").stdout


def test_an_aborted_migration(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.outcome = "aborted"
    sterna("migrate", "web1", "--id", ID)
    while document(sterna("show", ID, "--json"))["status"] == "queued":
        pass
    result = sterna("abort", ID[:8], "--wait", "--json")
    assert document(result)["status"] == "cancelled"
    assert "queued" not in result.stderr  # what was before the request is not shown again
    assert "guest downtime" not in sterna("show", ID).stdout  # the guest stayed where it was
    sterna("abort", ID, code=4)


def test_a_stream_that_breaks_is_taken_up_again_without_loss(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.cut = [3, 0, 7, 1]
    result = sterna("migrate", "web1", "--to", "b", "--watch", "--id", ID)
    assert "completed" in result.stdout and fleet.cut == []
    seen = [d for _, d in Client(fleet.api, token=fleet.token).events(ID)]
    fleet.cut = [2, 5, 9]
    assert [d for _, d in Client(fleet.api, token=fleet.token).events(ID)] == seen


def test_ids_that_are_not_unique(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    sterna("migrate", "web1", "--to", "b", "--watch", "--id", ID)
    fleet.a.add_vm("web2", 3)
    sterna("migrate", "web2", "--to", "b", "--watch", "--id", ID[:-1] + "4")
    assert "several" in sterna("show", "333", code=5).stderr
    assert document(sterna("show", ID, "--json"))["vm_name"] == "web1"


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["hosts", "--api", "http://127.0.0.1:9"])
    assert result.exit_code == 6 and "sterna lab up" in result.stderr and "Traceback" not in result.stderr
    assert CliRunner().invoke(app, ["hosts", "--api", "nonsense://x"]).exit_code == 6


def test_help_names_the_exit_codes() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    assert "7 migration failed" in " ".join(text.split())


def test_numbers_as_people_read_them() -> None:
    assert [size(n) for n in (None, 5, 2048, 3 * 2**20, 5 * 2**30)] == ["-", "5 B", "2.0 KiB", "3.0 MiB", "5.0 GiB"]
    assert rate(2048) == "2.0 KiB/s"
    assert [ms(n) for n in (None, 1.26, 150.0, 12_345)] == ["-", "1.3 ms", "150 ms", "12.3 s"]


def test_a_plan_names_what_is_in_the_way_and_what_it_would_cost(sterna) -> None:  # type: ignore[no-untyped-def]
    shown = sterna("plan", "web1", "--to", "b", "--bandwidth", "50MiB/s", "--may", "throttle,postcopy").stdout
    assert "web1: a -> b" in shown and "no blockers" in shown
    assert "600.0 MiB of memory, 10.0 MiB/s dirtied" in shown and "50.0 MiB/s (asked)" in shown
    assert re.search(r"^plain pre-copy +yes +\d+ % +\d+\.\d s", shown, re.M)
    plan = document(sterna("plan", "web1", "--to", "b", "--bandwidth", "50", "--json"))
    assert (plan["bandwidth_bytes_s"], plan["blockers"]) == (50 * 2**20, [])
    assert document(sterna("migrations", "--json"))["migrations"] == []


def test_a_plan_is_whole_on_a_narrow_terminal(sterna, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "40")
    printed = sterna("plan", "web1", "--to", "b", "--bandwidth", "50MiB/s").stdout
    heads = r"^COPY +FINISHES +ODDS +TIME +DOWNTIME +SENT"
    assert re.search(heads, printed, re.M) and "pausing the guest" in printed and "\u2026" not in printed


def test_a_plan_with_blockers_ends_with_3_and_nonsense_is_refused(sterna) -> None:  # type: ignore[no-untyped-def]
    shown = sterna("plan", "idle", "--to", "b", code=3).stdout
    assert "blocked: idle is paused [vm-paused]" in shown and "fix: resume it first" in shown
    assert "there is no policy" in sterna("plan", "web1", "--policy", "hasty", code=3).stderr
    assert "300ms" in sterna("plan", "web1", "--max-downtime", "soon", code=2).stderr
    assert "may" in sterna("plan", "web1", "--may", "anything", code=3).stderr
    sterna("plan", "none", code=5)


def test_accuracy_without_anything_to_compare(sterna) -> None:  # type: ignore[no-untyped-def]
    assert re.search(r"^total time +0 +- +- +-", sterna("accuracy").stdout, re.M)
    assert document(sterna("accuracy", "--json"))["downtime"]["compared"] == 0


def test_tuning_a_copy(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.outcome = "aborted"
    sterna("migrate", "web1", "--to", "b", "--id", ID)
    assert "web1: bandwidth limited to 200.0 MiB/s" in sterna("tune", ID[:8], "--bandwidth", "200MiB/s").stdout
    assert document(sterna("tune", ID, "--bandwidth", "none", "--json"))["id"] == ID
    assert fleet.a.limits == [200 * MIB, None]
    assert "not a valid rate" in sterna("tune", ID, "--bandwidth", "fast", code=2).stderr
    assert "bandwidth_bytes_s" in sterna("tune", ID, "--bandwidth", "1kib", code=3).stderr
    sterna("abort", ID, "--wait")
    assert "ended already" in sterna("tune", ID, "--bandwidth", "1", code=4).stderr


def test_no_id_is_no_migration_though_there_is_only_one(sterna) -> None:  # type: ignore[no-untyped-def]
    sterna("migrate", "web1", "--to", "b", "--id", ID)
    assert "fix:" in sterna("abort", "", code=5).stderr
    assert document(sterna("show", ID[:4], "--json"))["id"] == ID


def test_a_name_in_brackets_is_shown_as_it_is(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.a.add_vm("web[blue]", 3)
    assert "web[blue]: a -> b" in sterna("migrate", "web[blue]", "--to", "b", "--id", ID).stdout


@pytest.mark.parametrize("option", ["--max-downtime", "--finish-within", "--bandwidth"])
def test_numbers_beyond_all_measure_are_a_usage_error(sterna, option: str) -> None:  # type: ignore[no-untyped-def]
    unit = "GiB/s" if option == "--bandwidth" else "h"
    assert "use e.g." in sterna("migrate", "web1", option, "9" * 400 + unit, code=2).stderr
