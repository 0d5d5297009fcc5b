"""The commands. Each one asks the API and prints the answer; `--json` prints it as it came and nothing else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer

from sterna.cli import words
from sterna.cli.client import ApiAway, Client, Json, find_api, path_of
from sterna.cli.exits import EPILOG, Exit, err, exit_for, plain_errors
from sterna.cli.watch import watch as watch_until_end
from sterna.cli.words import out
from sterna.domain.errors import BadRequest, SternaError

app = typer.Typer(
    no_args_is_help=True,
    help="Sterna moves running KVM virtual machines between hosts without stopping them.",
    epilog=EPILOG,
    pretty_exceptions_enable=False,
)
host_app = typer.Typer(no_args_is_help=True, help="Change a host.")
app.add_typer(host_app, name="host")

Api = Annotated[
    str | None,
    typer.Option("--api", metavar="URL", help="The controller. Else STERNA_API, the lab's, http://127.0.0.1:8774."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, and nothing else on stdout.")]
MigrationArg = Annotated[str, typer.Argument(metavar="ID", help="A migration's id, or the beginning of one.")]

INTERRUPTED = 130
"""As shells say it: ended by SIGINT."""


def _client(api: str | None) -> Client:
    return Client(find_api(api))


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@app.command()
def hosts(api: Api = None, as_json: AsJson = False) -> None:
    """List the hosts."""
    with plain_errors():
        answer = _client(api).get("/v1/hosts")
        _print_json(answer) if as_json else words.show(words.hosts(answer["hosts"]))


@host_app.command()
def maintenance(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The host.")],
    on: Annotated[bool, typer.Option("--on/--off", help="In maintenance a host is nobody's destination.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Put a host into maintenance, or take it out. What runs there stays."""
    with plain_errors():
        answer = _client(api).patch(path_of("hosts", name), {"maintenance": on})
        _print_json(answer) if as_json else words.show(words.hosts([answer]))


@app.command()
def vms(api: Api = None, as_json: AsJson = False) -> None:
    """List the VMs of all hosts."""
    with plain_errors():
        answer = _client(api).get("/v1/vms")
        if as_json:
            _print_json(answer)
            return
        words.show(words.vms(answer["vms"]))
        if answer["silent_hosts"]:
            err.print(f"not asked (VMs as last seen): {', '.join(answer['silent_hosts'])}", style="yellow")


@app.command()
def migrate(
    vm: Annotated[str, typer.Argument(metavar="VM", help="Name or UUID.")],
    to: Annotated[str | None, typer.Option("--to", metavar="HOST", help="Where to; else Sterna chooses.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the progress until it has ended.")] = False,
    id: Annotated[
        UUID | None, typer.Option("--id", help="The migration's id: the same again is the same migration.")
    ] = None,
    bandwidth: Annotated[
        int | None, typer.Option("--bandwidth", min=1, metavar="MIB/S", help="Send no more than this.")
    ] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Migrate a running VM to another host."""
    body: Json = {"id": str(id or uuid4()), "vm": vm, "destination": to}
    if bandwidth is not None:
        body["bandwidth_bytes_s"] = bandwidth * 2**20
    with plain_errors():
        client = _client(api)
        migration = _start(client, body)
        if watch:
            _watch(client, migration, as_json)
        elif as_json:
            _print_json(migration)
        else:
            out.print(f"{migration['vm_name']}: {migration['source']} -> {migration['destination']}, accepted")
            out.print(f"follow it with: sterna show {migration['id']}")


def _start(client: Client, body: Json) -> Json:
    try:
        return client.post("/v1/migrations", body)
    except ApiAway:  # perhaps only the answer was lost; the same id cannot start a second migration
        return client.post("/v1/migrations", body)


def _watch(client: Client, migration: Json, as_json: bool) -> None:
    """Watch until the end, print the report, and leave with the exit code that says how it ended."""
    try:
        ended = watch_until_end(client, migration, err if as_json else out)
    except KeyboardInterrupt:
        err.print(f"not watching any more; the migration goes on: sterna show {migration['id']}")
        raise typer.Exit(INTERRUPTED) from None
    _print_json(ended) if as_json else words.show(words.report(ended))
    raise typer.Exit(exit_for(ended))


@app.command()
def migrations(
    vm: Annotated[str | None, typer.Option(help="Only this VM's (name or UUID).")] = None,
    status: Annotated[list[str] | None, typer.Option(help="Only in this status; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="`next_cursor` of the page before.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the migrations, newest first."""
    with plain_errors():
        answer = _client(api).get("/v1/migrations", vm=vm, status=status, limit=limit, cursor=cursor)
        if as_json:
            _print_json(answer)
            return
        words.show(words.migrations(answer["migrations"]))
        if answer["next_cursor"]:
            err.print(f"there are more: --cursor {answer['next_cursor']}")


@app.command()
def show(
    id: MigrationArg,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where --diagram writes to.")] = None,
    diagram: Annotated[bool, typer.Option("--diagram", help="The run as a PlantUML sequence diagram.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Every step of both agents.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a migration and its report, its timeline, or its diagram."""
    if file is not None and not diagram:
        raise typer.BadParameter("FILE is for --diagram")
    with plain_errors():
        client = _client(api)
        path = path_of("migrations", client.migration_id(id))
        if diagram:
            _show_diagram(client.text(f"{path}/diagram"), file, as_json)
        elif timeline:
            answer = client.get(f"{path}/timeline")
            _print_json(answer) if as_json else words.show(words.timeline(answer["items"]))
        else:
            answer = client.get(path)
            _print_json(answer) if as_json else words.show(words.report(answer))


def _show_diagram(text: str, file: Path | None, as_json: bool) -> None:
    if file is not None:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as e:
            err.print(f"sterna: {file} cannot be written: {e.strerror}", style="red")
            raise typer.Exit(Exit.UNEXPECTED) from None
    if as_json:
        _print_json({"diagram": text, "file": str(file) if file else None})
    elif file is None:
        typer.echo(text, nl=False)
    else:
        out.print(f"written to {file}", markup=False)


@app.command()
def abort(
    id: MigrationArg,
    wait: Annotated[bool, typer.Option("--wait", help="Until everything is as it was.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Abort a migration that has not switched over yet: everything is rolled back.

    With --wait: exit code 0 when it is cancelled, 4 when it was too late and it completed, 7 when it failed.
    """
    with plain_errors():
        client = _client(api)
        migration = client.post(f"{path_of('migrations', client.migration_id(id))}/abort")
        if wait:
            migration = watch_until_end(client, migration, err)
        if as_json:
            _print_json(migration)
        elif wait:
            words.show(words.report(migration))
        else:
            out.print(f"asked {migration['source']} to roll back; follow it with: sterna show {migration['id']}")
        if wait:
            ends = {"cancelled": Exit.OK, "completed": Exit.CONFLICT}
            raise typer.Exit(ends.get(migration["status"], Exit.FAILED))


def run() -> None:
    """The commands, and a plain word for whatever else goes wrong (STERNA_DEBUG=1: the traceback)."""
    try:
        app()
    except SternaError as e:
        err.print(f"sterna: {e.message}", style="red")
        if e.fix:
            err.print(f"  fix: {e.fix}")
        sys.exit(Exit.USAGE if isinstance(e, BadRequest) else Exit.UNEXPECTED)
    except Exception as e:
        if os.environ.get("STERNA_DEBUG"):
            raise
        err.print(f"sterna: unexpected {type(e).__name__}: {e}", style="red")
        err.print("  fix: this is a bug; STERNA_DEBUG=1 shows where, please report it")
        sys.exit(Exit.UNEXPECTED)
