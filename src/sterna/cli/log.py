"""`sterna log`: the audit log of requests."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from sterna.cli import formatting
from sterna.cli.client import Json
from sterna.cli.console import safe
from sterna.cli.exits import err, plain_errors
from sterna.cli.options import Api, AsJson, client_of, print_json
from sterna.domain import amounts


def log(  # noqa: PLR0913 - one option per filter
    *,
    actor: Annotated[
        str | None,
        typer.Option(
            "--actor", metavar="WHO", help="Only requests by token:NAME, user:NAME or keystone:USER@DOMAIN."
        ),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option("--action", metavar="ACTION", help="Only this action: migrate, abort, declare-dead ..."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME", help="Only requests for this VM, host or migration.")
    ] = None,
    request: Annotated[
        str | None, typer.Option("--request", metavar="ID", help="Only the request with this X-Request-Id.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only requests since this time, e.g. 2026-11-30 (UTC)."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number, newest first.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="`next_cursor` of the previous page.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the audit log: who requested a change, from where, and the response. Newest first."""
    filters = {"actor": actor, "action": action, "target": target, "request": request, "since": since}
    with plain_errors():
        answer = client_of(api).get("/v1/log", **filters, limit=limit, cursor=cursor)
        if as_json:
            print_json(answer)
            return
        formatting.show(_table(answer["lines"]))
        if answer["next_cursor"]:
            err.print(f"more follow: --cursor {answer['next_cursor']}")


def _table(lines: list[Json]) -> Table:
    made = formatting.table("TIME", "~ACTOR", "ROLE", "~FROM", "ACTION", "~TARGET", ">STATUS", "~REQUEST")
    for line in lines:
        status = amounts.UNKNOWN if line["status"] is None else str(line["status"])
        body = json.dumps(line["body"], ensure_ascii=False) if line["body"] else ""
        row = (line["at"][:19], line["actor"], line["role"], line["origin"], line["action"], line["target"])
        made.add_row(*(safe(cell) for cell in (*row, status, body)))
    return made
