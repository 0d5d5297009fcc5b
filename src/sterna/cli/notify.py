"""`sterna notify ...`: the webhooks that are called when something has happened."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from sterna.cli import formatting
from sterna.cli.client import Json
from sterna.cli.console import safe
from sterna.cli.exits import Exit, err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, client_of, print_json

notify_app = typer.Typer(no_args_is_help=True, help="List and test the endpoints of notifications.")
NONE = "no endpoint is set up: see [[notify]] of the controller's settings, and docs/how-to/notify.md"
ANSWERS_S = 60.0
"""The controller waits 30 s for an endpoint."""


@notify_app.command("list")
def list_endpoints(api: Api = None, as_json: AsJson = False) -> None:
    """List the endpoints, how many notifications wait for each, and why the last try failed."""
    with plain_errors():
        answer = client_of(api).get("/v1/notifications")
        if as_json:
            print_json(answer)
        elif answer["endpoints"]:
            formatting.show(_table(answer["endpoints"]))
        else:
            err.print(NONE)


@notify_app.command()
def test(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this endpoint. By default all of them.")
    ] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Send a test event, and print what each endpoint answered.

    Exit code 0 if all have accepted it, 11 if one has not, 5 if there is none.
    """
    with plain_errors():
        answer = client_of(api).post("/v1/notifications/test", {"name": name})
        tested = answer["tested"]
        if as_json:
            print_json(answer)
        else:
            for one in tested:
                out.print(_line(one))
        if not tested:
            err.print(NONE)
            raise typer.Exit(Exit.NOT_FOUND)
        raise typer.Exit(Exit.OK if all(one["accepted"] for one in tested) else Exit.WRONG)


def _table(endpoints: list[Json]) -> Table:
    made = formatting.table("~NAME", "~SERVER", "WAITING", "OLDEST", "LAST SUCCESS", "~LAST ERROR")
    for one in endpoints:
        error = f"{one['last_error_at'][:19]} {one['last_error']}" if one["last_error"] else ""
        row = (
            one["name"],
            one["server"] or "(not in these settings)",
            str(one["pending"]),
            (one["oldest_at"] or "")[:19],
            (one["last_success_at"] or "never")[:19],
            error,
        )
        made.add_row(*(safe(cell) for cell in row))
    return made


def _line(one: Json) -> str:
    """Rich markup."""
    where = f"{safe(one['name'])} ({safe(one['server'])})"
    if one["status"] is None:
        return f"[red]failed  [/] {where}: {safe(one['error'])}"
    colour, word = ("green", "accepted") if one["accepted"] else ("red", "refused ")
    answer = f": {safe(one['answer'].strip()[:200])}" if one["answer"].strip() else ""
    return f"[{colour}]{word}[/] {where}: status {one['status']} after {one['took_s']:.2f} s{answer}"
