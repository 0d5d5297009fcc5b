"""`sterna host ...`: maintenance, enrolment, and declarations about a host."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sterna.cli import formatting
from sterna.cli.client import Json, path_of
from sterna.cli.exits import err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, HostArg, client_of, print_json

host_app = typer.Typer(no_args_is_help=True, help="Manage hosts: maintenance, enrolment, dead hosts.")


@host_app.command("list")
def list_enrolled(api: Api = None, as_json: AsJson = False) -> None:
    """List enrolled and removed hosts, with the expiry dates of their certificates.

    Exit code 5 if the controller has no CA. `sterna hosts` lists all hosts that have sent a heartbeat.
    """
    with plain_errors():
        answer = client_of(api).get("/v1/enrolments")
        if as_json:
            print_json(answer)
            return
        formatting.show(formatting.enrolments(answer["hosts"]))
        for line in formatting.enrolment_notes(answer["hosts"]):
            out.print(line, markup=False)


@host_app.command()
def maintenance(
    name: HostArg,
    on: Annotated[bool, typer.Option("--on/--off", help="A host in maintenance accepts no VMs.")] = True,
    reason: Annotated[str, typer.Option(help="Reason, shown while the host is in maintenance.")] = "",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Put a host into maintenance, or take it out of maintenance. Its VMs keep running."""
    with plain_errors():
        why = {"reason": reason} if reason else {}
        answer = client_of(api).patch(path_of("hosts", name), {"maintenance": on} | why)
        print_json(answer) if as_json else show_hosts([answer])


@host_app.command("declare-dead")
def declare_dead(
    name: HostArg,
    fenced: Annotated[
        bool,
        typer.Option(
            "--fenced", help="Confirm that the host is powered off and stays off. Without it, a prompt asks you."
        ),
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Declare that a host is fenced and will not come back. Its migrations are then ended without it.

    On a terminal, first shows what each remaining host will do, and asks for confirmation. Exit code 3 if the host
    still answers, or without confirmation.
    """
    with plain_errors():
        client = client_of(api)
        path = path_of("hosts", name) + "/declare-dead"
        if not fenced and not as_json and _asks():
            _show_death(client.get(path))
            fenced = _confirmed(name)
        answer = client.post(path, {"fenced": fenced})
        print_json(answer) if as_json else _show_death(answer)


def show_hosts(listed: list[Json]) -> None:
    """Print the table, and below it a line for each host that needs attention."""
    formatting.show(formatting.hosts(listed))
    for line in formatting.host_notes(listed):
        out.print(line, markup=False)


def _show_death(answer: Json) -> None:
    if answer["migrations"]:
        formatting.show(formatting.death(answer))
    else:
        out.print(f"no answering host has an open migration with {answer['host']}", markup=False)
    if answer["silent_hosts"]:
        err.print(f"will be notified when they are back: {', '.join(answer['silent_hosts'])}", style="yellow")


def _asks() -> bool:
    """Whether standard input is a terminal."""
    return sys.stdin.isatty()


def _confirmed(name: str) -> bool:
    err.print(
        f"You confirm that {name} is powered off, that nothing runs on it, and that it will not start by itself.\n"
        "If that is wrong, a VM can run twice, which can destroy its disks.",
        style="red",
    )
    return bool(typer.prompt("Type the host's name to confirm", default="", show_default=False) == name)


@host_app.command("pin")
def pin_host(
    name: HostArg,
    uuid: Annotated[str, typer.Argument(help="Its UUID in libvirt now: `virsh capabilities` shows it.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Let a host's name belong to another UUID.

    For a host whose host_uuid was changed in libvirtd.conf: its heartbeats are refused until then. Needs the role
    admin.
    """
    with plain_errors():
        answer = client_of(api).post(path_of("hosts", name) + "/pin", {"host_uuid": uuid})
        print_json(answer) if as_json else show_hosts([answer])


@host_app.command("declare-alive")
def declare_alive(name: HostArg, api: Api = None, as_json: AsJson = False) -> None:
    """Withdraw the declaration that a host is dead. Actions already taken because of it are not undone."""
    with plain_errors():
        answer = client_of(api).post(path_of("hosts", name) + "/declare-alive")
        print_json(answer) if as_json else show_hosts([answer])
