"""`sterna abort`, `sterna tune`, `sterna post-copy`: what is asked of a migration that runs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from sterna.cli import formatting
from sterna.cli.client import Client, Json, path_of
from sterna.cli.exits import Exit, err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, MigrationArg, client_of, print_json
from sterna.cli.quantities import rate_bytes_s
from sterna.cli.watch import watch
from sterna.domain import amounts

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def until_end(client: Client, migration: Json, console: Console, *, from_now: bool = False) -> Json:
    """Show what happens until the migration has ended; it as it is then. `from_now`: see `watch`."""
    try:
        return watch(client, migration, console, from_now=from_now)
    except KeyboardInterrupt:
        err.print(f"stopped watching; the migration continues: sterna show {migration['id']}")
        raise typer.Exit(INTERRUPTED) from None


def abort(
    id: MigrationArg,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the rollback has finished.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Abort a migration before its switch-over. Everything is rolled back.

    With --wait, exit code 0 if it was cancelled, 4 if it was too late and the migration completed, 7 if it failed.
    """
    with plain_errors():
        client = client_of(api)
        migration = client.post(f"{path_of('migrations', client.migration_id(id))}/abort")
        if wait:
            migration = until_end(client, migration, err, from_now=True)
        if as_json:
            print_json(migration)
        elif wait:
            formatting.show(formatting.report(migration))
        else:
            out.print(f"asked {migration['source']} to roll back; follow it with: sterna show {migration['id']}")
        if wait:
            ends = {"cancelled": Exit.OK, "completed": Exit.CONFLICT}
            raise typer.Exit(ends.get(migration["status"], Exit.FAILED))


def tune(
    id: MigrationArg,
    bandwidth: Annotated[
        str,
        typer.Option("--bandwidth", metavar="RATE", help="New limit, e.g. 200MiB/s; `none` removes it."),
    ],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Change the bandwidth limit of a running copy. Takes effect at once."""
    limit = None if bandwidth == "none" else rate_bytes_s(bandwidth)
    with plain_errors():
        client = client_of(api)
        body: Json = {"bandwidth_bytes_s": limit}
        migration = client.post(f"{path_of('migrations', client.migration_id(id))}/tune", body)
        done = f"bandwidth limited to {amounts.rate(limit)}" if limit else "bandwidth limit removed"
        if as_json:
            print_json(migration)
        else:
            out.print(f"{migration['vm_name']}: {done}", markup=False)


def post_copy(id: MigrationArg, api: Api = None, as_json: AsJson = False) -> None:
    """Start the guest on the destination now, before all of its memory has arrived.

    For a migration that was started with --may postcopy and does not finish. This cannot be undone: until the rest
    of the memory has arrived, the guest needs both hosts.
    """
    with plain_errors():
        client = client_of(api)
        migration = client.post(f"{path_of('migrations', client.migration_id(id))}/post-copy")
        if as_json:
            print_json(migration)
        else:
            to = f"asked {migration['source']} to switch to post-copy"
            out.print(f"{to}; follow it with: sterna show {migration['id']}")
