"""What the commands print on a terminal of 80 columns, and into a pipe."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
from rich.console import Console
from rich.live import Live
from typer import Exit
from typer.testing import CliRunner

from sterna.cli import cpus, definition_diff, exits, formatting, plan
from sterna.cli.client import ApiError
from sterna.cli.console import PlainConsole
from sterna.cli.main import app
from sterna.cli.watch import LiveBar, PlainLines
from sterna.domain.refusals import Code

UUID = "aaaaaaaa-0000-4000-8000-00000000000"
LONG = "the connection to libvirtd was lost: End of file while reading data from the socket, which was closed"

HOST: dict[str, Any] = {
    "name": "compute-01",
    "state": "degraded",
    "maintenance": True,
    "cpus": 128,
    "memory_free_bytes": 1023 * 2**30,
    "memory_total_bytes": 1023 * 2**30,
    "address": "192.168.100.101",
    "libvirt_version": "11.3.0",
    "qemu_version": "10.0.2",
}
VM = {"host": "host1", "state": "running", "task_state": "migrating", "vcpus": 64, "memory_bytes": 512 * 2**30}
MIGRATION = {
    "id": UUID + "1",
    "vm_name": "tern",
    "source": "host1",
    "destination": "host2",
    "status": "post-migrating",
    "progress": {"percent": 100},
    "created_at": "2026-11-29T12:00:00Z",
    "reason": LONG,
}
ITEM = {
    "host": "host1",
    "row": "R4",
    "what": "step",
    "label": "tell the destination to undo its half of the work",
    "name": "x",
    "duration_ms": 12.0,
    "result": "interrupted",
    "tries": 2,
    "restarts": 1,
    "error": {"message": LONG},
    "status": "",
    "reason": "",
}
DEATH = {"migrations": [{"id": UUID + "2", "vm": "tern", "host": "host1", "role": "destination", "will": LONG}]}


def shown(
    monkeypatch: pytest.MonkeyPatch, show: Callable[[], None], *, terminal: bool, width: int = 80
) -> list[str]:
    written = io.StringIO()
    console = PlainConsole(file=written, width=width, force_terminal=terminal, color_system=None)
    monkeypatch.setattr(formatting, "out", console)
    monkeypatch.setattr(
        formatting, "PlainConsole", lambda **o: PlainConsole(**o, force_terminal=terminal, color_system=None)
    )
    show()
    return [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in written.getvalue().splitlines()]


TABLES: dict[str, Callable[[], None]] = {
    "hosts": lambda: formatting.show(
        formatting.hosts([HOST, HOST | {"address": "fd00:1234:5678:9abc:def0:1234:5678:9abc"}])
    ),
    "vms": lambda: formatting.show(
        formatting.vms([VM | {"name": f"a-very-long-name-of-a-vm-{n}", "uuid": UUID + n} for n in "12"])
    ),
    "migrations": lambda: formatting.show(formatting.migrations([MIGRATION])),
    "timeline": lambda: formatting.show(formatting.timeline([ITEM])),
    "death": lambda: formatting.show(formatting.death(DEATH)),
}


@pytest.mark.parametrize("table", TABLES)
def test_tables_fit_80_columns_and_break_no_word(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    lines = shown(monkeypatch, TABLES[table], terminal=True)
    assert lines and max(map(len, lines)) <= 80, lines
    told = re.sub(r"\s+", " ", " ".join(lines))
    for whole in re.findall(UUID + ".", told):
        assert whole
    if table == "vms":
        assert len(re.findall(UUID + "[12]$", "\n".join(lines), re.M)) == 2
    if table in ("migrations", "timeline"):
        pieces = [line.strip() for line in lines]
        assert LONG in " ".join(pieces) or all(word in told.split() for word in LONG.split()), lines


@pytest.mark.parametrize("table", TABLES)
def test_in_a_pipe_a_row_is_a_line(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    lines = shown(monkeypatch, TABLES[table], terminal=False)
    rows = {"hosts": 2, "vms": 2}.get(table, 1)
    assert len(lines) == rows + 1
    assert table not in ("migrations", "timeline", "death") or lines[1].endswith(LONG)


def test_lines_break_between_words_and_keep_their_indent(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        written = io.StringIO()
        PlainConsole(file=written, width=80, force_terminal=terminal, color_system=None).print(f"    fix: {LONG}")
        lines = written.getvalue().splitlines()
        if not terminal:
            assert lines == [f"    fix: {LONG}"]
            continue
        assert len(lines) == 2 and all(line.startswith("    ") and len(line.rstrip()) <= 80 for line in lines)
        assert " ".join(line.strip() for line in lines) == f"fix: {LONG}"


LONGEST_CODE = max(get_args(Code), key=len)
REFUSAL = {"code": LONGEST_CODE, "message": LONG, "fix": LONG}
PLAN: dict[str, object] = {
    "vm": {"name": "tern", "host": "host1"},
    "destination": "host2",
    "blockers": [REFUSAL],
    "warnings": [],
}
PLAN |= {
    "reasons": [],
    "load": None,
    "load_reason": "",
    "bandwidth_bytes_s": None,
    "bandwidth_from": "",
    "forecasts": [],
}


def test_the_code_of_a_refusal_is_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, lambda: plan.show(PLAN), terminal=True)
    assert max(map(len, lines)) <= 80
    assert f"[{LONGEST_CODE}]" in " ".join(lines).split()


def test_the_codes_of_what_ended_a_migration_are_shown() -> None:
    error = {"code": "refused", "message": "one; other", "fix": "this; that"}
    refusals = [{"code": "bridge-missing", "message": "one"}, {"code": "memory-short", "message": "other"}]
    assert formatting.error_of(error | {"refusals": refusals}) == "one [bridge-missing]; other [memory-short]"
    assert formatting.error_of(error) == "one; other"
    assert formatting.error_of(None) == ""


DIFF: dict[str, Any] = {
    "recorded": True,
    "summary": LONG,
    "differences": [
        {
            "where": "devices/interface[52:54:00:00:00:01]/virtualport/parameters/@interfaceid",
            "before": UUID + "1",
            "after": UUID + "2",
            "live": True,
            "persistent": True,
            "reason": LONG,
        },
        {"where": "metadata", "before": "", "after": "<metadata><a b='[red]c[/]'/></metadata> " * 5}
        | {"live": False, "persistent": True, "reason": LONG},
    ],
    "left_out": 3,
    "notes": [LONG],
    "edited": "<domain/>",
}


def test_differences_of_a_definition_are_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, lambda: definition_diff.show(DIFF), terminal=True)
    assert max(map(len, lines)) <= 80, lines
    assert f"  - {UUID}1" in lines and f"  + {UUID}2" in lines
    told = re.sub(r"\s+", " ", " ".join(lines))
    assert f"running guest and next start: {LONG}" in told and f"next start: {LONG}" in told
    assert "b='[red]c[/]'" in told and "and 3 more" in told and f"note: {LONG}" in told
    assert DIFF["differences"][0]["where"] in told and not any(line == "  -" for line in lines)


def test_differences_of_a_definition_are_lines_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, lambda: definition_diff.show(DIFF), terminal=False)
    assert lines[:6] == [
        LONG,
        "",
        DIFF["differences"][0]["where"],
        f"  running guest and next start: {LONG}",
        f"  - {UUID}1",
        f"  + {UUID}2",
    ]
    clean = DIFF | {"differences": [], "left_out": 0, "notes": [], "edited": ""}
    assert shown(monkeypatch, lambda: definition_diff.show(clean), terminal=False) == [LONG]


FEATURES = [f"feature-{number:03}" for number in range(90)]
CPUS: dict[str, Any] = {
    "groups": [
        {"number": number, "hosts": [f"compute-{number}-{n:03}" for n in range(500)], "vendor": "GenuineIntel"}
        | {"model": "Skylake-Server-noTSX-IBRS", "features": FEATURES}
        for number in (1, 2)
    ],
    "common_features": FEATURES,
    "common_models": ["Nehalem", "Westmere"],
    "pairs": [{"source": 2, "destination": 1, "why": LONG, "missing": FEATURES}],
    "pairs_left_out": 7,
    "unknown": {"compute-9": LONG},
}


@pytest.mark.parametrize("terminal", [True, False])
def test_cpus_are_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    lines = shown(monkeypatch, lambda: cpus.show(CPUS), terminal=terminal)
    assert not terminal or max(map(len, lines)) <= 80, lines
    told = re.sub(r"\s+", " ", " ".join(lines))
    assert "common features (90)" in told and "Nehalem, Westmere" in told
    assert told.count("compute-1-005") == 1 and told.count("and 494 more") == 2
    assert f"group 2 -> group 1: {LONG}; missing {', '.join(FEATURES)}" in told
    assert "and 7 more pairs" in told and f"not known of compute-9: {LONG}" in told


def test_cpus_that_are_equal_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    one = CPUS | {"groups": CPUS["groups"][:1], "pairs": [], "pairs_left_out": 0, "unknown": {}}
    assert shown(monkeypatch, lambda: cpus.show(one), terminal=False)[-1] == "all of these hosts have equal CPUs"
    two = CPUS | {"pairs": [], "pairs_left_out": 0, "unknown": {}}
    assert "between all groups" in shown(monkeypatch, lambda: cpus.show(two), terminal=False)[-1]
    unknown = {f"host{number}": "it is older" for number in range(8)} | {"zoe": LONG}
    none = CPUS | {"groups": [], "pairs": [], "pairs_left_out": 0, "unknown": unknown}
    assert shown(monkeypatch, lambda: cpus.show(none), terminal=False) == [
        "not known of host0, host1, host2, host3, host4, host5 and 2 more: it is older",
        f"not known of zoe: {LONG}",
    ]


def test_a_problem_that_is_no_refusal_names_its_kind_once(capsys: pytest.CaptureFixture[str]) -> None:
    reason = {"code": "conflict", "message": "it is too late", "fix": ""}
    answer = ApiError({"type": "urn:sterna:problem:conflict", "status": 409, "reasons": [reason]})
    with pytest.raises(Exit), exits.plain_errors():
        raise answer
    assert capsys.readouterr().err == "sterna: conflict:\n  - it is too late\n"


def test_a_report_breaks_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    report = dict.fromkeys(
        ("total_ms", "downtime_ms", "downtime_net_ms", "bytes_memory", "bytes_disks", "iterations"), None
    )
    more = {"total_reason": LONG, "downtime_reason": LONG, "phases": []}
    migration = MIGRATION | {
        "vm_uuid": UUID + "1",
        "error": {"message": LONG, "fix": LONG},
        "report": report | more,
    }
    lines = shown(monkeypatch, lambda: formatting.show(formatting.report(migration)), terminal=True)
    assert max(map(len, lines)) <= 80
    words_seen = set(" ".join(lines).split())
    assert set(LONG.split()) <= words_seen and UUID + "1" in words_seen


def test_usage_errors_show_what_was_typed_without_boxes() -> None:
    said = CliRunner().invoke(app, ["vms", ":smile:[red]"])
    assert said.exit_code == 2 and ":smile:[red]" in said.stderr and "─" not in said.output


def test_a_copy_whose_end_moves_with_every_pass_does_not_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    lines = PlainLines(Console(file=written, width=200))
    progress: dict[str, object] = {"percent": 20.0, "bytes_processed": 1, "bytes_remaining": 1, "rate_bytes_s": 1.0}
    progress |= {"dirty_rate_bytes_s": None, "eta_reason": ""}
    for n in range(24):
        moved = f"at {n}.5 s: pass {n} has more to send than expected"
        lines.changed(
            MIGRATION
            | {"status": "migrating"}
            | {"progress": progress | {"iteration": n, "eta_s": 10.0 + n, "eta_change": moved}},
            "",
        )
    later = progress | {
        "iteration": 24,
        "eta_s": 20.0,
        "eta_change": "at 30.0 s: the link carries 3 MiB/s instead of 9 MiB/s",
    }
    lines.changed(MIGRATION | {"status": "migrating", "progress": later}, "")
    moves = [line for line in written.getvalue().splitlines() if "estimated completion changed" in line]
    assert len(moves) == 3, moves  # the first, once it has doubled, and another reason


def test_no_frame_of_the_live_display_is_wider_than_the_terminal() -> None:
    written = io.StringIO()
    progress: dict[str, object] = {
        "percent": 39.0,
        "iteration": 1,
        "bytes_processed": 100 << 20,
        "bytes_remaining": 400 << 20,
    }
    progress |= {"rate_bytes_s": 200 << 20, "dirty_rate_bytes_s": 20 << 20, "eta_s": 2.0, "eta_reason": ""}
    progress |= {"eta_change": f"at 1.5 s: {LONG}"}
    console = PlainConsole(file=written, width=80, force_terminal=True, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        LiveBar(live).changed(MIGRATION | {"status": "migrating", "progress": progress}, f"host1: M4 {LONG}")
        live.refresh()
    lines = re.sub("\x1b\\[[?0-9;]*[a-zA-Z]", "", written.getvalue()).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= 80, lines
    assert "ETA 2 s" in " ".join(lines) and all(word in " ".join(lines).split() for word in LONG.split())


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    written = io.StringIO()
    PlainConsole(file=written, width=80, force_terminal=True).print("[red]down[/]")
    assert "\x1b[31" not in written.getvalue()
    assert exits.err.is_terminal is False
