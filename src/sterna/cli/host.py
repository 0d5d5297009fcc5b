"""`sterna host ...`: what an operator declares about a host."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sterna.cli import formatting
from sterna.cli.client import Json, path_of
from sterna.cli.exits import err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, HostArg, client_of, print_json

host_app = typer.Typer(no_args_is_help=True, help="Change a host.")


@host_app.command("list")
def list_enrolled(api: Api = None, as_json: AsJson = False) -> None:
    """List the hosts that were enrolled, until when their certificates are valid, and which were removed.

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
    on: Annotated[bool, typer.Option("--on/--off", help="In maintenance a host takes no VMs.")] = True,
    reason: Annotated[str, typer.Option(help="Why: shown while it is in maintenance.")] = "",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Put a host into maintenance, or take it out. Its VMs keep running."""
    with plain_errors():
        why = {"reason": reason} if reason else {}
        answer = client_of(api).patch(path_of("hosts", name), {"maintenance": on} | why)
        print_json(answer) if as_json else show_hosts([answer])


@host_app.command("declare-dead")
def declare_dead(
    name: HostArg,
    fenced: Annotated[
        bool, typer.Option("--fenced", help="It is powered off and stays off. Without this option you are asked.")
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Declare that a host is fenced and will not come back. Its migrations are ended without it.

    First shows what each remaining host will do. Exit code 3 while the host answers, or without confirmation.
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
    """The table, and below it why hosts are not up."""
    formatting.show(formatting.hosts(listed))
    for line in formatting.host_notes(listed):
        out.print(line, markup=False)


def _show_death(answer: Json) -> None:
    if answer["migrations"]:
        formatting.show(formatting.death(answer))
    else:
        out.print(f"no host that answers has an open migration with {answer['host']}", markup=False)
    if answer["silent_hosts"]:
        err.print(f"will be notified when they are back: {', '.join(answer['silent_hosts'])}", style="yellow")


def _asks() -> bool:
    """Is there a person to ask?"""
    return sys.stdin.isatty()


def _confirmed(name: str) -> bool:
    err.print(
        f"You confirm that {name} is powered off, that nothing runs on it, and that it will not start by itself.\n"
        "If that is wrong, a VM can run twice, which can destroy its disks.",
        style="red",
    )
    return bool(typer.prompt("Type the host's name to confirm", default="", show_default=False) == name)


@host_app.command("declare-alive")
def declare_alive(name: HostArg, api: Api = None, as_json: AsJson = False) -> None:
    """Take back a declaration that a host is dead. What has been done because of it stays done."""
    with plain_errors():
        answer = client_of(api).post(path_of("hosts", name) + "/declare-alive")
        print_json(answer) if as_json else show_hosts([answer])
