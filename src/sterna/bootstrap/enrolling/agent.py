"""`sterna agent join` and `sterna agent request`: how a host gets its certificate."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sterna.bootstrap.enrolling.common import OWN_FOLDER, OutFile, OwnFolder, plain, read_file, write_out
from sterna.bootstrap.enrolling.libvirt import Libvirt, Overwrite, QemuGroup, group_id, look, write
from sterna.cli.doctor import Quiet, exit_of, show
from sterna.cli.exits import err
from sterna.cli.options import AsJson, print_json
from sterna.domain.errors import BadRequest
from sterna.domain.trust.identities import Kind, identity
from sterna.domain.trust.join_token import JoinToken, read
from sterna.kit.clock import SystemClock
from sterna.kit.loop import run as run_on_loop

if TYPE_CHECKING:
    from sterna.adapters.identity.own import OwnFiles

agent_app = typer.Typer(help="Run the agent of this compute host until SIGTERM. Running copies continue.")

_BUS_FOLLOWS = "nats-server accepts it once its configuration is updated: by `[bus_server]`, or `sterna bus config`"
_LONGEST_TOKEN = 4096


@agent_app.command()
def join(
    token: Annotated[
        str,
        typer.Argument(
            metavar="-",
            help="`-` reads the token (printed by `sterna host add`) from standard input. You can give the token "
            "itself instead, but then every user of this host can read it.",
        ),
    ],
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="URL", help="URL of the controller, e.g. https://10.0.0.1:8774."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="Output of `sterna ca sign`, instead of a controller."),
    ] = None,
    folder: OwnFolder = OWN_FOLDER,
    libvirt: Libvirt = False,
    overwrite: Overwrite = False,
    qemu_group: QemuGroup = None,
) -> None:
    """Join the fleet: get a certificate for this host. Its private key is created here, and stays here.

    Nothing is sent until the CA's fingerprint matches the one in the token. With --libvirt, libvirt's TLS and
    QEMU's streams use the same certificate. Files that Sterna did not write are replaced only with --overwrite.
    """
    with plain():
        known = read(_token(token))
        from sterna.adapters.identity.own import OwnFiles
        from sterna.adapters.identity.pki_files import PkiFiles

        own, files = OwnFiles(folder.absolute()), PkiFiles(folder.absolute())
        if (server is None) == (certificate is None):
            raise BadRequest(
                "exactly one of --server and --certificate is needed",
                fix="give --server URL, or --certificate FILE (see `sterna agent request`)",
            )
        if libvirt:
            look(files, overwrite=overwrite)
            group_id(qemu_group)
        if certificate is not None:
            _accept(own, known, certificate)
        else:
            asyncio.run(_ask(own, known, str(server)))
        err.print(f"{known.host} has joined; key, certificate and CA are in {folder.absolute() / 'current'}")
        err.print(f"in [identity] of the settings, set {_settings(server)}; then restart the agent")
        err.print(_BUS_FOLLOWS)
        if libvirt:
            write(files, qemu_group)


@agent_app.command()
def doctor(
    config: Annotated[Path, typer.Option("--config", help="Settings, a TOML file.", show_default=False)],
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="ADDRESS", help="Migration address of another host; may be repeated."),
    ] = None,
    problems: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check every requirement of this host. Each line says ok, warning or wrong, and how to fix it.

    Run it as root. The agent need not run. With --peer, also check whether the other host's libvirtd can be
    reached. `sterna doctor` checks all hosts, with streams and shared folders between them. Exit code 0 if nothing
    is wrong (warnings do not count), 11 if something is.
    """
    with plain():
        from sterna.bootstrap.doctor import examine

        findings = [finding.model_dump(mode="json") for finding in run_on_loop(examine(config, peer or []))]
        if as_json:
            print_json({"findings": findings})
        else:
            show(findings, problems=problems)
        raise typer.Exit(exit_of(findings))


def _token(argument: str) -> str:
    """The token itself. One on the command line is in the list of processes while the host joins."""
    if argument == "-":
        if sys.stdin.isatty():
            err.print("paste the token that `sterna host add` printed, and press Enter:")
        return sys.stdin.buffer.readline(_LONGEST_TOKEN).decode(errors="replace")
    err.print(
        "warning: every user of this host can read a token that is given as an argument (ps), and could join in "
        "this host's place; pass the token on standard input instead: sterna agent join - ...",
        soft_wrap=True,
    )
    return argument


def _settings(server: str | None) -> str:
    if server is None:
        return 'enrol = "sterna"'
    return f'enrol = "sterna" and server = "{server}", which renews the certificate'


async def _ask(own: OwnFiles, token: JoinToken, server: str) -> None:
    from sterna.adapters.identity.https_desk import HttpsDesk
    from sterna.adapters.identity.x509 import fingerprint, read_certificates
    from sterna.joining import join

    def fingerprint_of(pem: str) -> str:
        return fingerprint(read_certificates(pem, server)[0])

    await join(token, HttpsDesk(server), own, SystemClock(), fingerprint_of)


def _accept(own: OwnFiles, token: JoinToken, file: Path) -> None:
    from sterna.adapters.identity.x509 import pem_of, read_certificates
    from sterna.domain.trust.joining import JoinAnswer

    found = read_certificates(read_file(file), str(file))
    if len(found) != 2:
        raise BadRequest(
            f"{file} has {len(found)} certificates, not 2", fix="give the file that `sterna ca sign` wrote"
        )
    certificate, ca = (pem_of(one).decode() for one in found)
    own.accept(JoinAnswer(certificate=certificate, ca=ca), token.host, token.fingerprint, SystemClock().now())


@agent_app.command()
def request(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of this host, as in `host` of its settings.")],
    folder: OwnFolder = OWN_FOLDER,
    out_file: OutFile = None,
) -> None:
    """Print a certificate request, for a host that cannot reach the controller. The private key stays here.

    Take it to the CA's machine: `sterna ca sign FILE`. Until the host has joined, the command prints the same
    request.
    """
    with plain():
        from sterna.adapters.identity.own import OwnFiles

        who = identity(Kind.AGENT, name)
        write_out(out_file, OwnFiles(folder.absolute()).request(who.name).encode())
