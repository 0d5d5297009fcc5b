"""`sterna token ...`: who may use the API."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from sterna.cli import formatting
from sterna.cli.client import Json, path_of
from sterna.cli.console import safe
from sterna.cli.exits import err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, client_of, print_json

token_app = typer.Typer(no_args_is_help=True, help="Create, list and remove tokens of the API.")
NameArg = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token: who holds it, e.g. ci.")]


@token_app.command()
def create(
    name: NameArg,
    role: Annotated[
        str,
        typer.Option("--role", metavar="ROLE", help="viewer, operator, admin, or neutron (for its notifier only)."),
    ],
    days: Annotated[int, typer.Option("--days", metavar="N", help="It expires after so many days.")] = 90,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Create a token, and print it. It is not shown again: only its hash is kept."""
    with plain_errors():
        made = client_of(api).post("/v1/tokens", {"name": name, "role": role, "days": days})
        if as_json:
            print_json(made)
            return
        err.print(f"{made['name']}, {made['role']}, until {made['expires_at'][:19]} UTC; shown only now:")
        out.print(made["token"], markup=False, soft_wrap=True)


@token_app.command("list")
def list_tokens(api: Api = None, as_json: AsJson = False) -> None:
    """List the tokens, those that have expired included. Tokens of the controller's settings are not listed."""
    with plain_errors():
        answer = client_of(api).get("/v1/tokens")
        print_json(answer) if as_json else formatting.show(_table(answer["tokens"]))


@token_app.command()
def remove(name: NameArg, api: Api = None, as_json: AsJson = False) -> None:
    """Remove a token. Its holder is refused from the next request on."""
    with plain_errors():
        removed = client_of(api).delete(path_of("tokens", name))
        print_json(removed) if as_json else out.print(
            f"removed {removed['name']} ({removed['role']})", markup=False
        )


def _table(tokens: list[Json]) -> Table:
    made = formatting.table("~NAME", "ROLE", "CREATED", "EXPIRES", "~BY")
    for token in tokens:
        row = (
            token["name"],
            token["role"],
            token["created_at"][:19],
            token["expires_at"][:19],
            token["created_by"],
        )
        made.add_row(*(safe(cell) for cell in row))
    return made
