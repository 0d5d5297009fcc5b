"""`sterna rebalance` and `sterna bring-back`: operations that move VMs and close no host."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID, uuid4

import typer

from sterna.cli import completion
from sterna.cli.client import Json
from sterna.cli.exits import plain_errors
from sterna.cli.formatting import out
from sterna.cli.operation import Hosts, Watch, begin, hosts_of, how_to_follow, show_preview, watch_operation
from sterna.cli.options import Api, AsJson, MayDo, PolicyName, client_of, print_json, words_of

PlanOnly = Annotated[bool, typer.Option("--plan", help="Show the plan, and change nothing.")]
Id = Annotated[
    UUID | None, typer.Option("--id", help="UUID for the operation. Repeating a request with it is safe.")
]
Reason = Annotated[str, typer.Option(help="Reason, shown with the operation.")]


def rebalance(  # noqa: PLR0913 - one option per setting
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST", help="Names of the hosts. None: all hosts.", autocompletion=completion.hosts
        ),
    ] = None,
    *,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=99,
            metavar="PERCENT",
            help="Leave hosts alone that differ by no more than this in memory or vCPUs. Default: 20.",
        ),
    ] = None,
    plan: PlanOnly = False,
    watch: Watch = False,
    id: Id = None,
    may: MayDo = None,
    policy: PolicyName = None,
    reason: Reason = "",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Move VMs from full hosts to emptier ones, until no move is worth it. Off by default ([fleet] rebalance).

    Each move makes the fuller of its two hosts emptier by at least a tenth of their difference. Placement rules and
    spare hosts are respected. With --watch, exit code 8 if the operation was stopped.
    """
    body: Json = {"kind": "rebalance", "hosts": hosts or []} | _more(may, policy)
    if threshold is not None:
        body["threshold"] = threshold / 100
    _run(body, id, reason, api, as_json, plan=plan, watch=watch)


def bring_back(  # noqa: PLR0913 - one option per setting
    hosts: Hosts,
    *,
    plan: PlanOnly = False,
    watch: Watch = False,
    id: Id = None,
    may: MayDo = None,
    policy: PolicyName = None,
    reason: Reason = "",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Return VMs to the hosts that drains and rolling maintenance have moved them away from.

    A VM that somebody has moved again since then stays where it is. Open the hosts first. With --plan, exit code 3
    if a VM would stay. With --watch, 7 if a VM was not brought back and 8 if the operation was stopped.
    """
    body: Json = {"kind": "bring-back", "hosts": hosts} | _more(may, policy)
    _run(body, id, reason, api, as_json, plan=plan, watch=watch)


def _more(may: list[str] | None, policy: str | None) -> Json:
    found: Json = {"policy": policy} if policy is not None else {}
    return found | ({"may": words_of(may)} if may is not None else {})


def _run(
    body: Json, id: UUID | None, reason: str, api: list[str] | None, as_json: bool, *, plan: bool, watch: bool
) -> None:
    with plain_errors():
        client = client_of(api)
        if plan:
            show_preview(client.post("/v1/operations/preview", body), as_json)
            return
        operation = begin(client, body | {"id": str(id or uuid4()), "reason": reason})
        if watch:
            watch_operation(client, operation, as_json)
        elif as_json:
            print_json(operation)
        else:
            out.print(f"{hosts_of(operation)}: {operation['kind']} started", markup=False)
            how_to_follow(operation)
