"""The `Step` protocol: lives here because `migration/` writes steps, `saga/` runs them, and they may not meet."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from sterna.domain.model import Data

C = TypeVar("C")


class Step(Generic[C]):
    """One row (or a few) of SPEC, as something that can be done, looked at, and compensated.

    Before `do` acts its intent (`plan`'s answer) is in the journal; afterwards its outcome is. `do` may be
    repeated after any partial run. `undo` names the steps that compensate it; they too are steps, journaled
    and retried like any other, and must cope with a `do` that stopped anywhere.

    `do` raises Temporary (tried again within `patience_s`), Permanent (compensate), or Unknown (probe, then
    as Temporary). Past the pivot and in compensation every error is retried, for as long as it takes.
    """

    row: ClassVar[str]
    """SPEC row, the step's key in the journal."""
    name: ClassVar[str]
    """What it does, in words for the timeline."""
    undo: ClassVar[tuple[type[Step[C]], ...]] = ()
    patience_s: ClassVar[float] = 30.0
    """How long Temporary errors are retried before the pivot."""

    async def plan(self, ctx: C) -> Data:
        """What is about to be done, read-only: the intent's data. On a repeat the first intent is kept."""
        return {}

    async def do(self, ctx: C, plan: Data) -> Data:
        """Do it; the outcome's data."""
        raise NotImplementedError  # pragma: no cover - every step overrides it

    async def probe(self, ctx: C, plan: Data) -> Data | None:
        """After an interruption: what is true in the world now? The outcome's data if the step already holds,
        None to do it (again). Reads only."""
        return None
