"""`sterna --version`, and `sterna version`, of this command or of the whole fleet."""

from __future__ import annotations

from typing import Annotated

import typer

from sterna.cli import formatting
from sterna.cli.client import ApiAway, Client, Json
from sterna.cli.console import safe
from sterna.cli.exits import err, plain_errors
from sterna.cli.options import Api, AsJson, client_of, print_json
from sterna.domain.amounts import UNKNOWN
from sterna.kit.version import installed


def _show(wanted: bool) -> None:
    if wanted:
        typer.echo(_own())
        raise typer.Exit


def _own() -> str:
    known = installed()
    return f"sterna {known}" if known else "sterna, run from its source tree without being installed"


_HELP = "Show the version and exit."
Version = Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help=_HELP, show_default=False)]


def options(version: Version = False) -> None:
    """Options of `sterna` itself, before any command."""


def version(
    fleet: Annotated[
        bool, typer.Option("--fleet", help="Also show the versions of all controllers and agents.")
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the version of this command, or the versions of the whole fleet.

    With several addresses in --api, all of these controllers are asked. Exit code 6 if none of them answers.
    """
    if not fleet:
        print_json({"command": installed() or None}) if as_json else typer.echo(_own())
        return
    with plain_errors():
        client = client_of(api)
        controllers = _controllers(client)
        hosts = client.pages("/v1/hosts", "hosts", None)["hosts"]
        answer = {"command": installed() or None, "controllers": controllers, "agents": [_agent(h) for h in hosts]}
        print_json(answer) if as_json else _print(answer)


def _controllers(client: Client) -> list[Json]:
    """Raises ApiAway where none answers."""
    found: list[Json] = []
    away: list[ApiAway] = []
    for api, one in client.each():
        try:
            found.append({"api": api, "version": one.get("/v1/version")["version"], "reason": None})
        except ApiAway as error:
            away.append(error)
            found.append({"api": api, "version": None, "reason": str(error)})
    if len(away) == len(found):
        raise away[0].beside(away[1:])
    return found


def _agent(host: Json) -> Json:
    return {"host": host["name"], "version": host["agent_version"], "state": host["state"]}


def _print(answer: Json) -> None:
    made = formatting.table("WHAT", "~NAME", "VERSION", "STATE")
    made.add_row("command", "", answer["command"] or UNKNOWN, "")
    for one in answer["controllers"]:
        state = "" if one["version"] else formatting.coloured("down")
        made.add_row("controller", safe(one["api"]), safe(one["version"] or UNKNOWN), state)
    for one in answer["agents"]:
        row = ("agent", safe(one["host"]), safe(one["version"] or UNKNOWN), formatting.coloured(one["state"]))
        made.add_row(*row)
    formatting.show(made)
    controllers = [one["version"] for one in answer["controllers"] if one["version"]]
    known = {*controllers, *(one["version"] for one in answer["agents"] if one["version"])}
    if len(known) > 1:
        err.print(f"{len(known)} versions are in use: {', '.join(sorted(known))}", style="yellow")
