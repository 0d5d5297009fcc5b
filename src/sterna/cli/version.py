"""`sterna --version`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer


def _show(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"sterna {version('sterna')}")
    except PackageNotFoundError:
        typer.echo("sterna, run from its source tree without being installed")
    raise typer.Exit


_HELP = "Show the version and exit."
Version = Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help=_HELP, show_default=False)]


def options(version: Version = False) -> None:
    """Options of `sterna` itself, before any command."""
