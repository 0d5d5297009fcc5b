"""`sterna rolling`: hosts are emptied wave by wave, something is done to them, and they are opened again."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID, uuid4

import typer

from sterna.cli.client import Client, Json
from sterna.cli.exits import err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.host_steps import names_of
from sterna.cli.operation import Watch, begin, how_to_follow, show_preview, watch_operation
from sterna.cli.options import Api, AsJson, MayDo, PolicyName, client_of, print_json, words_of
from sterna.cli.quantities import duration_ms

Hosts = Annotated[list[str] | None, typer.Argument(metavar="HOST", help="Names of the hosts.")]
AllHosts = Annotated[bool, typer.Option("--all", help="All hosts but those in maintenance, dead or removed.")]
MostClosed = Annotated[
    int, typer.Option("--most-closed", min=1, metavar="N", help="Hosts that are closed at once, at most.")
]
OfOneDomain = Annotated[
    int | None,
    typer.Option("--of-one-domain", min=1, metavar="N", help="The same of one failure domain. Default: 1."),
]
Webhook = Annotated[
    str | None,
    typer.Option(
        "--between-webhook",
        metavar="URL",
        help="Called for each empty host. The controller's settings have to allow it ([fleet] webhooks).",
    ),
]
ByHand = Annotated[
    bool, typer.Option("--by-hand", help="A host is done when `sterna operation done ID HOST` says so.")
]
BackWithin = Annotated[
    float | None,
    typer.Option(
        "--back-within",
        parser=duration_ms,
        metavar="TIME",
        help="A host that takes longer pauses the operation, e.g. 1h. Default: 30m.",
    ),
]
AgentVersion = Annotated[
    str | None,
    typer.Option(
        "--agent-version", metavar="V", help="The agent has to have this version before its host is opened."
    ),
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Only show what would be done.")]
Id = Annotated[
    UUID | None, typer.Option("--id", help="ID of the operation. A request may be repeated with the same ID.")
]
Reason = Annotated[str, typer.Option(help="Why: shown with the hosts while they take no VMs.")]


def rolling(  # noqa: PLR0913 - one option per setting
    hosts: Hosts = None,
    *,
    all_hosts: AllHosts = False,
    most_closed: MostClosed = 1,
    of_one_domain: OfOneDomain = None,
    webhook: Webhook = None,
    by_hand: ByHand = False,
    back_within: BackWithin = None,
    agent_version: AgentVersion = None,
    plan: PlanOnly = False,
    watch: Watch = False,
    id: Id = None,
    may: MayDo = None,
    policy: PolicyName = None,
    reason: Reason = "",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Wave by wave: empty hosts, let something be done to them, and open them again.

    Without --between-webhook and --by-hand the controller runs the command of its settings ([fleet] between). Where
    there is none, somebody restarts each empty host, or its agent. A host is open again when its agent has
    restarted, or was said to be done, and is up. With --plan, exit code 3 when a host would be skipped. With
    --watch, 7 when one was skipped and 8 when the operation was stopped.
    """
    between: Json = {"by_hand": by_hand, "webhook": webhook, "agent_version": agent_version}
    body: Json = {"kind": "rolling", "most_closed": most_closed, "between": between}
    body |= {"policy": policy} if policy is not None else {}
    body |= {"of_one_domain": of_one_domain} if of_one_domain is not None else {}
    if back_within is not None:
        between["back_within_s"] = back_within / 1000
    if may is not None:
        body["may"] = words_of(may)
    with plain_errors():
        client = client_of(api)
        body["hosts"] = _named(client, hosts or [], all_hosts=all_hosts)
        if plan:
            show_preview(client.post("/v1/operations/preview", body), as_json)
            return
        operation = begin(client, body | {"id": str(id or uuid4()), "reason": reason})
        if watch:
            watch_operation(client, operation, as_json)
        elif as_json:
            print_json(operation)
        else:
            out.print(f"{names_of(operation['hosts'])}: one wave after the other", markup=False)
            how_to_follow(operation)


def _named(client: Client, hosts: list[str], *, all_hosts: bool) -> list[str]:
    """The hosts that are meant. Raises typer.BadParameter."""
    if all_hosts == bool(hosts):
        raise typer.BadParameter("name the hosts, or give --all")
    if not all_hosts:
        return hosts
    found = client.pages("/v1/hosts", "hosts", None)["hosts"]
    closed = [host["name"] for host in found if host["maintenance"]]
    if closed:
        err.print(f"left out, in maintenance: {', '.join(closed)}")
    named = [host["name"] for host in found if not host["maintenance"] and host["state"] != "dead"]
    if not named:
        raise typer.BadParameter("there is no host that is not in maintenance: `sterna hosts` lists them")
    return named
