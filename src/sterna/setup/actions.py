"""The changes of a setup: shown first, confirmed, then made in this order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import typer

from sterna.cli.exits import Exit, err
from sterna.cli.formatting import out
from sterna.setup.questions import Questions


@dataclass(frozen=True)
class Action:
    """One change."""

    words: tuple[str, ...]
    """What it is, line by line."""
    do: Callable[[], None]
    """Raises SternaError, or typer.Exit after it has printed why."""

    @classmethod
    def of(cls, words: str | Iterable[str], do: Callable[[], None]) -> Action:
        """With one line or several."""
        return cls((words,) if isinstance(words, str) else tuple(words), do)


def carry_out(actions: Sequence[Action], questions: Questions) -> bool:
    """Show them, ask, and make them. False if there are none. Exits with code 3 if not confirmed."""
    if not actions:
        out.print("nothing to change")
        return False
    out.print("This will:")
    for action in actions:
        for number, line in enumerate(action.words):
            out.print(f"  {'- ' if number == 0 else '    '}{line}", markup=False)
    if not questions.confirmed():
        err.print("not confirmed: nothing was changed")
        raise typer.Exit(Exit.REFUSED)
    for action in actions:
        action.do()
        out.print(f"done: {action.words[0]}", markup=False)
    return True
