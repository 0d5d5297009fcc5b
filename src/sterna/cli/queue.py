"""`sterna place` and `sterna queue`: possible destinations of a VM, and migrations that wait."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from sterna.cli import completion, formatting
from sterna.cli.client import Json, path_of
from sterna.cli.console import safe
from sterna.cli.exits import Exit, err, plain_errors, print_more
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, PageCursor, PageLimit, VmArg, client_of, print_json
from sterna.domain.amounts import UNKNOWN


def place(
    vm: VmArg,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Rank all hosts as destinations for a VM, best first. Drains choose by the same ranking.

    Each line shows the host's free capacity, or why the VM cannot run there. Starts nothing. Uses the controller's
    records only; `sterna plan VM --to HOST` asks the hosts. Exit code 3 if no host is possible.
    """
    with plain_errors():
        answer = client_of(api).get(f"{path_of('vms', vm)}/placement")
        print_json(answer) if as_json else _show_placement(answer)
        if answer["stays"] or not any(one["score"] is not None for one in answer["hosts"]):
            raise typer.Exit(Exit.REFUSED)


def _show_placement(answer: Json) -> None:
    name, host = answer["vm"]["name"], answer["vm"]["host"]
    out.print(f"{name} is on {host}", markup=False)
    if answer["stays"]:
        out.print(f"it cannot be migrated now: {answer['stays']}", markup=False)
    made = formatting.table("~HOST", ">SCORE", "~WHY")
    for one in answer["hosts"]:
        score = UNKNOWN if one["score"] is None else f"{one['score']:.3f}"
        made.add_row(safe(one["host"]), score, safe("; ".join(one["refusals"]) or one["words"]))
    formatting.show(made)


def queue(
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Only migrations from or to this host.", autocompletion=completion.hosts),
    ] = None,
    operation: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Only migrations of this operation (ID, or its first characters).",
            autocompletion=completion.operations,
        ),
    ] = None,
    limit: PageLimit = None,
    cursor: PageCursor = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the migrations that have not started, and what each one waits for."""
    with plain_errors():
        client = client_of(api)
        id = None if operation is None else client.operation_id(operation)
        answer = client.pages("/v1/queue", "waits", limit, cursor, host=host, operation=id)
        if as_json:
            print_json(answer)
        else:
            formatting.show(_table(answer["waits"]))
            for one in answer["unplanned"]:
                err.print(f"operation {one['operation_id'][:8]}: {one['reason']}", style="yellow")
        print_more(answer, as_json)


def _table(waits: list[Json]) -> Table:
    made = formatting.table("~VM", "~FROM", "~TO", "OPERATION", "~WAITS")
    for one in waits:
        made.add_row(
            safe(one["vm_name"]),
            safe(one["source"]),
            safe(one["destination"]),
            (one["operation_id"] or UNKNOWN)[:8],
            safe(one["reason"]),
        )
    return made
