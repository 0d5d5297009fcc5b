"""`sterna --version`."""

from __future__ import annotations

from typing import Annotated

import typer

from sterna.kit.version import installed


def _show(wanted: bool) -> None:
    if not wanted:
        return
    known = installed()
    typer.echo(f"sterna {known}" if known else "sterna, run from its source tree without being installed")
    raise typer.Exit


_HELP = "Show the version and exit."
Version = Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help=_HELP, show_default=False)]


def options(version: Version = False) -> None:
    """Options before the command."""
