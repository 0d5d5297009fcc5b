"""For the loops beside a copy: what one turn raises does not end them, the next turn comes soon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import structlog

from sterna.domain.errors import SternaError
from sterna.migration.context import Context

log = structlog.get_logger(__name__)


class Turns:
    """The turns of one loop."""

    def __init__(self, ctx: Context, what: str, note: str = "") -> None:
        """`note`: where the reason is journaled, whenever its words change; '' where it is of no interest."""
        self._ctx, self._what, self._note = ctx, what, note
        self._logged = ""

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One turn. Nothing but a cancellation comes out of it."""
        try:
            yield
        except SternaError as error:
            self._tell(error.message)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            if why != self._logged:
                self._logged = why
                log.exception("tried again", what=self._what, migration=self._ctx.migration.id)
            self._tell(f"this is a bug: {why}")

    def _tell(self, why: str) -> None:
        if self._note:
            with contextlib.suppress(SternaError):  # a full disk: said the next time
                self._ctx.note_change("M4", self._note, f"{self._what} is tried again: {why}")
