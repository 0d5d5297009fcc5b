"""`sterna rolling`: rolling maintenance. Hosts are drained wave by wave, maintained, and opened again."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID, uuid4

import typer

from sterna.cli import completion
from sterna.cli.client import Client, Json
from sterna.cli.exits import err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.host_steps import names_of
from sterna.cli.operation import Watch, begin, how_to_follow, show_preview, watch_operation
from sterna.cli.options import Api, AsJson, MayDo, PolicyName, client_of, print_json, words_of
from sterna.cli.quantities import duration_ms

Hosts = Annotated[
    list[str] | None,
    typer.Argument(metavar="HOST", help="Names of the hosts.", autocompletion=completion.hosts),
]
AllHosts = Annotated[bool, typer.Option("--all", help="All hosts except those in maintenance, dead or removed.")]
MostClosed = Annotated[
    int, typer.Option("--most-closed", min=1, metavar="N", help="Maximum number of hosts closed at the same time.")
]
OfOneDomain = Annotated[
    int | None,
    typer.Option("--of-one-domain", min=1, metavar="N", help="The same, per failure domain. Default: 1."),
]
Webhook = Annotated[
    str | None,
    typer.Option(
        "--between-webhook",
        metavar="URL",
        help="URL to call for each empty host. Must be allowed in the controller's settings ([fleet] webhooks).",
    ),
]
ByHand = Annotated[
    bool, typer.Option("--by-hand", help="Wait for `sterna operation done ID HOST` on each empty host.")
]
BackWithin = Annotated[
    float | None,
    typer.Option(
        "--back-within",
        parser=duration_ms,
        metavar="TIME",
        help="Pause the operation if a host takes longer to come back, e.g. 1h. Default: 30m.",
    ),
]
AgentVersion = Annotated[
    str | None,
    typer.Option(
        "--agent-version", metavar="V", help="Version that the agent must have before its host is opened."
    ),
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Show the plan, and change nothing.")]
Id = Annotated[
    UUID | None, typer.Option("--id", help="UUID for the operation. Repeating a request with it is safe.")
]
Reason = Annotated[str, typer.Option(help="Reason, shown with the hosts while they are closed.")]


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
    """Maintain hosts wave by wave: drain them, have them upgraded or rebooted, and open them again.

    Without --between-webhook and --by-hand, the controller runs the command in its settings ([fleet] between) for
    each empty host. If there is none, restart each empty host or its agent yourself. A host is opened again once
    its agent has restarted (or the host was reported as done) and is up. With --plan, exit code 3 if a host would
    be skipped. With --watch, 7 if one was skipped and 8 if the operation was stopped.
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
            out.print(f"{names_of(operation['hosts'])}: rolling maintenance started", markup=False)
            how_to_follow(operation)


def _named(client: Client, hosts: list[str], *, all_hosts: bool) -> list[str]:
    """The hosts that were named, or all eligible ones. Raises typer.BadParameter."""
    if all_hosts == bool(hosts):
        raise typer.BadParameter("give either the names of hosts or --all")
    if not all_hosts:
        return hosts
    found = client.pages("/v1/hosts", "hosts", None)["hosts"]
    closed = [host["name"] for host in found if host["maintenance"]]
    if closed:
        err.print(f"not included, because in maintenance: {', '.join(closed)}")
    named = [host["name"] for host in found if not host["maintenance"] and host["state"] != "dead"]
    if not named:
        raise typer.BadParameter("all hosts are in maintenance or dead: `sterna hosts` lists them")
    return named
