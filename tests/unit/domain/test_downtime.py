"""The downtime in its parts: within one host, never negative, unknown where it was not seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.downtime import (
    DEVICE,
    SENT,
    STOPPED,
    DestinationTimes,
    Downtime,
    SourceTimes,
    downtime,
)
from sterna.domain.entries.destination_notes import Arrival
from sterna.domain.entries.notes import SwitchOver
from sterna.domain.journal import Kind, Role
from sterna.domain.report import build_report

from .journals import MIGRATION, Book, good_destination, good_source

SOURCE = [
    ("iteration", 100.0),
    ("iteration", 900.0),
    ("suspended-migrated", 1000.0),
    ("iteration", 1003.0),  # QEMU counts the rest as a pass, too
    ("migration-device", 1004.0),
    ("migration-completed", 1029.5),
]


def test_the_source_tells_stop_and_device_state_once_all_is_sent() -> None:
    times = SourceTimes()
    taken = [times.take(kind, at) for kind, at in SOURCE]
    assert taken[:-1] == [None] * 5
    assert taken[-1] == SwitchOver(last_pass_ms=100.0, stop_ms=4.0, device_state_ms=25.5)


def test_the_destination_tells_resume_and_network() -> None:
    times = DestinationTimes()
    for kind, at in (("started-incoming", 5.0), ("migration-completed", 50.0), ("resumed-migrated", 62.0)):
        times.take(kind, at)
    assert times.record(65.0) == Arrival(resume_ms=12.0, network_ms=3.0)
    assert times.record(None) == Arrival(resume_ms=12.0, network_ms=0.0)  # told while the guest stood still


def test_of_a_post_copy_and_of_what_was_not_seen_nothing_is_said() -> None:
    source, destination = SourceTimes(), DestinationTimes()
    assert [source.take(k, 1.0) for k in ("iteration", "suspended-postcopy", "migration-completed")] == [None] * 3
    destination.take("resumed-postcopy", 3.0)
    assert destination.record(4.0) is None
    assert SourceTimes().take("migration-completed", None) is None
    assert downtime(None, None) == Downtime(reason="no agent watched the switch-over")


@given(st.lists(st.tuples(st.sampled_from([k for k, _ in SOURCE]), st.none() | st.floats(0, 1e6)), max_size=12))
def test_no_order_of_events_makes_a_negative_or_invented_number(events: list[tuple[str, float | None]]) -> None:
    times = SourceTimes()
    for kind, at in events:
        record = times.take(kind, at)
        assert record is None or all(v is None or v >= 0 for v in record.to_data().values())
        assert record is None or "suspended-migrated" in [k for k, _ in events]


def test_the_report_puts_both_hosts_together() -> None:
    source, destination = good_source(), good_destination()
    source.write(Kind.NOTE, "M4", SwitchOver.entry, {"last_pass_ms": 90.0, "stop_ms": 4.0, "device_state_ms": 25.5})
    destination.write(Kind.NOTE, "M4", Arrival.entry, {"resume_ms": 12.0, "network_ms": 3.0})
    downtime = build_report(MIGRATION, [*source.entries, *destination.entries]).downtime
    assert downtime == Downtime(last_pass_ms=90, stop_ms=4, device_state_ms=25.5, resume_ms=12, network_ms=3)
    half = build_report(MIGRATION, source.entries).downtime
    assert (half.stop_ms, half.resume_ms, half.reason) == (4, None, "")
    assert build_report(MIGRATION, Book(Role.SOURCE).accepted().entries).downtime.reason


def test_a_stop_after_which_the_copy_goes_on_was_not_for_the_switch_over() -> None:
    """`virsh suspend` in mid-copy, as the lab's libvirt 11.3 and QEMU 10.0 told of it: as `suspended-migrated`."""
    seen = SourceTimes()
    events = [(STOPPED, 839_684.0), ("iteration", 840_873.0), ("iteration", 844_916.0), (DEVICE, 844_925.0)]
    assert [seen.take(*event) for event in [*events, ("iteration", 844_926.0)]] == [None] * 5
    record = seen.take(SENT, 845_006.0)
    assert record == SwitchOver(stop_ms=9.0, device_state_ms=81.0, paused_ms=5232.0)


def test_the_last_look_for_dirty_pages_comes_after_the_device_state_and_is_no_pause() -> None:
    seen = SourceTimes()
    for event in ((("iteration", 10.0)), (STOPPED, 100.0), (DEVICE, 104.0), ("iteration", 105.0)):
        seen.take(*event)
    assert seen.take(SENT, 130.0) == SwitchOver(last_pass_ms=90.0, stop_ms=4.0, device_state_ms=26.0)


def test_a_guest_that_was_resumed_before_its_switch_over_was_not_paused_for_it() -> None:
    seen = SourceTimes()
    for event in ((STOPPED, 100.0), ("iteration", 900.0), ("resumed", 1000.0), ("iteration", 1100.0)):
        seen.take(*event)
    for event in ((STOPPED, 2000.0), (DEVICE, 2004.0)):
        seen.take(*event)
    assert seen.take(SENT, 2030.0) == SwitchOver(last_pass_ms=900.0, stop_ms=4.0, device_state_ms=26.0)
