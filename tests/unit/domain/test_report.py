from __future__ import annotations

from sterna.domain.journal import Role
from sterna.domain.report import build_report

from .journals import MIGRATION, Book, good_destination, good_source


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
    assert build_report(MIGRATION, []).total_reason == "its beginning is not recorded"


def test_a_cut_off_copy_still_tells_what_was_sent() -> None:
    book = (
        Book(Role.SOURCE).accepted().status("migrating").sample(iteration=4, memory_processed=77).status("failed")
    )
    report = build_report(MIGRATION, book.entries)
    assert (report.bytes_memory, report.iterations) == (77, 4)
