"""Steps, flows, and the decision "given the journal, what next?".

It is here because `migration/` defines steps, `saga/` runs them, and neither may import the other. Everything is
pure: running a saga after a crash is the same as running it for the first time, with a longer history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from sterna.domain.entries.base import DirectionChanged, Done, Failure, NoPlan, Outcome, Plan, Recorded, StatusSet
from sterna.domain.journal import Entry, Kind
from sterna.domain.model import Data

C = TypeVar("C")
P = TypeVar("P", bound=Plan)
O = TypeVar("O", bound=Outcome)  # noqa: E741 - an outcome
R = TypeVar("R", bound=Recorded)


class PivotPassed(Exception):
    """Raised by a compensation's step that finds the pivot passed after all: there is no way back from there, so
    the flow goes forward again. Its message is what was seen."""


class Step(Generic[C, P, O]):
    """One row of the protocol (or a few) as something that can be done, looked at, and compensated.

    Before `do` acts its intent (`plan`'s answer) is in the journal; afterwards its outcome is. `do` may be
    repeated after any partial run. `undo` names the steps that compensate it; they too are steps, journaled
    and retried like any other, and must cope with a `do` that stopped anywhere.

    The types of both are its parameters: `Step[Context, VolumesToAttach, VolumesAttached]`. `NoPlan` and `Done`
    have no fields.

    `do` raises Temporary or Unknown (tried again within `patience_s`) or Permanent (compensate). Past the pivot and
    in compensation every error is retried, for as long as it takes.
    """

    row: ClassVar[str] = ""
    """Row of the protocol, '' for what the protocol leaves open."""
    name: ClassVar[str]
    """Key in the journal, and what it does in words: `connect-volumes`."""
    undo: ClassVar[tuple[type[Step[C, Any, Any]], ...]] = ()
    patience_s: ClassVar[float] = 30.0
    """How long Temporary errors are retried before the pivot, in seconds from the first one."""
    reads_only: ClassVar[bool] = False
    """It changes nothing, waits for nothing and has no undo: its intent need not be on disk before it begins."""
    settles_abort: ClassVar[bool] = False
    """Once begun, an abort is this step's own affair: the world may have gone on, so that it has to look first."""

    intent: ClassVar[type[Plan]] = NoPlan
    """What `plan` returns."""
    outcome: ClassVar[type[Outcome]] = Done
    """What `do` returns."""

    def __init_subclass__(cls) -> None:
        """Take both types from the parameters. Raises TypeError where they belong to another step."""
        super().__init_subclass__()
        for base in cls.__dict__.get("__orig_bases__", ()):
            if get_origin(base) is Step:
                _, cls.intent, cls.outcome = get_args(base)
        for data in (cls.intent, cls.outcome):
            if data.entry not in ("", getattr(cls, "name", data.entry)):
                raise TypeError(f"{cls.__name__} is {cls.name}, and {data.__name__} belongs to {data.entry}")

    async def plan(self, ctx: C) -> P:
        """What is about to be done, read-only: the intent. On a repeat the first intent is kept."""
        return self.read_intent({})

    def read_intent(self, data: Data) -> P:
        """The intent, from the journal. Raises ValueError."""
        intent: Any = self.intent
        plan: P = intent.from_data(data)
        return plan

    async def do(self, ctx: C, plan: P) -> O:
        """Do it; the outcome."""
        raise NotImplementedError(self.name)

    def lasts(self, ctx: C) -> bool:
        """Does it go on now for as long as things go well, hours perhaps? Earlier failures then no longer count:
        patience begins again with an error that comes later than `patience_s` after its attempt began. A step that
        hangs takes long as well: True only where it knows that things went well.
        """
        return False


@dataclass(frozen=True)
class Flow(Generic[C]):
    """A saga's table of contents.

    `until_pivot` is compensated on failure; `after_pivot` only goes forward. `before_undo` and `after_undo`
    frame every compensation, whatever had been begun.
    """

    until_pivot: tuple[type[Step[C, Any, Any]], ...]
    after_pivot: tuple[type[Step[C, Any, Any]], ...] = ()
    before_undo: tuple[type[Step[C, Any, Any]], ...] = ()
    after_undo: tuple[type[Step[C, Any, Any]], ...] = ()

    def compensation(self, begun: Iterable[str]) -> tuple[type[Step[C, Any, Any]], ...]:
        """What undoes the steps whose intent is in the journal, latest first."""
        names = set(begun)
        undone = tuple(u for s in reversed(self.until_pivot) if s.name in names for u in s.undo)
        return self.before_undo + undone + self.after_undo

    def remaining(self, history: History) -> tuple[type[Step[C, Any, Any]], ...]:
        """What is still to be done, in order, from wherever the history ends."""
        if history.turned_back is not None:
            steps = self.compensation(history.plans)
        else:
            steps = self.until_pivot + self.after_pivot
        return tuple(s for s in steps if s.name not in history.results)


@dataclass
class History:
    """One host's journal of one migration so far."""

    results: dict[str, Data] = field(default_factory=dict)
    """Outcome of each finished step, by name."""
    plans: dict[str, Data] = field(default_factory=dict)
    """Intent of each step begun, by name: finished or not."""
    turned_back: Data | None = None
    """Why it is being compensated; None while it goes forward."""
    notes: dict[str, Data] = field(default_factory=dict)
    """The last note of each name."""
    status: str | None = None
    released: bool = False
    closed: bool = False

    @property
    def failure(self) -> Failure:
        """The error that turned it back; an empty one while it goes forward."""
        return DirectionChanged.from_data(self.turned_back or {}).error or Failure()

    def has(self, what: type[Recorded], about: str = "") -> bool:
        """Is there an entry of this kind and name? `about`: of a family of notes, which one."""
        return what.entry + about in self._data(what)

    def find(self, what: type[R], about: str = "") -> R | None:
        """What that entry carries, of several the one that counts; None where there is none."""
        data = self._data(what).get(what.entry + about)
        return None if data is None else what.from_data(data)

    def get(self, what: type[R], about: str = "") -> R:
        """The same, where it must be there. Raises KeyError."""
        return what.from_data(self._data(what)[what.entry + about])

    def _data(self, what: type[Recorded]) -> Mapping[str, Data]:
        return {Kind.INTENT: self.plans, Kind.DONE: self.results, Kind.NOTE: self.notes}[what.kind]

    @classmethod
    def read(cls, entries: Iterable[Entry]) -> History:
        """The history of these entries."""
        history = cls()
        for entry in entries:
            history.add(entry)
        return history

    def add(self, entry: Entry) -> None:
        """One more entry."""
        if entry.kind is Kind.INTENT:
            self.plans.setdefault(entry.name, entry.data)
        elif entry.kind is Kind.DONE:
            self.results[entry.name] = entry.data
        elif entry.kind is Kind.COMPENSATING:
            forward = DirectionChanged.read(entry).forward
            self.turned_back = (self.turned_back or entry.data) if forward is None else None
        elif entry.kind is Kind.NOTE:
            self.notes[entry.name] = entry.data
        elif entry.kind is Kind.STATUS:
            self.status = StatusSet.read(entry).status
        elif entry.kind is Kind.RELEASED:
            self.released = True
        elif entry.kind is Kind.CLOSED:
            self.closed = True
