from __future__ import annotations

import pytest

from sterna.domain.entries.destination_notes import RanHere
from sterna.domain.entries.notes import SwitchOver
from sterna.domain.experience import outcome_of
from sterna.domain.journal import Kind, Role
from sterna.domain.report import build_report

from .journals import JOB, MIGRATION, Book, good_destination, good_source


def test_the_report_of_a_good_run() -> None:
    source = good_source()
    report = build_report(MIGRATION, [*good_destination().entries, *source.entries])
    final = next(e for e in source.entries if e.data.get("status") == "completed")
    assert report.total_ms == final.mono_ms - source.entries[0].mono_ms and report.total_reason == ""
    assert (report.downtime_ms, report.downtime_net_ms, report.iterations) == (48, 31, 3)
    assert report.bytes_memory == 300 * 2**20 and report.bytes_disks is None
    assert [p.status for p in report.phases] == ["queued", "preparing", "migrating", "post-migrating"]
    assert all(p.duration_ms and not p.reason for p in report.phases)


def test_a_restart_makes_the_total_unknown_never_wrong() -> None:
    book = Book(Role.SOURCE).accepted().status("preparing").status("migrating").restart()
    book.note("M5").status("post-migrating").status("completed")
    report = build_report(MIGRATION, book.entries)
    assert report.total_ms is None and "restarted" in report.total_reason
    by_status = {p.status: p for p in report.phases}
    assert by_status["preparing"].duration_ms == 10 and by_status["post-migrating"].duration_ms == 10
    assert by_status["migrating"].duration_ms is None and "restarted" in by_status["migrating"].reason


def test_what_nobody_saw_is_unknown_with_a_reason() -> None:
    report = build_report(MIGRATION, Book(Role.SOURCE).accepted().status("preparing").entries)
    assert report.total_ms is None and report.total_reason == "it has not ended"
    assert report.downtime_ms is None and report.downtime_reason
    assert report.bytes_memory is None and report.iterations is None
    assert build_report(MIGRATION, []).total_reason == "its start is not recorded"


def test_a_cut_off_copy_still_tells_what_was_sent() -> None:
    book = (
        Book(Role.SOURCE).accepted().status("migrating").sample(iteration=4, memory_processed=77).status("failed")
    )
    report = build_report(MIGRATION, book.entries)
    assert (report.bytes_memory, report.iterations) == (77, 4)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_migration_that_was_rolled_back_never_had_a_downtime(status: str) -> None:
    book = Book(Role.SOURCE).accepted().status("migrating").status("rolling-back").status(status)
    report = build_report(MIGRATION, book.entries)
    assert report.downtime_ms is None
    assert report.downtime_reason == "the migration was rolled back before the switch-over"


def paused_source(*events: tuple[str, str]) -> Book:
    """Its guest's events in the middle of the copy: (event, libvirt's detail)."""
    book = Book(Role.SOURCE).accepted().status("preparing").status("migrating").intent("M4")
    for kind, detail in events:
        book.write(Kind.NOTE, "M3", f"saw-{kind}", {"detail": detail})
    return book.done("M4").note("M5", {"job": JOB.model_dump()}).status("post-migrating").status("completed").end()


def arrived(state: str, reason: str, *, ran: bool = True) -> Book:
    book = Book(Role.DESTINATION, boot="dest-1").accepted()
    if ran:
        book.write(Kind.NOTE, "M4", RanHere.entry)
    told = {"power_state": state, "power_reason": reason, "job": JOB.model_dump()}
    return book.step("F8", data=told).step("F9").end()


@pytest.mark.parametrize(("detail", "words"), [("paused", "by somebody"), ("ioerror", "by an I/O error of a disk")])
def test_a_pause_that_began_before_the_switch_over_is_no_downtime(detail: str, words: str) -> None:
    entries = [*paused_source(("suspended", detail)).entries, *arrived("paused", "user", ran=False).entries]
    report = build_report(MIGRATION, entries)
    assert report.downtime_ms is None and report.downtime_net_ms is None
    assert f"paused on {MIGRATION.source} before it, {words}" in report.downtime_reason
    assert report.guest == f"paused by somebody on {MIGRATION.destination}"
    outcome = outcome_of(MIGRATION, entries)
    assert outcome is not None and outcome.actual.downtime_ms is None, "nor is it compared with a forecast"


def test_also_where_the_destination_let_it_run() -> None:
    entries = [*paused_source(("suspended", "ioerror")).entries, *arrived("running", "migrated").entries]
    report = build_report(MIGRATION, entries)
    assert report.downtime_ms is None and "before it" in report.downtime_reason and report.guest == ""


def test_a_pause_that_libvirt_took_for_the_switch_over() -> None:
    """It let the guest run again at its arrival, and counted from the pause."""
    source = paused_source(("suspended-migrated", "migrated"))
    switched = {"last_pass_ms": None, "stop_ms": 9.0, "device_state_ms": 81.0, "paused_ms": 5232.0}
    source.write(Kind.NOTE, "M4", SwitchOver.entry, switched)
    report = build_report(MIGRATION, [*source.entries, *arrived("running", "migrated").entries])
    assert report.downtime_ms is None and report.guest == ""
    assert report.downtime_reason.endswith(f"paused on {MIGRATION.source} before it, for 5.2 s")


def test_one_that_was_resumed_in_time_is_a_switch_over_like_any_other() -> None:
    events = ("suspended", "paused"), ("resumed", "unpaused"), ("suspended-migrated", "migrated")
    report = build_report(MIGRATION, [*paused_source(*events).entries, *arrived("running", "migrated").entries])
    assert (report.downtime_ms, report.downtime_reason, report.guest) == (48, "", "")


@pytest.mark.parametrize("ran", [True, False])
def test_a_guest_that_an_io_error_stops_as_it_arrives_has_not_run_on(ran: bool) -> None:
    switched = paused_source(("suspended-migrated", "migrated"))
    report = build_report(MIGRATION, [*switched.entries, *arrived("paused", "ioerror", ran=ran).entries])
    there = f"paused by an I/O error of a disk on {MIGRATION.destination}"
    assert report.guest == there
    assert report.downtime_ms is None and report.downtime_reason == f"the guest has not run on since: {there}"


def test_one_that_ran_and_was_paused_by_somebody_there_had_its_downtime() -> None:
    switched = paused_source(("suspended-migrated", "migrated"))
    report = build_report(MIGRATION, [*switched.entries, *arrived("paused", "user").entries])
    assert report.downtime_ms == 48 and report.guest == f"paused by somebody on {MIGRATION.destination}"
