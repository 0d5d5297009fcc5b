"""Every step of both hosts with the moments before and after it."""

from __future__ import annotations

from sterna.migration.flow import DESTINATION, DESTINATION_POST, SOURCE


def forward() -> list[tuple[str, str, str]]:
    flows = (
        ("host1", SOURCE.until_pivot + SOURCE.after_pivot),
        ("host2", DESTINATION.until_pivot + DESTINATION_POST.after_pivot),
    )
    return [(host, s.name, moment) for host, steps in flows for s in steps for moment in ("before", "after")]


def backward() -> list[tuple[str, str, str]]:
    undo = SOURCE.compensation([s.name for s in SOURCE.until_pivot])
    undo_there = DESTINATION.compensation([s.name for s in DESTINATION.until_pivot])
    flows = (("host1", undo), ("host2", undo_there))
    return [(host, s.name, moment) for host, steps in flows for s in steps for moment in ("before", "after")]
