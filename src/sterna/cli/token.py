"""`sterna token ...`: tokens for the API."""

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

token_app = typer.Typer(no_args_is_help=True, help="Create, list and remove API tokens.")
NameArg = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token: its user or purpose, e.g. ci.")]


@token_app.command()
def create(
    name: NameArg,
    role: Annotated[
        str,
        typer.Option(
            "--role", metavar="ROLE", help="viewer, operator, admin, or neutron (only for Neutron's notifier)."
        ),
    ],
    days: Annotated[int, typer.Option("--days", metavar="N", help="Days until it expires.")] = 90,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Create a token, and print it. It cannot be shown again: only its hash is stored."""
    with plain_errors():
        made = client_of(api).post("/v1/tokens", {"name": name, "role": role, "days": days})
        if as_json:
            print_json(made)
            return
        until = made["expires_at"][:19]
        err.print(f"{made['name']} ({made['role']}), valid until {until} UTC. It is shown only once:")
        out.print(made["token"], markup=False, soft_wrap=True)


@token_app.command("list")
def list_tokens(api: Api = None, as_json: AsJson = False) -> None:
    """List the tokens, including expired ones. Tokens in the controller's settings are not listed."""
    with plain_errors():
        answer = client_of(api).get("/v1/tokens")
        print_json(answer) if as_json else formatting.show(_table(answer["tokens"]))


@token_app.command()
def remove(name: NameArg, api: Api = None, as_json: AsJson = False) -> None:
    """Remove a token. From then on, requests with it are refused."""
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
