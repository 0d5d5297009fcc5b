"""What a host's journal may change about a VM: nothing, by a migration that it made up."""

from __future__ import annotations

import pytest

from sterna.domain.journal import Migration
from sterna.domain.model import GuestState
from sterna.domain.trust.bounds import Load
from sterna.domain.trust.journals import (
    MOST_BYTES_OF_A_HALF,
    MOST_REPORTED,
    MOST_REPORTED_BYTES,
    Place,
    is_full,
    may_begin_hold,
    may_end_there,
    may_hold,
    may_move,
    may_still_hold,
    place_for,
)

M = Migration(id="m", epoch=1, vm_uuid="v", vm_name="tern", source="host1", destination="host2")


@pytest.mark.parametrize(
    "vm_host, holder, may",
    [
        (None, None, True),  # the records are filled again
        ("host1", None, True),
        ("host1", "m", True),
        ("host9", "m", True),  # a controller has admitted it
        ("host2", None, False),  # it was elsewhere all the time
        ("host9", None, False),
        ("host1", "another", False),
    ],
)
def test_who_may_hold_a_vm(vm_host: str | None, holder: str | None, may: bool) -> None:
    assert may_hold(M, vm_host, holder) is may


@pytest.mark.parametrize(
    "vm_host, holder, accepted, may",
    [
        ("host1", "m", True, True),
        ("host1", "m", False, True),  # the destination's journal was read first
        ("host1", None, True, True),  # the source's end was read first
        ("host2", None, True, True),
        (None, None, True, True),
        (None, None, False, False),
        ("host1", None, False, False),  # the destination says so alone
        ("host9", None, True, False),  # two hosts lie
        ("host1", "another", True, False),
    ],
)
def test_who_may_move_it(vm_host: str | None, holder: str | None, accepted: bool, may: bool) -> None:
    assert may_move(M, vm_host, holder, accepted=accepted) is may


ON, PAUSED, OFF = GuestState.RUNNING, GuestState.PAUSED, GuestState.SHUTOFF


@pytest.mark.parametrize(
    ("seen", "begin", "still", "end"),
    [
        ({}, True, True, True),
        ({"host1": ON}, True, True, True),
        ({"host1": ON, "host2": PAUSED}, False, True, True),
        ({"host1": ON, "host2": ON}, False, False, True),
        ({"host2": OFF}, False, False, True),
        ({"host1": ON, "host9": ON}, False, False, False),
        ({"host1": ON, "host9": PAUSED}, False, False, False),
        ({"host1": ON, "host9": OFF}, False, False, False),
        ({"host1": ON, "host9": GuestState.UNKNOWN, "host2": GuestState.ABSENT}, True, True, True),
    ],
)
def test_what_hosts_list_speaks_against_a_migration_that_nobody_asked_for(
    seen: dict[str, GuestState], begin: bool, still: bool, end: bool
) -> None:
    assert (may_begin_hold(M, seen), may_still_hold(M, seen), may_end_there(M, seen)) == (begin, still, end)


def test_what_is_stored_of_such_migrations_is_bounded() -> None:
    assert not is_full(Load(MOST_REPORTED - 1, MOST_REPORTED_BYTES - 1))
    assert is_full(Load(MOST_REPORTED, 0)) and is_full(Load(0, MOST_REPORTED_BYTES))
    assert place_for(100, 0, None) is Place.STORED
    assert place_for(100, MOST_BYTES_OF_A_HALF, None) is Place.APPLIED
    assert place_for(100, 0, Load(1, MOST_REPORTED_BYTES - 100)) is Place.STORED
    assert place_for(100, 0, Load(1, MOST_REPORTED_BYTES)) is Place.DROPPED
