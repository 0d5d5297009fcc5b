"""`sterna drain`, `sterna operations` and `sterna operation ...`: drains, and what all operations share."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID, uuid4

import typer
from rich.console import Console
from rich.table import Table

from sterna.cli import completion, formatting
from sterna.cli.client import ApiAway, ApiSlow, Client, Json, path_of
from sterna.cli.console import safe
from sterna.cli.exits import Exit, err, exit_of_operation, plain_errors, print_more
from sterna.cli.formatting import out
from sterna.cli.host_steps import between_in_words, hosts_in_words, hosts_table, names_of, show_waves
from sterna.cli.options import (
    Api,
    AsJson,
    MayDo,
    OperationArg,
    PageCursor,
    PolicyName,
    client_of,
    print_json,
    words_of,
)
from sterna.cli.quantities import duration_ms
from sterna.domain.durations import in_words
from sterna.domain.fleet.course import OperationStatus, Order
from sterna.domain.fleet.plans import Purpose

operation_app = typer.Typer(no_args_is_help=True, help="Show or change an operation.")
LOOK_S = 2.0
"""Polling interval. The controller drives an operation at the same rate."""
INTERRUPTED = 130
EvenIfLate = Annotated[
    bool, typer.Option("--even-if-late", help="Start even if --finish-within would probably be missed.")
]
IgnoreHostRules = Annotated[
    bool,
    typer.Option(
        "--ignore-host-rules", help="Start even if a rule says that these hosts must not be down together."
    ),
]
Hosts = Annotated[
    list[str], typer.Argument(metavar="HOST", help="Names of the hosts.", autocompletion=completion.hosts)
]
Watch = Annotated[bool, typer.Option("--watch", help="Show progress, and wait for the end.")]


def drain(  # noqa: PLR0913 - one option per setting
    hosts: Hosts,
    *,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan, and change nothing.")] = False,
    watch: Watch = False,
    id: Annotated[
        UUID | None, typer.Option("--id", help="UUID for the operation. Repeating a request with it is safe.")
    ] = None,
    finish_within: Annotated[
        float | None,
        typer.Option(
            "--finish-within",
            parser=duration_ms,
            metavar="TIME",
            help="Refuse to start if the drain would probably take longer, e.g. 2h. Never stops a running drain.",
        ),
    ] = None,
    even_if_late: EvenIfLate = False,
    ignore_host_rules: IgnoreHostRules = False,
    may: MayDo = None,
    policy: PolicyName = None,
    reason: Annotated[str, typer.Option(help="Reason, shown with the hosts while they are closed.")] = "",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Empty hosts: migrate their running VMs to other hosts. The hosts accept no VMs until they are opened again.

    With --plan, exit code 3 if a VM cannot be migrated or the time limit would be exceeded. With --watch, 7 if a VM
    stayed and 8 if the operation was stopped.
    """
    body: Json = {"hosts": hosts} | ({"policy": policy} if policy is not None else {})
    body |= {"ignore_host_rules": True} if ignore_host_rules else {}
    if finish_within is not None:
        body["finish_within_s"] = finish_within / 1000
    if may is not None:
        body["may"] = words_of(may)
    with plain_errors():
        client = client_of(api)
        if plan:
            show_preview(client.post("/v1/operations/preview", body), as_json)
            return
        more: Json = {"id": str(id or uuid4()), "reason": reason, "even_if_late": even_if_late}
        operation = begin(client, body | more)
        if watch:
            watch_operation(client, operation, as_json)
        elif as_json:
            print_json(operation)
        else:
            out.print(f"{', '.join(operation['hosts'])}: being emptied", markup=False)
            how_to_follow(operation)


def begin(client: Client, body: Json) -> Json:
    """Start the operation. Repeated if there was no response: the same ID cannot start a second operation."""
    try:
        return client.post("/v1/operations", body)
    except ApiSlow:
        err.print(f"to check whether it was started, run: sterna operation show {body['id']}")
        raise
    except ApiAway:
        return client.post("/v1/operations", body)


def operations(
    status: Annotated[list[str] | None, typer.Option(help="Only with this status; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number, newest first.")] = 50,
    cursor: PageCursor = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the operations, newest first."""
    with plain_errors():
        answer = client_of(api).get("/v1/operations", status=status, limit=limit, cursor=cursor)
        print_json(answer) if as_json else formatting.show(_table(answer["operations"]))
        print_more(answer, as_json)


@operation_app.command()
def show(id: OperationArg, api: Api = None, as_json: AsJson = False) -> None:
    """Show an operation: the state of each VM, and why VMs wait or stay."""
    with plain_errors():
        client = client_of(api)
        answer = client.get(path_of("operations", client.operation_id(id)))
        print_json(answer) if as_json else _show(answer)


@operation_app.command()
def pause(id: OperationArg, api: Api = None, as_json: AsJson = False) -> None:
    """Pause an operation. It starts no more migrations; running ones continue."""
    _order(Order.PAUSE, id, api, as_json)


@operation_app.command()
def resume(id: OperationArg, watch: Watch = False, api: Api = None, as_json: AsJson = False) -> None:
    """Resume an operation that is paused, stopped or incomplete. VMs that failed are tried again."""
    _order(Order.RESUME, id, api, as_json, watch=watch)


@operation_app.command()
def stop(id: OperationArg, watch: Watch = False, api: Api = None, as_json: AsJson = False) -> None:
    """Stop an operation: start no more migrations, and abort those that have not switched over.

    Closed hosts stay closed. Hosts that an undo has opened stay open.
    """
    _order(Order.STOP, id, api, as_json, watch=watch)


@operation_app.command()
def done(
    id: OperationArg,
    host: Annotated[str, typer.Argument(metavar="HOST", help="Name of the host.", autocompletion=completion.hosts)],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Report that the work on a host of a rolling operation is done. The host is opened once its agent is up."""
    with plain_errors():
        client = client_of(api)
        path = path_of("operations", client.operation_id(id)) + path_of("hosts", host).removeprefix("/v1")
        operation = client.post(f"{path}/done")
        print_json(operation) if as_json else out.print(f"{host}: done", markup=False)


@operation_app.command()
def undo(id: OperationArg, watch: Watch = False, api: Api = None, as_json: AsJson = False) -> None:
    """Undo an operation: stop it, open its hosts again, and migrate the VMs back.

    A VM that has been moved again since then stays where it is. A host that may be rebooted at any moment is opened
    once it is back. With --watch, exit code 7 if a VM was not brought back. Remove the reason, then run undo again.
    """
    _order(Order.UNDO, id, api, as_json, watch=watch)


def _order(order: Order, id: str, api: list[str] | None, as_json: bool, *, watch: bool = False) -> None:
    with plain_errors():
        client = client_of(api)
        operation = client.post(f"{path_of('operations', client.operation_id(id))}/{order.value}")
        if watch:
            watch_operation(client, operation, as_json)
        elif as_json:
            print_json(operation)
        else:
            out.print(f"{hosts_of(operation)}: {operation['status']}", markup=False)
            how_to_follow(operation)


def hosts_of(operation: Json) -> str:
    """The names of its hosts. A rebalance of none is one of all."""
    return names_of(operation["hosts"]) or "all hosts"


def how_to_follow(operation: Json) -> None:
    """Print the command that shows the operation."""
    out.print(f"follow it with: sterna operation show {operation['id']}")


# ---------------------------------------------------------------- watching


def watch_operation(client: Client, operation: Json, as_json: bool) -> None:
    """Print a line for each change until the end, then the operation. Exits with the code for the result; 0 if it
    was stopped by this very request."""
    try:
        ended = _until_end(client, operation["id"], err if as_json else out)
    except KeyboardInterrupt:
        err.print(f"stopped watching; the operation continues: sterna operation show {operation['id']}")
        raise typer.Exit(INTERRUPTED) from None
    print_json(ended) if as_json else _show(ended)
    stopped = operation["status"] == OperationStatus.STOPPING and ended["status"] == OperationStatus.STOPPED
    raise typer.Exit(Exit.OK if stopped else exit_of_operation(ended))


def _until_end(client: Client, id: str, console: Console) -> Json:
    last: Json = {}
    for seen in client.looks(path_of("operations", id), LOOK_S):
        if not last or _line(seen) != _line(last):
            console.print(_line(seen), markup=False)
        last = seen
        if OperationStatus(seen["status"]).final:
            break
    return last


def _line(operation: Json) -> str:
    arrived = [move["purpose"] for move in operation["moves"] if move["state"] == "arrived"]
    back = arrived.count(Purpose.BACK.value) + arrived.count(Purpose.HOME.value)
    facts = [f"{len(arrived) - back} moved"] + ([f"{back} brought back"] if back else [])
    facts += [f"{operation['running']} under way", f"{operation['waiting']} waiting"]
    if operation["left"]:
        facts.append(f"{operation['left']} stay")
    why = f"; {operation['paused_because']}" if operation["paused_because"] else ""
    return f"{operation['status']}: {', '.join([*hosts_in_words(operation), *facts])}{why}"


# ---------------------------------------------------------------- in words


def _table(listed: list[Json]) -> Table:
    """`sterna operations`."""
    made = formatting.table("ID", "KIND", "STATUS", ">UNDER WAY", ">WAIT", ">STAY", "CREATED", "~BY", "~HOSTS")
    for one in listed:
        made.add_row(
            one["id"][:8],
            one["kind"],
            formatting.coloured(one["status"]),
            str(one["running"]),
            str(one["waiting"]),
            str(one["left"]),
            one["created_at"][:19],
            safe(one["requested_by"]),
            safe(hosts_of(one)),
        )
    return made


def _show(operation: Json) -> None:
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    promised, late = operation["promised_end_s"], operation["late_s"]
    within = operation["finish_within_s"]
    for name, value in (
        ("operation", operation["id"]),
        ("kind", operation["kind"]),
        ("hosts", hosts_of(operation)),
        ("reason", operation["reason"]),
        ("requested by", operation["requested_by"]),
        ("changed by", operation["changed_by"] or ""),
        *between_in_words(operation),
        ("started", operation["created_at"][:19]),
        ("ended", (operation["ended_at"] or "")[:19]),
        ("threshold", f"{operation['threshold']:.0%}" if operation["threshold"] else ""),
        ("VMs to bring back", str(operation["to_return"]) if operation["to_return"] else ""),
        ("finish within", in_words(within) if within else ""),
        ("remaining", f"probably less than {in_words(promised)}" if promised else ""),
        ("waits for", operation["waits_for"] or ""),
        ("late by", in_words(late) if late else ""),
    ):
        if value:
            facts.add_row(name, safe(value))
    facts.add_row("status", formatting.coloured(operation["status"]))
    formatting.show(facts)
    if operation["host_steps"]:
        formatting.show(hosts_table(operation["host_steps"]))
    if operation["moves"]:
        formatting.show(_moves(operation["moves"]))
    _list_reasons(operation)


def _moves(moves: list[Json]) -> Table:
    made = formatting.table("MIGRATION", "~VM", "~FROM", "~TO", "FOR", "STATE", "~REASON")
    for move in moves:
        made.add_row(
            move["migration_id"][:8],
            safe(move["vm_name"]),
            safe(move["source"]),
            safe(move["destination"]),
            move["purpose"],
            formatting.coloured(move["state"]),
            safe(move["reason"]),
        )
    return made


def _list_reasons(answer: Json) -> None:
    for wait in answer.get("waits", ()):
        out.print(f"{wait['vm_name']} waits: {wait['reason']}", markup=False)
    for one in answer["stays"]:
        out.print(f"{one['vm_name']} stays on {one['host']}: {one['reason']}", markup=False)


def _spread(spread: Json, *, moves: bool) -> str:
    now = f"the fullest host is {spread['fullest']:.0%} full, and the emptiest {spread['emptiest']:.0%}"
    if not moves:
        return f"no move is worth it: {now}"
    return f"{now}; afterwards {spread['fullest_after']:.0%} and {spread['emptiest_after']:.0%}"


def show_preview(answer: Json, as_json: bool) -> None:
    """Print a preview. Exits with code 3 if a VM would stay, a host would be skipped, or it would be late."""
    if as_json:
        print_json(answer)
    else:
        made = formatting.table("~VM", "~FROM", "~TO", "FOR", ">BEGINS AFTER", ">ENDS AFTER")
        for move in answer["moves"]:
            made.add_row(
                safe(move["vm_name"]),
                safe(move["source"]),
                safe(move["destination"]),
                move["purpose"] + (" (runs)" if move["begun"] else ""),
                in_words(move["start_s"]),
                in_words(move["end_s"]),
            )
        formatting.show(made)
        show_waves(answer)
        if answer["spread"]:
            out.print(_spread(answer["spread"], moves=bool(answer["moves"])), markup=False)
        _list_reasons(answer)
        if answer["moves"]:
            takes = (
                f"about {in_words(answer['expected_s'])}, probably no more than {in_words(answer['promised_s'])}"
            )
            out.print(f"takes {takes}; {answer['waits_for']}".rstrip("; "), markup=False)
        if answer["unmeasured"]:
            out.print(
                f"{answer['unmeasured']} of these VMs were never measured; typical dirty rates and no local disks "
                "are assumed",
                markup=False,
            )
        for host, why in answer["unheard"].items():
            out.print(f"data about {host} may be outdated: {why}", markup=False)
        if answer["late_s"]:
            out.print(f"late by {in_words(answer['late_s'])}", style="red")
            for sentence in answer["helps"]:
                out.print(f"  {sentence}", markup=False)
    if answer["stays"] or answer["late_s"] or answer["skipped"]:
        raise typer.Exit(Exit.REFUSED)
