"""A timeline as a sequence of arrows and notes: what really happened, in the words of the protocol.

Four lifelines (shost, slibvirt, dhost, dlibvirt), one arrow per row that ran, labelled `P9 connect volumes (12
ms)`. What failed is marked, with the reason. Status changes and restarts are notes. Only what is in the journals is
there.
`diagram.py` writes it as PlantUML, `diagram_svg.py` as SVG.
"""

from __future__ import annotations

from collections.abc import Sequence

from sterna.domain.journal import Migration, Role
from sterna.domain.model import Data, Value
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
NETWORK = "network"
"""The lifeline of the network service."""


class Divider(Value):
    """A new part of the protocol begins."""

    text: str


class Arrow(Value):
    """One message, or work of one participant by itself."""

    sender: str
    receiver: str
    text: str
    returns: bool = False
    """It is the answer to a call."""
    casts: bool = False
    """Its sender does not wait."""
    failed: bool = False


class Note(Value):
    """A remark at one lifeline."""

    over: str
    text: str
    status: str = ""
    """The status that begins here; '' where it is about something else."""
    failed: bool = False


class Lifeline(Value):
    """Who takes part."""

    id: str
    name: str
    host: str = ""
    """Where it runs; '' for the network service."""


class Story(Value):
    """One migration's run. Texts are as they were recorded: whoever writes them escapes them."""

    vm: str
    source: str
    destination: str
    migration: str
    lifelines: tuple[Lifeline, ...]
    events: tuple[Divider | Arrow | Note, ...]


def _short(text: str) -> str:
    """Text from outside as one line, cut where it is very long."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"


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
        parts.append("agent restarted during this step")
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
    return _short(_message(error) or "no reason was recorded")


class _Sheet:
    """The story's events as they come."""

    def __init__(self) -> None:
        self.events: list[Divider | Arrow | Note] = []
        self.phase = ""
        self.answers: list[Arrow] = []
        """Answers of failed calls, drawn when the caller goes on."""
        self.looks: list[Data] = []
        """What M3 saw, summed up in one note."""
        self.network = ""
        """The network service that was asked; '' where there is none."""
        self.drawn: set[str] = set()
        """Rows that have their arrow; those that many entries are about are drawn once."""

    def divider(self, row: str) -> None:
        """Open the part of the protocol a row belongs to."""
        phase = phase_of(row)
        if phase and phase != self.phase:
            self.phase = phase
            self.events.append(Divider(text=_PHASES[phase]))

    def flush_answers(self) -> None:
        """The source goes on: failed calls have their answers by now."""
        self.events += self.answers
        self.answers = []

    def flush_looks(self) -> None:
        """Sum up what was seen of the copy."""
        facts = _seen_of_the_copy(self.looks)
        if facts:
            self.events.append(Note(over=Participant.SLIBVIRT, text=", ".join(facts)))
        self.looks = []

    def note(self, role: Role, text: str, *, status: str = "", failed: bool = False) -> None:
        """A remark at an agent's lifeline."""
        self.events.append(Note(over=_agent(role), text=text, status=status, failed=failed))

    def arrows(self, item: Item) -> None:
        """The row's arrows."""
        self.drawn.add(item.row)
        row = row_for(item.row, item.role, item.name)
        hops = row.hops
        failed = item.result is Result.FAILED
        label = f"{_short(f'{row.id} {row.label}')}{_remarks(item)}"
        answered = failed and row.how in (How.CALL, How.CAST) and hops[0][0] != hops[-1][1]
        for sender, receiver in hops:
            red = failed and not answered
            self.events.append(
                Arrow(
                    sender=sender,
                    receiver=receiver,
                    text=f"{label}: {_error_text(item.error)}" if red else label,
                    returns=row.how is How.RETURN,
                    casts=row.how is How.CAST,
                    failed=red,
                )
            )
        if answered:
            why = f"{_short(row.id)} failed: {_error_text(item.error)}"
            answer = Arrow(sender=hops[-1][1], receiver=hops[0][0], text=why, returns=True, failed=True)
            self.answers.append(answer)
        if not failed and item.error:
            self.note(item.role, f"{_short(row.id)} failed before: {_error_text(item.error)}", failed=True)

    def asked(self, item: Item) -> None:
        """The arrow to the network service, if the item's outcome names one."""
        self.network = str(item.data["network"])
        label = _ASKED.get(item.name, item.name.replace("-", " "))
        self.events.append(Arrow(sender=_agent(item.role), receiver=NETWORK, text=_short(label)))

    def remark(self, item: Item) -> None:
        """Something seen or sent: an answer is an arrow, M3 one arrow in all, the rest a note."""
        if item.row == "M3":
            self.looks.append(item.data)
        elif ROWS[item.row].how is not How.RETURN if item.row in ROWS else True:
            what, why = item.name.replace("-", " "), item.data.get("why") or _message(item.data.get("error"))
            text = f"{what}: {why}" if why and not what.startswith("waiting") else why or what
            self.note(item.role, _short(f"{item.row} {text}"))
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
                self.note(item.role, _short(item.reason), status=_short(item.status))
            case What.RESTART:
                self.note(item.role, "the agent was restarted", failed=True)
            case What.MARK:
                if item.error:
                    self.note(item.role, f"turned back: {_error_text(item.error)}", failed=True)


def _agent(role: Role) -> Participant:
    return Participant.SHOST if role is Role.SOURCE else Participant.DHOST


def story(migration: Migration, timeline: Sequence[Item]) -> Story:
    """One migration's run."""
    sheet = _Sheet()
    for item in timeline:
        sheet.take(item)
    sheet.flush_looks()
    sheet.flush_answers()
    source, destination = _short(migration.source), _short(migration.destination)
    lifelines = [
        Lifeline(id=one, name=one, host=host)
        for one, host in (
            (Participant.SHOST, source),
            (Participant.SLIBVIRT, source),
            (Participant.DHOST, destination),
            (Participant.DLIBVIRT, destination),
        )
    ]
    if sheet.network:
        lifelines.append(Lifeline(id=NETWORK, name=_short(sheet.network.capitalize())))
    return Story(
        vm=_short(migration.vm_name),
        source=source,
        destination=destination,
        migration=_short(migration.id),
        lifelines=tuple(lifelines),
        events=tuple(sheet.events),
    )
