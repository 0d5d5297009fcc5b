"""The witness of guests that run twice takes no switch-over for one."""

from __future__ import annotations

from tests.witnesses import IN_A_ROW, Row


def test_a_switch_over_and_the_end_of_the_sources_qemu_prove_nothing() -> None:
    """Two windows in a row on a busy machine: the vCPU of a QEMU that is torn down gains 3 ms."""
    row = Row()
    assert [row.side_by_side(worked) for worked in (["web"], ["web"], [], ["web"], ["web"], [])] == [[]] * 6


def test_two_that_work_on_are_seen_for_as_long_as_they_do() -> None:
    row = Row()
    seen = [row.side_by_side(worked) for worked in (["web", "db"], ["web"], ["web", "db"], ["db", "web"], ["db"])]
    assert IN_A_ROW == 3
    assert seen == [[], [], ["web"], ["web"], ["db"]]
