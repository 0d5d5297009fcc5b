"""`sterna bus config`: writes the configuration of nats-server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sterna.bootstrap.enrolling.common import (
    BUS_FOLDER,
    CA_FOLDER,
    CaFolder,
    OutFile,
    authority_in,
    plain,
    write_out,
)
from sterna.cli.exits import err
from sterna.domain.errors import BadRequest
from sterna.domain.trust.bus_config import BusServer, bus_config
from sterna.domain.trust.enrolment import on_the_bus
from sterna.domain.trust.identities import Identity, Kind, identity

bus_app = typer.Typer(no_args_is_help=True, help="Configure the message bus.")

Users = list[tuple[Identity, str]]


def _external(kind: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{kind}",
        metavar="NAME=SAN",
        help=f"A {kind} with a certificate of your own CA, and a DNS name in it; may be repeated.",
    )
    return option


@bus_app.command()
def config(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="Where nats-server listens, e.g. 10.0.0.1:4222.")
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help="Folder of nats-server's key and certificate (`sterna ca issue bus`).",
        ),
    ] = BUS_FOLDER,
    host: Annotated[list[str] | None, _external("host")] = None,
    controller: Annotated[list[str] | None, _external("controller")] = None,
    ca: CaFolder = CA_FOLDER,
    out_file: OutFile = None,
) -> None:
    """Write a complete configuration of nats-server: mutual TLS, and rights for each host and controller.

    The configuration contains all hosts and controllers that the CA has enrolled, or with --host and --controller
    those with certificates from another CA. Check it with `nats-server -t -c FILE`, and reload a running server
    with `nats-server --signal reload`. A controller with `[bus_server]` in its settings does all this whenever the
    list changes.
    """
    with plain():
        users = _named(host or [], Kind.AGENT) + _named(controller or [], Kind.CONTROLLER)
        if not users:
            users = list(on_the_bus(authority_in(ca).register()))
        write_out(out_file, bus_config(BusServer.of(listen, str(folder.absolute())), users).encode())
        if not any(who.kind is Kind.CONTROLLER for who, _ in users):
            err.print("no controller is enrolled: `sterna ca issue controller NAME`", style="yellow")


def _named(given: list[str], kind: Kind) -> Users:
    """`host1=host1.example.org`, or a name alone for one that is in the certificate as `host1.agents.sterna`."""
    found = []
    for text in given:
        name, _, san = text.partition("=")
        who = identity(kind, name)
        if any(c.isspace() for c in san):
            raise BadRequest(f"{text[:80]!r} is not NAME=SAN", fix="write host1=host1.example.org")
        found.append((who, san or who.dns_name))
    return found
