"""What a host's journal may change about a VM: nothing, by a migration that it made up."""

from __future__ import annotations

import pytest

from sterna.domain.journal import Migration
from sterna.domain.trust.journals import may_hold, may_move

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
