"""The commands. Each one calls the API and prints the response; `--json` prints only the unchanged response."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer

from sterna.cli import completion, formatting
from sterna.cli.client import ApiAway, ApiSlow, Client, Json, path_of
from sterna.cli.definition_diff import show as show_definition_diff
from sterna.cli.doctor import doctor
from sterna.cli.exits import EPILOG, Exit, err, exit_for, plain_errors, print_more, print_silent
from sterna.cli.formatting import out
from sterna.cli.host import host_app
from sterna.cli.lists import hosts, vms
from sterna.cli.log import log
from sterna.cli.notify import notify_app
from sterna.cli.operation import drain, operation_app, operations
from sterna.cli.options import (
    Accepted,
    Api,
    AsJson,
    Bandwidth,
    FinishWithin,
    IgnoreRules,
    MaxDowntime,
    MayDo,
    MigrationArg,
    OnHost,
    PolicyName,
    To,
    TransportName,
    VmArg,
    client_of,
    print_json,
    words_of,
)
from sterna.cli.plan import accuracy as accuracy_table
from sterna.cli.plan import show as show_plan
from sterna.cli.queue import place, queue
from sterna.cli.rearranging import bring_back, rebalance
from sterna.cli.rolling import rolling
from sterna.cli.rules import rules_app
from sterna.cli.running import INTERRUPTED, abort, post_copy, tune, until_end
from sterna.cli.sections import Sections
from sterna.cli.token import token_app
from sterna.cli.version import options, version
from sterna.cli.vm import vm_app
from sterna.domain.errors import BadRequest, SternaError
from sterna.domain.plain_text import printable

HELP = "Sterna live-migrates KVM virtual machines between libvirt hosts."
app = typer.Typer(
    cls=Sections,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # usage errors show names as they were typed, and draw no boxes into a pipe
)
app.callback(help=HELP, epilog=EPILOG)(options)
app.add_typer(host_app, name="host")
app.add_typer(notify_app, name="notify")
app.add_typer(operation_app, name="operation")
app.add_typer(rules_app, name="rules")
app.add_typer(token_app, name="token")
app.add_typer(vm_app, name="vm")
for command in (abort, doctor, drain, hosts, log, operations, place, queue, rebalance, rolling, tune, version, vms):
    app.command()(command)
app.command(name="bring-back")(bring_back)
app.command(name="post-copy")(post_copy)


@app.command()
def audit(
    host: OnHost = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is proven safe to remove.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List resources left behind by finished migrations, with the evidence for each.

    Exit code 0 if there are none, or all were removed; 9 if there are some; 6 if none were found, but a host could
    not be asked.
    """
    with plain_errors():
        answer = client_of(api).post("/v1/audit", {"host": host, "repair": repair})
        if as_json:
            print_json(answer)
        else:
            for line in formatting.audit(answer):
                out.print(line)
        print_silent("not asked", answer)
        silent = answer["silent_hosts"]
        complete = answer.get("complete", True) and not (host in silent if host else silent)
        if answer["clean"] and not complete:
            raise typer.Exit(Exit.UNREACHABLE)  # scripts must not conclude that the fleet is clean
        raise typer.Exit(Exit.OK if answer["clean"] else Exit.LEFTOVERS)


def _objective(
    policy: str | None, max_downtime: float | None, finish_within: float | None, may: list[str] | None, **more: Any
) -> Json:
    """The objective of a request: only the options that were given."""
    fields: Json = {name: value for name, value in more.items() if value is not None}
    if policy is not None:
        fields["policy"] = policy
    if max_downtime is not None:
        fields["max_downtime_ms"] = round(max_downtime)
    if finish_within is not None:
        fields["finish_within_s"] = finish_within / 1000
    if may is not None:
        fields["may"] = words_of(may)
    return fields


@app.command()
def plan(  # noqa: PLR0913 - one option per setting
    vm: VmArg,
    *,
    to: To = None,
    max_downtime: MaxDowntime = None,
    finish_within: FinishWithin = None,
    may: MayDo = None,
    accept: Accepted = None,
    policy: PolicyName = None,
    bandwidth: Bandwidth = None,
    transport: TransportName = None,
    ignore_rules: IgnoreRules = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Carry out every step before the copy, then undo them.")
    ] = False,
    with_copy: Annotated[
        bool, typer.Option("--with-copy", help="Rehearse, and also start a slow copy; it is aborted soon after.")
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show what would prevent a migration and what it would cost. Changes nothing.

    Takes some seconds, because the guest's dirty rate is measured. Exit code 3 if something prevents the migration,
    or the rehearsal failed.
    """
    wanted = {"bandwidth_bytes_s": bandwidth, "transport": transport, "accept": words_of(accept)}
    body: Json = {"vm": vm, "destination": to} | _objective(policy, max_downtime, finish_within, may, **wanted)
    body |= {"ignore_rules": True} if ignore_rules else {}
    if rehearse or with_copy:
        body |= {"rehearse": True, "with_copy": with_copy}
    with plain_errors():
        answer = client_of(api).post("/v1/plans", body)
        print_json(answer) if as_json else show_plan(answer)
        rehearsed = answer.get("rehearsal")
        if answer["blockers"] or (rehearsed is not None and not rehearsed["passed"]):
            raise typer.Exit(Exit.REFUSED)


@app.command()
def accuracy(api: Api = None, as_json: AsJson = False) -> None:
    """Compare the forecasts of recent migrations with the results."""
    with plain_errors():
        answer = client_of(api).get("/v1/accuracy")
        print_json(answer) if as_json else formatting.show(accuracy_table(answer))


@app.command()
def migrate(  # noqa: PLR0913 - one option per setting
    vm: VmArg,
    *,
    to: To = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress, and wait for the end.")] = False,
    id: Annotated[
        UUID | None, typer.Option("--id", help="UUID for the migration. Repeating a request with it is safe.")
    ] = None,
    max_downtime: MaxDowntime = None,
    finish_within: FinishWithin = None,
    may: MayDo = None,
    accept: Accepted = None,
    policy: PolicyName = None,
    bandwidth: Bandwidth = None,
    transport: TransportName = None,
    ignore_rules: IgnoreRules = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Migrate a running VM to another host."""
    body: Json = {"id": str(id or uuid4()), "vm": vm, "destination": to}
    body |= {"ignore_rules": True} if ignore_rules else {}
    wanted = {"bandwidth_bytes_s": bandwidth, "transport": transport, "accept": words_of(accept)}
    body |= _objective(policy, max_downtime, finish_within, may, **wanted)
    with plain_errors():
        client = client_of(api)
        migration = _start(client, body)
        if watch:
            _watch(client, migration, as_json)
        elif as_json:
            print_json(migration)
        else:
            route = f"{migration['vm_name']}: {migration['source']} -> {migration['destination']}"
            out.print(f"{route}, accepted", markup=False)
            out.print(f"follow it with: sterna show {migration['id']}")


def _start(client: Client, body: Json) -> Json:
    whether = f"to check whether it was accepted, run: sterna show {body['id']}"
    try:
        return _post_twice(client, body)
    except ApiSlow:
        err.print(whether)
        raise
    except KeyboardInterrupt:
        err.print(f"stopped waiting; {whether}")
        raise typer.Exit(INTERRUPTED) from None


def _post_twice(client: Client, body: Json) -> Json:
    """Send the request, again if there was no response: the same ID cannot start a second migration."""
    try:
        return client.post("/v1/migrations", body)
    except ApiSlow:
        raise
    except ApiAway:
        return client.post("/v1/migrations", body)


def _watch(client: Client, migration: Json, as_json: bool) -> None:
    """Watch until the end, print the report, and exit with the code for the result."""
    ended = until_end(client, migration, err if as_json else out)
    print_json(ended) if as_json else formatting.show(formatting.report(ended))
    raise typer.Exit(exit_for(ended))


@app.command()
def migrations(
    vm: Annotated[
        str | None,
        typer.Option(help="Only migrations of this VM (name or UUID).", autocompletion=completion.vms),
    ] = None,
    status: Annotated[list[str] | None, typer.Option(help="Only with this status; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number, newest first.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="`next_cursor` of the previous page.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the migrations, newest first."""
    with plain_errors():
        answer = client_of(api).get("/v1/migrations", vm=vm, status=status, limit=limit, cursor=cursor)
        if as_json:
            print_json(answer)
            return
        formatting.show(formatting.migrations(answer["migrations"]))
        print_more(answer, as_json)


@app.command()
def show(  # noqa: PLR0913, PLR0917 - one for each option
    id: MigrationArg,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET]",
            help="With --diagram: the format (`plantuml` or `svg`), the file to write, or both. A file name that "
            "ends in `.svg` implies SVG.",
        ),
    ] = None,
    diagram: Annotated[
        bool, typer.Option("--diagram", help="Write a sequence diagram of the migration, as PlantUML or SVG.")
    ] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Show every step of both agents.")] = False,
    diff: Annotated[
        bool,
        typer.Option("--diff", help="Show what is different in the VM's definition on the destination, and why."),
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Write a trace for OpenTelemetry, in the JSON encoding of OTLP. `-`: to standard output.",
        ),
    ] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a migration and its report, its timeline, its diagram, its trace, or the differences in the VM's
    definition."""
    if words and not diagram:
        raise typer.BadParameter("a format or a file is only allowed with --diagram")
    if diagram + timeline + diff + (trace is not None) > 1:
        raise typer.BadParameter("only one of --diagram, --timeline, --diff and --trace is allowed")
    kind, file = _diagram_of(words or [])
    with plain_errors():
        client = client_of(api)
        path = path_of("migrations", client.migration_id(id))
        if diagram:
            _show_diagram(client.text(f"{path}/diagram", format=kind), file, as_json)
        elif trace is not None:
            _show_trace(client.get(f"{path}/trace"), trace if str(trace) != "-" else None, as_json)
        else:
            _show_answer(client, path, "timeline" if timeline else "definition-diff" if diff else "", as_json)


def _show_answer(client: Client, path: str, part: str, as_json: bool) -> None:
    """A part of a migration; '': its report."""
    answer = client.get(f"{path}/{part}" if part else path)
    if as_json:
        print_json(answer)
    elif part == "definition-diff":
        show_definition_diff(answer)
    else:
        formatting.show(formatting.timeline(answer["items"]) if part else formatting.report(answer))


def _diagram_of(words: list[str]) -> tuple[str, Path | None]:
    """Format and file after `--diagram`. Raises typer.BadParameter."""
    named = words[0] if words and words[0] in ("plantuml", "svg") else None
    rest = words[1:] if named else words
    if len(rest) > 1:
        raise typer.BadParameter("--diagram takes one format (`plantuml` or `svg`) and one file")
    file = Path(rest[0]) if rest else None
    return named or ("svg" if file is not None and file.suffix == ".svg" else "plantuml"), file


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as e:
        err.print(f"sterna: {file} cannot be written: {e.strerror}", style="red")
        raise typer.Exit(Exit.UNEXPECTED) from None


def _show_trace(trace: Json, file: Path | None, as_json: bool) -> None:
    if file is not None:
        _write(file, json.dumps(trace, indent=1) + "\n")
    if as_json:
        print_json({"trace": trace, "file": str(file) if file else None})
    elif file is None:
        print_json(trace)
    else:
        out.print(f"written to {file}", markup=False)


def _show_diagram(text: str, file: Path | None, as_json: bool) -> None:
    if file is not None:
        _write(file, text)
    if as_json:
        print_json({"diagram": text, "file": str(file) if file else None})
    elif file is None:
        typer.echo(printable(text, breaks=True), nl=False)
    else:
        out.print(f"written to {file}", markup=False)


def run() -> None:
    """Run the command. Unexpected errors are printed as one line, with STERNA_DEBUG=1 as a traceback."""
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
        err.print("  fix: this is a bug; please report it with the traceback that STERNA_DEBUG=1 prints")
        sys.exit(Exit.UNEXPECTED)
