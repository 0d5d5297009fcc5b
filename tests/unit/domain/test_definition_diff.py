"""What is different in a definition after a migration, in words, from the journal of the source. Pure."""

from __future__ import annotations

import pytest

from sterna.domain.copying import DestinationNic
from sterna.domain.definition_changes import (
    UNKNOWN,
    DefinitionChange,
    DefinitionChanges,
    element,
    place_of,
    reason_of,
)
from sterna.domain.definition_diff import DefinitionDiff, definition_diff
from sterna.domain.entries.notes import CopyStarted
from sterna.domain.entries.source import Answer, Snapshot
from sterna.domain.journal import Kind, Role
from sterna.domain.model import GuestState, Nic, Vm
from sterna.domain.plugs import HOSTDEV
from sterna.domain.status import Status
from tests.unit.domain.journals import MIGRATION, Book

BRIDGE = DefinitionChange(where="devices/interface[52:54:00:00:00:01]/source/@bridge", before="br0", after="br1")
TAP = DefinitionChange(where="devices/interface[52:54:00:00:00:01]/target/@dev", before="vnet3", after="tap7")
CHANGES = DefinitionChanges(live=(BRIDGE, TAP), persistent=(BRIDGE,))


def begun(changes: DefinitionChanges | None = CHANGES) -> Book:
    data = CopyStarted(changes=changes).to_data()
    return Book(Role.SOURCE).accepted().write(Kind.NOTE, "M3", "copy-started", data)


def diff_of(book: Book, status: Status = Status.COMPLETED) -> DefinitionDiff:
    return definition_diff(MIGRATION, status, book.entries)


def test_what_is_the_same_in_both_definitions_is_said_once_with_its_reason() -> None:
    found = diff_of(begun())
    assert found.recorded and found.left_out == 0 and found.notes == () and found.edited == ""
    assert [(one.where, one.live, one.persistent) for one in found.differences] == [
        (BRIDGE.where, True, True),
        (TAP.where, True, False),
    ]
    assert [one.reason for one in found.differences] == [reason_of(BRIDGE.where), reason_of(TAP.where)]
    assert found.summary == "2 differences between the definition on a and the one that b was given"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.MIGRATING, "2 differences between the definition on a and the one that b is given"),
        (Status.POST_COPY, "2 differences between the definition on a and the one that b was given"),
        (Status.FAILED, "the VM stayed on a, its definition unchanged; b was given one with 2 differences"),
        (Status.CANCELLED, "the VM stayed on a, its definition unchanged; b was given one with 2 differences"),
        (Status.ERROR, "2 differences between the definition on a and the one that b is given"),
    ],
)
def test_which_definition_counts_depends_on_where_the_guest_is(status: Status, words: str) -> None:
    assert diff_of(begun(), status).summary == words


def test_no_difference_is_an_answer() -> None:
    found = diff_of(begun(DefinitionChanges(persistent=())))
    assert found.recorded and found.summary.startswith("no difference between")
    assert "1 difference between" in diff_of(begun(DefinitionChanges(live=(TAP,)))).summary
    assert "42 differences" in diff_of(begun(DefinitionChanges(live=(TAP,), left_out=41))).summary


@pytest.mark.parametrize(
    ("book", "status", "words"),
    [
        (Book(Role.SOURCE).accepted(), Status.PREPARING, "the copy has not begun"),
        (Book(Role.SOURCE).accepted(), Status.CANCELLED, "ended before its copy"),
        (Book(Role.SOURCE).accepted(), Status.FAILED, "ended before its copy"),
        (Book(Role.SOURCE).accepted(), Status.COMPLETED, "earlier version"),
        (begun(None), Status.COMPLETED, "earlier version"),
        (begun(None), Status.MIGRATING, "earlier version"),
    ],
)
def test_where_nothing_is_recorded_it_is_said_why(book: Book, status: Status, words: str) -> None:
    found = diff_of(book, status)
    assert not found.recorded and found.differences == () and words in found.summary


def test_a_virtual_function_of_the_destination_is_the_running_guests() -> None:
    nic = Nic(mac="52:54:00:00:00:0B", plug=HOSTDEV, pci="0000:81:02.1")
    vm = Vm(uuid="1", name="web1", state=GuestState.RUNNING, memory_bytes=2**30, vcpus=1, nics=(nic,))
    plug = DestinationNic(mac="52:54:00:00:00:0b", plug=HOSTDEV, pci="0000:81:02.4")
    book = begun(DefinitionChanges())
    book.write(Kind.DONE, "P2", "snapshot-volumes", Snapshot(vm=vm).to_data())
    answer = Answer(disks=(), nics=(plug,), address="10.0.0.2").model_dump(mode="json")
    book.write(Kind.NOTE, "P11", "pre-live-migration-result", answer)
    (only,) = diff_of(book).differences
    assert (only.before, only.after, only.live, only.persistent) == (nic.pci, plug.pci, True, False)
    assert only.reason == "a virtual function of the destination"


@pytest.mark.parametrize("recorded", [CHANGES, None])
def test_what_others_changed_is_said_too(recorded: DefinitionChanges | None) -> None:
    book = begun(recorded)
    book.write(Kind.NOTE, "F10", "definition-edited", {"text": "<domain/>"})
    book.write(Kind.NOTE, "R8", "changed-meanwhile", {"what": ["its memory"]})
    found = diff_of(book)
    assert found.edited == "<domain/>"
    assert "b has it without that change" in found.notes[0] and "its memory" in found.notes[1]


def test_the_journal_of_the_destination_says_nothing_about_it() -> None:
    book = begun()
    other = Book(Role.DESTINATION).accepted().write(Kind.NOTE, "M3", "copy-started", {"changes": {"live": []}})
    assert definition_diff(MIGRATION, Status.COMPLETED, [*book.entries, *other.entries]) == diff_of(book)


def test_a_place_has_the_reason_of_the_nearest_place_that_has_one() -> None:
    assert place_of("devices/disk[vda]/source/host[2]/@name") == "devices/disk/source/host/@name"
    assert reason_of("devices/disk[vda]/source/host[2]/@name") == reason_of("devices/disk/source/host")
    assert reason_of("devices/serial[1]/source/@host") == reason_of("devices/graphics/@listen")
    assert reason_of("memory/text()") == UNKNOWN
    assert reason_of(f"devices/{element('disk', 'a]/[b')}/source/@file") == "the disk's path on the destination"
