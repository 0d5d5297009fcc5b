"""`python -m sterna` and the `sterna` command: the CLI, the lab, and the two processes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

import sterna.bootstrap.enrolling.host  # noqa: F401 - its commands join those of `sterna host`
from sterna.bootstrap.enrolling.agent import agent_app
from sterna.bootstrap.enrolling.bus import bus_app
from sterna.bootstrap.enrolling.ca import ca_app
from sterna.cli.main import app, run
from sterna.kit.ending import leave
from sterna.setup.command import setup_app
from sterna.support.command import support_bundle

Settings = Annotated[Path, typer.Option("--config", help="Settings, a TOML file.", show_default=False)]


@agent_app.callback(invoke_without_command=True)
def agent(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Settings, a TOML file. Required to run the agent.", show_default=False),
    ] = None,
) -> None:
    """Run the agent of this compute host until SIGTERM. Running copies continue."""
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise typer.BadParameter("give the settings with --config FILE")
    from sterna.bootstrap.agent import run_agent

    run_agent(config)
    leave()


app.add_typer(agent_app, name="agent")
app.add_typer(setup_app, name="setup")
app.command(name="support-bundle")(support_bundle)
app.add_typer(ca_app, name="ca")
app.add_typer(bus_app, name="bus")


@app.command()
def controller(
    config: Settings,
    fd: Annotated[
        int | None, typer.Option(help="Serve on this file descriptor: a socket that already listens.")
    ] = None,
) -> None:
    """Run a controller, with the REST API, until SIGTERM."""
    from sterna.bootstrap.controller import run_controller

    run_controller(config, fd)
    leave()


def _mount_lab() -> None:
    """`sterna lab`, where its parts are installed."""
    try:
        lab = importlib.import_module("sterna.lab.cli")
    except ImportError:
        return
    app.add_typer(lab.app, name="lab")


def main() -> None:
    """The `sterna` command."""
    _mount_lab()
    run()


if __name__ == "__main__":
    main()
