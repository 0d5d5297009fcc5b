"""`python -m sterna` and the `sterna` command: the CLI, the lab, and the two processes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from sterna.cli.main import app, run

Settings = Annotated[Path, typer.Option("--config", help="Settings, a TOML file.", show_default=False)]


@app.command(rich_help_panel="Processes")
def agent(config: Settings) -> None:
    """Run the agent of this compute host, until SIGTERM. A copy under way goes on."""
    from sterna.bootstrap.agent import run_agent

    run_agent(config)


@app.command(rich_help_panel="Processes")
def controller(
    config: Settings,
    fd: Annotated[int | None, typer.Option(help="Serve on this file descriptor, a listening socket.")] = None,
) -> None:
    """Run a controller: the REST API, until SIGTERM."""
    from sterna.bootstrap.controller import run_controller

    run_controller(config, fd)


def _mount_lab() -> None:
    """`sterna lab`, where its parts are installed."""
    try:
        lab = importlib.import_module("sterna.lab.cli")
    except ImportError:
        return
    app.add_typer(lab.app, name="lab", rich_help_panel="Try it out")


def main() -> None:
    """The `sterna` command."""
    _mount_lab()
    run()


if __name__ == "__main__":
    main()
