"""A timeline as a PlantUML sequence diagram: what really happened, in the words of the protocol.

Four lifelines (shost, slibvirt, dhost, dlibvirt), one arrow per row that ran, labelled `P9 connect volumes (12
ms)`. What failed is red, with the reason; status changes and restarts are notes. Pure text in, text out: only what
is in the journals is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sterna.domain.journal import Migration, Role
from sterna.domain.model import Data
from sterna.domain.rows import ROWS, How, Participant, phase_of, row_for
from sterna.domain.timeline import Item, Result, What

_PHASES = {
    "P": "Phase 1: pre_live_migration",
    "M": "Phase 2: transfer",
    "F": "Phase 3: post_live_migration",
    "R": "Rollback",
}
_ASKED = {
    "prepare-bindings": "bind the ports to the destination (INACTIVE)",
    "read-network-info": "read the destination's bindings",
    "ports-switched": "activate the destination's bindings",
    "activate-bindings": "confirm, delete the source's bindings",
    "give-bindings-back": "activate the source's bindings again",
    "withdraw-destination-bindings": "delete the destination's bindings",
    "withdraw-bindings": "delete the destination's bindings",
}
"""What a step or note, by its name, has asked of the network service its outcome names."""
_MAX_TEXT = 160
"""Characters of an error shown on an arrow; the whole text is in the timeline."""


def _plain(text: str) -> str:
    """Text from outside as one line that PlantUML takes literally: no markup, no new lines, no directives."""
    line = " ".join(text.split())
    if len(line) > _MAX_TEXT:
        line = line[: _MAX_TEXT - 1] + "…"
    line = re.sub(r"[\\<>~%$\"]", lambda m: f"<U+{ord(m.group()):04X}>", line)
    return re.sub(r"([*/_\-^])(?=\1)", r"~\1", line)


def _duration(ms: float) -> str:
    if ms < 10:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"


def _remarks(item: Item) -> str:
    """What stands in brackets behind the label: duration, tries, restarts, how it stands."""
    parts = [_duration(item.duration_ms)] if item.duration_ms is not None else []
    if item.tries > 1:
        parts.append(f"{item.tries} tries")
    if item.restarts:
        parts.append("agent restarted meanwhile")
    if item.result in (Result.RUNNING, Result.RETRYING, Result.INTERRUPTED):
        parts.append({"running": "not finished"}.get(item.result.value, item.result.value))
    return f" ({', '.join(parts)})" if parts else ""


def _seen_of_the_copy(looks: Sequence[Data]) -> list[str]:
    facts = []
    iterations = [n for look in looks if (n := (look.get("sample") or look).get("iteration")) is not None]
    if iterations:
        facts.append(f"iterations: {max(iterations)}")
    last: Data = next((look["sample"] for look in reversed(looks) if look.get("sample")), {})
    if last.get("memory_processed") is not None:
        facts.append(f"{last['memory_processed'] / 2**20:.0f} MiB of memory sent")
    if last.get("disk_processed"):
        facts.append(f"{last['disk_processed'] / 2**20:.0f} MiB of disks sent")
    return facts


def _message(error: Data | None) -> str:
    return str((error or {}).get("message", ""))


def _error_text(error: Data | None) -> str:
    return _plain(_message(error) or "no reason was recorded")


class _Sheet:
    """The diagram's lines as they come."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.phase = ""
        self.answers: list[str] = []
        """Red answers of failed calls, drawn when the caller goes on."""
        self.looks: list[Data] = []
        """What M3 saw, summed up in one note."""
        self.network = ""
        """The network service that was asked; '' where there is none."""
        self.drawn: set[str] = set()
        """Rows that have their arrow; those that many entries are about are drawn once."""

    def divider(self, row: str) -> None:
        """Open the part of the diagram a row belongs to."""
        phase = phase_of(row)
        if phase and phase != self.phase:
            self.phase = phase
            self.lines.append(f"== {_PHASES[phase]} ==")

    def flush_answers(self) -> None:
        """The source goes on: failed calls have their answers by now."""
        self.lines += self.answers
        self.answers = []

    def flush_looks(self) -> None:
        """Sum up what was seen of the copy."""
        facts = _seen_of_the_copy(self.looks)
        if facts:
            self.lines.append(f"note over slibvirt : {', '.join(facts)}")
        self.looks = []

    def note(self, role: Role, text: str, *, red: bool = False) -> None:
        """A remark at an agent's lifeline."""
        who = Participant.SHOST if role is Role.SOURCE else Participant.DHOST
        self.lines.append(f"note over {who}{' #FFCCCC' if red else ''} : {text}")

    def arrows(self, item: Item) -> None:
        """The row's arrows."""
        self.drawn.add(item.row)
        row = row_for(item.row, item.role, item.name)
        hops = row.hops
        failed = item.result is Result.FAILED
        label = f"{_plain(f'{row.id} {row.label}')}{_remarks(item)}"
        answered = failed and row.how in (How.CALL, How.CAST) and hops[0][0] != hops[-1][1]
        for sender, receiver in hops:
            red = failed and not answered
            head = ">>" if row.how is How.CAST else ">"
            line = "--" if row.how is How.RETURN else "-"
            arrow = f"{line}[#red]{head}" if red else f"{line}{head}"
            text = f"<color:red>{label}: {_error_text(item.error)}</color>" if red else label
            self.lines.append(f"{sender} {arrow} {receiver} : {text}")
        if answered:
            back = f"{hops[-1][1]} --[#red]> {hops[0][0]}"
            self.answers.append(f"{back} : <color:red>{_plain(row.id)} failed: {_error_text(item.error)}</color>")
        if not failed and item.error:
            self.note(item.role, f"{_plain(row.id)} failed before: {_error_text(item.error)}", red=True)

    def asked(self, item: Item) -> None:
        """The arrow to the network service, if the item's outcome names one."""
        self.network = str(item.data["network"])
        who = Participant.SHOST if item.role is Role.SOURCE else Participant.DHOST
        label = _ASKED.get(item.name, item.name.replace("-", " "))
        self.lines.append(f"{who} -> network : {_plain(label)}")

    def remark(self, item: Item) -> None:
        """Something seen or sent: an answer is an arrow, M3 one arrow in all, the rest a note."""
        if item.row == "M3":
            self.looks.append(item.data)
        elif ROWS[item.row].how is not How.RETURN if item.row in ROWS else True:
            what, why = item.name.replace("-", " "), item.data.get("why") or _message(item.data.get("error"))
            text = f"{what}: {why}" if why and not what.startswith("waiting") else why or what
            self.note(item.role, _plain(f"{item.row} {text}"))
            return
        if item.row not in self.drawn:
            self.divider(item.row)
            self.arrows(item)

    def take(self, item: Item) -> None:
        """Draw one line of the timeline."""
        if item.row != "M3":
            self.flush_looks()
        if item.role is Role.SOURCE:
            self.flush_answers()
        match item.what:
            case What.STEP:
                self.divider(item.row)
                self.arrows(item)
                if item.data.get("network"):
                    self.asked(item)
            case What.NOTE if item.data.get("network"):
                self.asked(item)
            case What.NOTE:
                self.remark(item)
            case What.STATUS:
                reason = f"\\n{_plain(item.reason)}" if item.reason else ""
                self.note(item.role, f"status **{_plain(item.status)}**{reason}")
            case What.RESTART:
                self.note(item.role, "the agent was restarted", red=True)
            case What.MARK:
                if item.error:
                    self.note(item.role, f"turned back: {_error_text(item.error)}", red=True)


def draw(migration: Migration, timeline: Sequence[Item]) -> str:
    """PlantUML source of one migration's run, `@startuml` to `@enduml`."""
    sheet = _Sheet()
    for item in timeline:
        sheet.take(item)
    sheet.flush_looks()
    sheet.flush_answers()
    source, destination = _plain(migration.source), _plain(migration.destination)
    head = [
        "@startuml",
        f"title {_plain(migration.vm_name)} from {source} to {destination}\\nmigration {_plain(migration.id)}",
        f'participant "shost\\n{source}" as shost',
        f'participant "slibvirt\\n{source}" as slibvirt',
        f'participant "dhost\\n{destination}" as dhost',
        f'participant "dlibvirt\\n{destination}" as dlibvirt',
    ]
    if sheet.network:
        head.append(f'participant "{_plain(sheet.network.capitalize())}" as network')
    return "\n".join([*head, *sheet.lines, "@enduml"]) + "\n"
