"""Loops that go on whatever one attempt raises, beside a copy and elsewhere. The next attempt comes soon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import structlog

from sterna.domain.entries.notes import Waiting
from sterna.domain.errors import SternaError
from sterna.kit.tasks import own_cancellation_only
from sterna.migration.context import Context

log = structlog.get_logger(__name__)


class Attempts:
    """The attempts of one loop."""

    def __init__(self, ctx: Context, what: str, note: str = "", *, row: str = "M4") -> None:
        """`what`: what is attempted, in words. `note`: which note of the family `Waiting` has the error, journaled
        under `row` whenever it changes; '' to journal none."""
        self._ctx, self._what, self._note, self._row = ctx, what, note, row
        self._logged = ""
        self.reason = ""
        """The error of the last attempt, in words; '' for none."""

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """One attempt. Only a cancellation of the loop is raised. Every other error is logged once."""
        self.reason = ""
        try:
            with own_cancellation_only():
                yield
        except SternaError as error:
            self._report(error.message, bug=False)
        except Exception as error:
            self._report(f"this is a bug: {type(error).__name__}: {error}", bug=True)

    def _report(self, why: str, *, bug: bool) -> None:
        self.reason = why
        if why != self._logged:
            self._logged = why
            write = log.error if bug else log.info
            write("tried again", what=self._what, why=why, migration=self._ctx.migration.id, exc_info=bug)
        if self._note:
            with contextlib.suppress(SternaError):  # a full disk: journaled the next time
                waiting = Waiting(why=f"{self._what} is tried again: {why}")
                self._ctx.note_change(waiting, self._note, row=self._row)
