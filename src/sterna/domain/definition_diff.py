"""What is different in a VM's definition after a migration, with the reasons: from the journal of the source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sterna.domain.definition_changes import DefinitionChange, DefinitionChanges, element, reason_of
from sterna.domain.entries.notes import AnswerReceived, ChangedMeanwhile, CopyStarted, DefinitionEdited
from sterna.domain.entries.source import Snapshot
from sterna.domain.journal import Entry, Migration, Role
from sterna.domain.model import Data, Value
from sterna.domain.plugs import plug_type
from sterna.domain.status import Status
from sterna.domain.step import History


class Difference(Value):
    """One place in which the definitions differ."""

    where: str
    before: str = ""
    after: str = ""
    live: bool = False
    """In the definition of the running guest."""
    persistent: bool = False
    """In the definition of its next start."""
    reason: str


class DefinitionDiff(Value):
    """All of them, and what is to be known about them."""

    recorded: bool
    """False: it is not known whether there are any. `summary` says why."""
    summary: str
    differences: tuple[Difference, ...] = ()
    left_out: int = 0
    """Places that were not recorded, as there were too many."""
    notes: tuple[str, ...] = ()
    """What others than Sterna changed."""
    edited: str = ""
    """The persistent definition as somebody edited it on the source during the migration; '' where nobody did."""


def definition_diff(migration: Migration, status: Status, entries: Iterable[Entry]) -> DefinitionDiff:
    """As far as the journal of the source has been read."""
    history = History.read(sorted((e for e in entries if e.role is Role.SOURCE), key=lambda e: e.seq))
    begun, edited = history.find(CopyStarted), history.find(DefinitionEdited)
    also: Data = {"notes": tuple(_notes(migration, history)), "edited": edited.text if edited is not None else ""}
    changes = begun.changes if begun is not None else None
    if changes is None:
        return DefinitionDiff(recorded=False, summary=_not_recorded(migration, status, begun is not None), **also)
    found = _merged(changes, list(_functions(history)))
    summary = _summary(migration, status, len(found) + changes.left_out)
    return DefinitionDiff(recorded=True, summary=summary, differences=found, left_out=changes.left_out, **also)


def _merged(changes: DefinitionChanges, functions: list[DefinitionChange]) -> tuple[Difference, ...]:
    """What is the same in both definitions is one difference. Those of the running guest come first."""
    live, persistent = [*changes.live, *functions], changes.persistent or ()
    return tuple(
        Difference(
            **change.model_dump(),
            live=change in live,
            persistent=change in persistent,
            reason=reason_of(change.where),
        )
        for change in dict.fromkeys((*live, *persistent))
    )


def _functions(history: History) -> Iterator[DefinitionChange]:
    """Virtual functions: the running guest has none during the copy, and gets one of the destination after it."""
    snapshot, answer = history.find(Snapshot), history.find(AnswerReceived)
    there = {nic.mac.lower(): nic.pci for nic in answer.nics if nic.pci} if answer is not None else {}
    for nic in snapshot.vm.nics if snapshot is not None else ():
        after = there.get(nic.mac.lower())
        if plug_type(nic).hot_unplugged and nic.pci and after and nic.pci != after:
            where = f"devices/{element('interface', f'{nic.mac.lower()} function')}/source/address"
            yield DefinitionChange(where=where, before=nic.pci, after=after)


def _summary(migration: Migration, status: Status, number: int) -> str:
    source, destination = migration.source, migration.destination
    many = f"{number} difference{'' if number == 1 else 's'}" if number else "no difference"
    if status.owner == "destination":
        return f"{many} between the definition on {source} and the one that {destination} was given"
    if status.final:
        return f"the VM stayed on {source}, its definition unchanged; {destination} was given one with {many}"
    return f"{many} between the definition on {source} and the one that {destination} is given"


def _not_recorded(migration: Migration, status: Status, begun: bool) -> str:
    source, destination = migration.source, migration.destination
    if not begun and not status.final and status.owner == "source":
        return f"the copy has not begun: {destination} has not been given a definition yet"
    if not begun and status in (Status.FAILED, Status.CANCELLED):
        return f"the migration ended before its copy: {destination} was not given a definition"
    return (
        f"the differences were not recorded: the agent on {source} had an earlier version of Sterna, or its "
        "libvirt did not return the definition before the copy"
    )


def _notes(migration: Migration, history: History) -> Iterator[str]:
    source, destination = migration.source, migration.destination
    if history.has(DefinitionEdited):
        yield (
            f"somebody changed the VM's definition on {source} during the migration, and {destination} has it "
            "without that change"
        )
    if (meanwhile := history.find(ChangedMeanwhile)) and meanwhile.what:
        yield f"others changed the VM on {source} until the rollback: {'; '.join(meanwhile.what)}"
