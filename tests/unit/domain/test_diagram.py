from __future__ import annotations

import re

from sterna.domain.diagram import draw
from sterna.domain.errors import Permanent
from sterna.domain.journal import Kind, Role
from sterna.domain.timeline import build_timeline

from .journals import MIGRATION, Book, good_destination, good_source


def test_a_good_run_names_every_row_that_ran() -> None:
    text = draw(MIGRATION, build_timeline(MIGRATION, [*good_source().entries, *good_destination().entries]))
    ran = [
        "P1",
        "P2",
        "P3",
        "P4",
        "P5",
        "P6",
        "P7",
        "P8",
        "P9",
        "P10",
        "P11",
        "P12",
        "M1",
        "M2",
        "M3",
        "M4",
        "M5",
        "F1",
        "F2",
        "F3",
        "F4",
        "F5",
        "F6",
        "F7",
        "F8",
        "F9",
        "F10",
        "F11",
    ]
    drawn = re.findall(r" : ([PMFR]\d+) ", text)
    assert sorted(set(drawn)) == sorted(ran)
    assert "R1" not in drawn and "#red" not in text
    assert "dlibvirt -> dlibvirt : P9 connect volumes (10 ms)" in text
    assert "shost ->> dhost : F5 post_live_migration_at_destination" in text
    assert "dlibvirt --> dhost : P11" in text and "dhost --> shost : P11" in text
    assert "note over slibvirt : iterations: 2, 290 MiB of memory sent" in text
    assert drawn.count("M3") == 1
    assert "note over shost : status **completed**" in text
    assert text.startswith("@startuml\n") and text.endswith("@enduml\n")
    for who in ("shost\\na", "slibvirt\\na", "dhost\\nb", "dlibvirt\\nb"):
        assert f'participant "{who}"' in text


def test_a_failed_run_shows_the_failure_in_red_and_the_rollback() -> None:
    error = Permanent("bridge br-int is missing")
    source = Book(Role.SOURCE).accepted().status("preparing").intent("P3").failed("P3", error, final=True)
    source.status("rolling-back", "bridge br-int is missing").step("R0", "R1", "R2", "R3", "R4", "R8").status(
        "failed"
    )
    target = Book(Role.DESTINATION, boot="d").accepted().step("P9").intent("P10")
    target.failed("P10", error, final=True).step("R5", "R6", "R7").end()
    lines = draw(MIGRATION, build_timeline(MIGRATION, [*source.entries, *target.entries])).splitlines()
    failed = next(n for n, line in enumerate(lines) if "P10" in line)
    assert "dlibvirt -[#red]> dlibvirt : <color:red>P10" in lines[failed] and "br-int is missing" in lines[failed]
    answer = next(n for n, line in enumerate(lines) if "P3 failed" in line)
    assert lines[answer].startswith("dhost --[#red]> shost : <color:red>")
    assert failed < answer < next(n for n, line in enumerate(lines) if " : R0 " in line)
    assert "dhost -> dhost : R6 remove the destination's NICs and bindings (10 ms)" in lines
    assert "== Rollback ==" in lines


def test_text_from_outside_cannot_add_lines_or_markup() -> None:
    error = Permanent("no\n@enduml\n!include /etc/passwd <b>x</b> **bold** " + "y" * 500)
    book = Book(Role.SOURCE).intent("P2").failed("P2", error, final=True)
    text = draw(MIGRATION.model_copy(update={"vm_name": 'a"b\n@enduml'}), build_timeline(MIGRATION, book.entries))
    assert text.count("\n@enduml") == 1 and "\n!include" not in text
    assert "<b>" not in text and "~**bold~**" in text and "y" * 200 not in text


def test_a_restart_is_shown() -> None:
    book = Book(Role.SOURCE).accepted().intent("M4").restart().done("M4")
    text = draw(MIGRATION, build_timeline(MIGRATION, book.entries))
    assert "the agent was restarted" in text and "agent restarted during this step" in text


def test_rows_of_a_newer_version_are_drawn_as_the_agents_own_work() -> None:
    text = draw(MIGRATION, build_timeline(MIGRATION, Book(Role.DESTINATION).step("F99").entries))
    assert "dhost -> dhost : F99" in text


def test_what_the_source_asks_for_is_the_destinations_own_work_when_it_does_it() -> None:
    target = Book(Role.DESTINATION).accepted()
    for name in ("disconnect-volumes-here", "terminate-connections"):
        target.write(Kind.INTENT, "R3", name).write(Kind.DONE, "R3", name)
    text = draw(MIGRATION, build_timeline(MIGRATION, target.end().entries))
    assert "dhost -> dhost : R3 disconnect volumes here (10 ms)" in text
    assert "dhost -> dhost : R3 terminate connections (10 ms)" in text
    assert text.count(" R3 ") == 2


def test_remarks_about_a_step_are_notes_not_arrows() -> None:
    book = Book(Role.SOURCE).accepted().write(Kind.INTENT, "M4", "copy")
    book.write(Kind.NOTE, "M3", "copy-started").write(Kind.NOTE, "M3", "iteration", {"iteration": 1})
    book.write(Kind.NOTE, "M3", "iteration", {"iteration": 2}).write(
        Kind.NOTE, "M4", "waiting", {"why": "no answer"}
    )
    book.write(Kind.DONE, "M4", "copy").write(Kind.COMPENSATING, data={"error": {"message": "lost the link"}})
    book.write(Kind.RELEASED, "F11")
    text = draw(MIGRATION, build_timeline(MIGRATION, book.entries))
    assert text.count("-> dlibvirt : M4") == 1 and text.count(" : M3 ") == 1
    assert "note over shost : M4 no answer" in text and "note over slibvirt : iterations: 2" in text
    assert "turned back: lost the link" in text and "F11" not in text


def test_a_network_service_has_a_lifeline_where_it_was_asked() -> None:
    asked = {"network": "neutron"}
    source = Book(Role.SOURCE).accepted().write(Kind.INTENT, "", "prepare-bindings")
    source.write(Kind.DONE, "", "prepare-bindings", asked).step("P3").intent("M4")
    source.write(Kind.NOTE, "", "ports-switched", asked).done("M4")
    target = Book(Role.DESTINATION, boot="d").accepted().write(Kind.INTENT, "F7", "activate-bindings")
    target.write(Kind.DONE, "F7", "activate-bindings", asked)
    lines = draw(MIGRATION, build_timeline(MIGRATION, [*source.entries, *target.entries])).splitlines()
    assert 'participant "Neutron" as network' in lines
    assert "shost -> network : bind the ports to the destination (INACTIVE)" in lines
    assert "shost -> network : activate the destination's bindings" in lines
    assert "dhost -> network : confirm, delete the source's bindings" in lines
    without = draw(MIGRATION, build_timeline(MIGRATION, good_source().entries))
    assert "network" not in without
