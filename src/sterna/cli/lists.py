"""`sterna hosts` and `sterna vms`: the whole list, or one page."""

from __future__ import annotations

from typing import Annotated

import typer

from sterna.cli import formatting
from sterna.cli.cpus import show as show_cpus
from sterna.cli.exits import Exit, err, plain_errors, print_more, print_no_host, print_silent
from sterna.cli.host import show_hosts
from sterna.cli.options import Api, AsJson, OnHost, PageCursor, PageLimit, client_of, print_json


def hosts(
    state: Annotated[list[str] | None, typer.Option(help="Only hosts in this state; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Only hosts whose names contain this.")] = None,
    cpu: Annotated[
        bool,
        typer.Option("--cpu", help="Compare the CPUs of all hosts: what they have in common, and what is missing."),
    ] = False,
    limit: PageLimit = None,
    cursor: PageCursor = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the hosts, with the reason if one cannot be used. Exit code 6 if no host is known.

    With --cpu: the features and CPU models that all hosts have, and between which hosts a VM with host-model or
    host-passthrough cannot be migrated, with the missing features.
    """
    if cpu and (state or name or limit or cursor):
        raise typer.BadParameter("--cpu compares all hosts: it allows no --state, --name, --limit or --cursor")
    with plain_errors():
        if cpu:
            compared = client_of(api).get("/v1/cpus")
            print_json(compared) if as_json else show_cpus(compared)
            if not compared["groups"] and not compared["unknown"]:
                err.print("no host is known: see `sterna hosts`", style="yellow")
                raise typer.Exit(Exit.UNREACHABLE)
            return
        answer = client_of(api).pages("/v1/hosts", "hosts", limit, cursor, state=state, name=name)
        print_json(answer) if as_json else show_hosts(answer["hosts"])
        print_more(answer, as_json)
        if insecure := answer.get("insecure"):
            err.print(f"insecure: {insecure}", style="yellow")
        if not answer["hosts"] and not (state or name or cursor):
            print_no_host(answer["bus"])
            raise typer.Exit(Exit.UNREACHABLE)


def vms(
    host: OnHost = None,
    state: Annotated[list[str] | None, typer.Option(help="Only VMs in this state; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Only VMs whose names contain this.")] = None,
    limit: PageLimit = None,
    cursor: PageCursor = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the VMs of all hosts.

    Exit code 6 if a host does not answer; hosts that were declared dead do not count. Its VMs are shown as last
    seen.
    """
    with plain_errors():
        client = client_of(api)
        answer = client.pages("/v1/vms", "vms", limit, cursor, host=host, state=state, name=name)
        print_json(answer) if as_json else formatting.show(formatting.vms(answer["vms"]))
        print_more(answer, as_json)
        print_silent("no answer, VMs as last seen", answer)
        if not answer["complete"]:
            if not answer["silent_hosts"]:
                print_no_host(client.get("/v1/hosts", limit=1)["bus"])
            raise typer.Exit(Exit.UNREACHABLE)
