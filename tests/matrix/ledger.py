"""The auditor of the journals: what a host does must stand in its journal first, and what was done afterwards.

It reads the journals' raw lines as they would be on disk, never Sterna's own idea of them, and is asked at every
moment at which something acts: a step, a change of the world, a message. Its tables of the protocol's rows
are its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sterna.migration import flow
from sterna.sim.simulation import SimWorld
from sterna.sim.world.things import Change
from tests.matrix.memory_journal import MemoryJournal

COMPLETED = {
    "source": ["P1", "P2", "P3", "P12", "M1", "M2", "M4", "F1", "F2", "F3", "F4", "F5", "F10", "F10", "F11"],
    "destination": ["P4", "P5", "P6", "P7", "P8", "P8", "P9", "P9", "P10", "F6", "F7", "F8", "F9"],
}
"""The rows each side of a completed migration has done, in this order."""
UNDONE_BY = {
    "P3": ("R2", "R3", "R4"), "P4": ("R3",), "P5": ("R6",), "P8": ("R7",), "P9": ("R3",), "P10": ("R6",),
    "M4": ("R6",),
}  # fmt: skip
"""What a row that was begun needs in a rollback, on the side that began it."""
ROLLED_BACK = {"source": ("R0", "R1", "R8"), "destination": ("R5",)}
"""What every rollback needs besides."""
UNASKED = {
    "-": ("vif.unplug", "storage.sweep_tokens", "vif.announce"),  # housekeeping; the news of an arrival
    "call start_migration": ("storage.leave_token", "storage.drop_token"),  # a check, before anything is accepted
    "call check_migration": ("storage.leave_token", "storage.drop_token"),
}
"""What may be done outside of any step, by where it is done: the broom, and the look at what is shared."""
QUESTIONS = ("migration_fate", "migration_ending", "observe_guest", "describe_host", "secrets_wanted")
"""Calls that change nothing: anybody may ask."""
ON_BEHALF = {
    "call end_incoming": "ask-both-hypervisors",
    "call open_recovery": "copy",
    "call listen_again": "copy",
    "call end_lost": "copy",
    "call make_way": "make-way",
}
"""Done for a step of the other side, whose journal has the intent."""


READS_ONLY = {
    step.name
    for listed in (flow.SOURCE, flow.DESTINATION, flow.DESTINATION_POST)
    for known in (*listed.until_pivot, *listed.after_pivot, *listed.before_undo, *listed.after_undo)
    for step in (known, *known.undo)
    if step.reads_only
}


@dataclass
class Story:
    """What one journal says of one migration so far."""

    open: dict[str, str] = field(default_factory=dict)
    """Step -> the agent's life that wrote it, of every intent without an outcome."""
    abandoned: set[str] = field(default_factory=set)
    """Those that failed, or were open when the migration turned round: they need no other outcome."""
    begun: set[str] = field(default_factory=set)
    """Rows."""
    done: list[str] = field(default_factory=list)
    """Rows, in order."""
    notes: set[str] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    """Step -> the outcome's text."""
    turned: bool = False


class Ledger:
    """Reads along in every host's journal."""

    def __init__(self, world: SimWorld, journals: dict[str, MemoryJournal], find: Callable[[str], None]) -> None:
        self._world, self._journals, self._find = world, journals, find
        self._read: dict[str, int] = dict.fromkeys(journals, 0)
        self._stories: dict[str, dict[str, Story]] = {host: {} for host in journals}

    # ------------------------------------------------------------ moments

    def begins(self, host: str, step: str, life: str) -> None:
        """A step is about to act here: its intent is on disk, and so is the outcome of the one before.

        A step that a death interrupted has its outcome when its turn comes again. One that only reads may begin
        with both still to be written; if it changed anything all the same, `changed` would find it.
        """
        if step in READS_ONLY:
            return
        self._must_be_intended(host, step, "acts")
        for story in self._of(host):
            if step not in story.open:
                continue
            for other, writer in story.open.items():
                if other != step and other not in story.abandoned and writer == life:
                    self._find(f"{host}: {step} begins, and the journal has no outcome of {other}")

    def changed(self, host: str, label: str, change: Change) -> None:
        """A port call of `host`, made in `label` (`STEP/port.method`), has changed the world."""
        step, _, call = label.partition("/")
        what = f"changes {change.what} {change.subject} ({change.detail}) in {call}"
        if call in UNASKED.get(step, ()):
            return
        if call == "network.switch" and any("guest-ran-here" in story.notes for story in self._of(host)):
            return  # the guest's arrival, which is in the journal
        if step in ON_BEHALF:
            if not any(ON_BEHALF[step] in s.open for other in self._journals for s in self._of(other)):
                self._find(f"{host}: {what}, and no journal has an intent of {ON_BEHALF[step]}")
            return
        self._must_be_intended(host, step, what)

    def job_started(self, host: str) -> None:
        """libvirt begins to copy: the journal must know that it was asked to."""
        if not any("copy-started" in s.notes for s in self._of(host)):
            self._find(f"{host}: libvirt copies, and the journal does not say that it was asked to")

    def calls(self, host: str, step: str, label: str) -> None:
        """A call leaves `host`, made by `step`."""
        if host in self._journals and step not in UNASKED and label.removeprefix("call ") not in QUESTIONS:
            self._must_be_intended(host, step, f"sends {label}")

    def casts(self, host: str, envelope: str) -> None:
        """A cast leaves `host`: it must be in its outbox."""
        if not self._journals[host].casts_out.get(envelope, ("", ""))[1]:
            self._find(f"{host}: sends cast {envelope}, and the outbox does not have it")

    def acknowledges(self, host: str, envelope: str) -> None:
        """`host` says that it has a cast: it must be in its inbox."""
        if envelope not in self._journals[host].casts_in:
            self._find(f"{host}: acknowledges cast {envelope}, and the inbox does not have it")

    def awaited(self, host: str, life: str) -> Iterator[str]:
        """Steps whose outcome this life of the agent still owes its journal."""
        for story in self._of(host):
            for step, writer in story.open.items():
                if step not in story.abandoned and writer == life:
                    yield step

    # ------------------------------------------------------------ reading

    def read(self, host: str) -> None:
        """Take in what was written since the last look."""
        book = self._journals[host]
        lines = book.lines
        while self._read[host] < len(lines):
            line = lines[self._read[host]]
            self._read[host] += 1
            story = self._stories[host].setdefault(str(line["migration_id"]), Story())
            _take(story, line)
            if line["kind"] == "released" and story.turned:
                self._released(host, str(line["migration_id"]), story)
            held = self._journals[host].pages[str(line["migration_id"])].held
            if held and line["kind"] == "done" and line["row"] in ("R8", "F11"):
                self._find(f"{host}: {line['row']} is done, and the VM is not free")
            if line["kind"] == "closed":
                self._closed(host, str(line["migration_id"]), story)

    def _of(self, host: str) -> list[Story]:
        self.read(host)
        return list(self._stories[host].values())

    def _must_be_intended(self, host: str, step: str, what: str) -> None:
        if not any(step in story.open for story in self._of(host)):
            self._find(f"{host}: {step} {what}, and the journal has no open intent of it")

    # ------------------------------------------------------------ promises

    def _closed(self, host: str, migration: str, story: Story) -> None:
        """Nothing is left to do here: every row of the protocol is done."""
        page = self._journals[host].pages[migration]
        side = str(page.role)
        if not story.turned:
            done = [row for row in story.done if row in COMPLETED[side]]
            if side == "source" and "F9" not in self._there(host, migration).done:
                self._find(f"{host}: closed as completed before the destination was")
            if done != COMPLETED[side]:
                self._find(f"{host}: closed as completed {side} with {' '.join(done)}")
            return
        needed = {row for begun in story.begun for row in UNDONE_BY.get(begun, ())} | {*ROLLED_BACK[side]}
        there = self._there(host, migration)
        if side == "source" and there.begun and "closed" not in there.notes:
            self._find(f"{host}: closed as rolled back before the destination was")
        if missing := needed - {*story.done}:
            self._find(f"{host}: closed as rolled-back {side} without {' '.join(sorted(missing))}")

    def _there(self, host: str, migration: str) -> Story:
        """The same migration as its destination's journal tells it."""
        other = json.loads(self._journals[host].pages[migration].body)["destination"]
        self.read(other)
        return self._stories[other].get(migration, Story())

    def _released(self, host: str, migration: str, story: Story) -> None:
        """R8 after R3's call: the VM is free again, and the destination has let go of its volumes.

        Unless the journal says that the destination could not be asked.
        """
        if '"deferred"' in story.outcomes.get("remove-volume-connection", ""):
            return
        page = json.loads(self._journals[host].pages[migration].body)
        there = self._world.hosts[page["destination"]]
        domain = self._world.hosts[host].domains.get(page["vm_uuid"])
        disks = domain.definition.disks if domain is not None else ()
        for target in (d.iscsi.target for d in disks if d.iscsi is not None):
            if there.initiator in self._world.iscsi.targets[target].admitted:
                self._find(f"{host}: the VM is released, and {there.name} is still admitted to {target}")


def _take(story: Story, line: dict[str, object]) -> None:
    kind, name, row, text = (str(line[key]) for key in ("kind", "name", "row", "text"))
    match kind:
        case "intent":
            story.open[name] = str(line["boot"])
            story.begun.add(row)
        case "done":
            story.open.pop(name, None)
            story.abandoned.discard(name)
            story.done.append(row)
            story.outcomes[name] = text
        case "failed":
            story.abandoned.add(name)  # an outcome; it may be tried again under the same intent
        case "turned":
            story.turned = "forward" not in json.loads(text)
            story.abandoned |= story.open.keys()
        case "note":
            story.notes.add(name)
        case "closed":
            story.notes.add("closed")
