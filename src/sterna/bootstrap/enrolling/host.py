"""`sterna host add` and `sterna host remove`: who may join the fleet. They need the CA's folder."""

from __future__ import annotations

import typer

from sterna.bootstrap.enrolling.ca import print_revoked
from sterna.bootstrap.enrolling.common import CA_FOLDER, Addresses, CaFolder, authority_in, plain
from sterna.cli.exits import err
from sterna.cli.host import host_app
from sterna.cli.options import AsJson, HostArg, print_json
from sterna.domain.trust.identities import Kind, identity
from sterna.domain.trust.join_token import VALID

MINUTES = round(VALID.total_seconds() / 60)


@host_app.command()
def add(name: HostArg, address: Addresses = None, ca: CaFolder = CA_FOLDER, as_json: AsJson = False) -> None:
    """Print a token with which a host can join, once, within 15 minutes.

    Give all addresses of the host in migration networks, because libvirt and QEMU check them in its certificate. A
    host that is already enrolled can join again; its current certificate is then revoked.
    """
    with plain():
        who = identity(Kind.AGENT, name)
        token = authority_in(ca).invite(who, address)
        if as_json:
            print_json({"host": name, "token": token.word, "fingerprint": token.fingerprint})
            return
        typer.echo(token.word)
        err.print(
            f"within {MINUTES} minutes, on {name}: sterna agent join - --server https://CONTROLLER:8774",
            soft_wrap=True,
        )
        err.print("it reads the token from standard input, so that no list of processes shows it")
        err.print(
            "a host that cannot reach the controller uses `sterna agent request` and `sterna ca sign` instead"
        )
        if not address:
            err.print(
                "no --address was given: the host keeps its previous addresses; without any, its certificate is "
                "for "
                "the bus only",
                soft_wrap=True,
            )


@host_app.command()
def remove(name: HostArg, ca: CaFolder = CA_FOLDER) -> None:
    """Revoke a host's certificates. Its VMs keep running.

    A running controller that has the CA sends the list of revoked certificates to all agents. It removes the host
    from the bus if its settings have `[bus_server]`. Otherwise run `sterna bus config` now, and reload nats-server.
    """
    with plain():
        authority_in(ca).remove(identity(Kind.AGENT, name))
        print_revoked(name, ca)
