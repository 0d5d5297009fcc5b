"""The base of all that stands in a journal's entries, and the only place where it becomes JSON and comes back.

Other versions read the JSON: the next one, and after a downgrade the one before. So fields are added with a default
and never renamed. A version ignores the fields that it does not know.
"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import ConfigDict

from sterna.domain.errors import SternaError
from sterna.domain.journal import Entry, Kind
from sterna.domain.model import Data, Value, omitted


class Recorded(Value):
    """The data of one kind of entry."""

    kind: ClassVar[Kind]
    entry: ClassVar[str]
    """The name of its entries. Never change it later."""

    def to_data(self) -> Data:
        """Plain JSON, for the journal."""
        return self.model_dump(mode="json")

    @classmethod
    def from_data(cls, data: Data) -> Self:
        """The inverse. Raises ValueError where something is missing, or of another type."""
        return cls.model_validate(data)

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """The same of an entry that is known to be one of these. Raises ValueError."""
        return cls.from_data(entry.data)

    @classmethod
    def of(cls, entry: Entry) -> Self | None:
        """What this entry carries, if it is one of these."""
        return cls.read(entry) if (entry.kind, entry.name) == (cls.kind, cls.entry) else None


class Failure(Value):
    """An error as it crosses the bus. What else a kind of error carries stays with it."""

    model_config = ConfigDict(extra="allow")

    code: str = ""
    message: str = ""
    fix: str = ""

    @classmethod
    def of(cls, error: SternaError) -> Self:
        """This error."""
        return cls.model_validate(error.to_wire())


class Plan(Recorded):
    """The intent of a step: what it is about to do. `entry` is the step's name."""

    kind = Kind.INTENT


class Outcome(Recorded):
    """What came of a step. `entry` is the step's name."""

    kind = Kind.DONE


class Note(Recorded):
    """Something seen or sent. `entry` is its name, or what the names of a family begin with."""

    kind = Kind.NOTE
    under: ClassVar[str] = ""
    """The row of the protocol under which it stands, '' for none."""
    family: ClassVar[bool] = False

    @classmethod
    def of(cls, entry: Entry) -> Self | None:
        """See Recorded.of; of a family, any of its notes."""
        if not cls.family:
            return super().of(entry)
        return cls.read(entry) if entry.kind is cls.kind and entry.name.startswith(cls.entry) else None

    @classmethod
    def about(cls, entry: Entry) -> str:
        """Which of its family it is."""
        return entry.name.removeprefix(cls.entry)


class StatusSet(Recorded):
    """A change of status; its name is the status."""

    kind, entry = Kind.STATUS, ""

    status: str = ""
    """A `Status`; a newer version may know another one."""
    reason: str = ""


class Failed(Recorded):
    """A try of a step failed; its name is the step's."""

    kind, entry = Kind.FAILED, ""

    error: Failure = Failure()
    final: bool = False
    """It is not tried again."""


class DirectionChanged(Recorded):
    """From here on the migration is compensated; or it had passed the pivot already, and goes forward again."""

    kind, entry = Kind.COMPENSATING, ""

    error: Failure | None = omitted(None)
    """Why it is compensated."""
    forward: str | None = omitted(None)
    """What showed that there is no way back."""


class NoPlan(Plan):
    """The intent of a step that has nothing to say beforehand."""

    entry = ""


class Done(Outcome):
    """The outcome of a step that has nothing to say afterwards."""

    entry = ""
