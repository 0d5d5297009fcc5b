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
    """Let a host join: prints a token that is valid once, for 15 minutes.

    Name all addresses of the host in migration networks: libvirt and QEMU look for them in its certificate. A host
    that is enrolled already may join again; its present certificate is revoked when it does.
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
        err.print("it reads the token from standard input: no list of processes shows it")
        err.print("a host that cannot reach the controller joins by files: sterna agent request, sterna ca sign")
        if not address:
            err.print("no --address was given: what it had before is kept, or the certificate serves the bus only")


@host_app.command()
def remove(name: HostArg, ca: CaFolder = CA_FOLDER) -> None:
    """Revoke a host's certificates. Its VMs keep running.

    A running controller that has the CA hands the list of revoked certificates to all agents. It takes the host off
    the bus if its settings have `[bus_server]`. Else do that now: `sterna bus config`, and reload nats-server.
    """
    with plain():
        authority_in(ca).remove(identity(Kind.AGENT, name))
        print_revoked(name, ca)
