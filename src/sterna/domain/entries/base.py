"""The base of all that stands in a journal's entries, and the only place where it becomes JSON and comes back.

Other versions read the JSON: the next one, and after a downgrade the one before. So fields are added with a default
and never renamed. A version ignores the fields that it does not know.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field

from sterna.domain.journal import Entry, Kind
from sterna.domain.model import Data, Value


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


class Plan(Recorded):
    """The intent of a step: what it is about to do. `entry` is the step's name."""

    kind = Kind.INTENT


class Outcome(Recorded):
    """What came of a step. `entry` is the step's name."""

    kind = Kind.DONE


class NoPlan(Plan):
    """The intent of a step that has nothing to say beforehand."""

    entry = ""


class Done(Outcome):
    """The outcome of a step that has nothing to say afterwards."""

    entry = ""


def omitted(default: Any) -> Any:
    """A field that is left out of the JSON while it has its default."""
    return Field(default, exclude_if=lambda value: bool(value == default))
