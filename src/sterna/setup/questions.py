"""The values that a setup needs: from options, from existing settings, or typed at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import typer

from sterna.cli.exits import err
from sterna.domain.errors import BadRequest

LONGEST_LINE = 4096
Check = Callable[[str], str]
"""The value, perhaps in another form. Raises BadRequest, with what would fix it."""


def as_given(text: str) -> str:
    """Any text."""
    return text


@dataclass
class Questions:
    """Gets the values that a setup needs. Without a terminal it asks nothing, and collects the missing options."""

    has_terminal: bool
    accepts_defaults: bool = False
    """`--yes`: a default is taken without asking."""
    missing: list[str] = field(default_factory=list)
    """Options that have to be given."""

    def answer(
        self,
        option: str,
        given: str | None,
        question: str,
        *,
        known: object = None,
        default: str = "",
        check: Check = as_given,
    ) -> str:
        """The first of: the given value, the known one, the answer of a person, the default. '' if it is missing.
        Raises BadRequest if the given value is not valid."""
        if given is not None:
            return _checked(option, given, check)
        if known is not None:
            return str(known)
        if default and (self.accepts_defaults or not self.has_terminal):
            return check(default)
        if not self.has_terminal:
            self.missing.append(option)
            return ""
        while True:
            said = typer.prompt(question, default=default or None, err=True)
            try:
                return check(str(said).strip())
            except BadRequest as error:
                err.print(f"  {error.message}: {error.fix}", style="yellow")

    def secret(self, option: str, question: str) -> str:
        """What a person types, without echo; '' without a terminal."""
        if not self.has_terminal:
            self.missing.append(option)
            return ""
        return str(typer.prompt(question, hide_input=True, err=True)).strip()

    def check_complete(self, command: str) -> None:
        """Raises BadRequest that names what is missing."""
        if self.missing:
            raise BadRequest(
                f"not given, and there is no terminal to ask: {', '.join(self.missing)}",
                fix=f"give these options: {command} {' '.join(f'{one} ...' for one in self.missing)}",
            )

    def confirmed(self) -> bool:
        """Has somebody agreed? Raises BadRequest if there is no terminal to ask."""
        if self.accepts_defaults:
            return True
        if not self.has_terminal:
            raise BadRequest(
                "nothing was changed: there is no terminal to ask for confirmation",
                fix="run it again with --yes",
            )
        return bool(typer.confirm("Do this?", default=False, err=True))


def _checked(option: str, given: str, check: Check) -> str:
    try:
        return check(given.strip())
    except BadRequest as error:
        raise BadRequest(f"{option}: {error.message}", fix=error.fix) from error


def typed(given: str | None) -> str | None:
    """The given value; for `-`, a line of standard input, which is not in the process list."""
    return sys.stdin.readline(LONGEST_LINE).strip() if given == "-" else given
