"""`sterna support-bundle`, as it is typed."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sterna.cli import completion
from sterna.cli.exits import Exit, err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api
from sterna.domain import amounts

USUAL = (Path("/etc/sterna/agent.toml"), Path("/etc/sterna/controller.toml"))

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="File to write. Default: sterna-support-MACHINE-TIME.tar.gz here."),
]
Migrations = Annotated[
    list[str] | None,
    typer.Option(
        "--migration",
        metavar="ID",
        help="With every step of this migration: its ID, or its first characters; may be repeated.",
        autocompletion=completion.migrations,
    ),
]
Configs = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings of a process; may be repeated. Default: agent.toml and controller.toml in /etc/sterna.",
    ),
]
Lines = Annotated[
    int, typer.Option("--lines", min=0, max=100_000, help="Of each process's log in systemd's journal. 0: none.")
]
WithDoctor = Annotated[
    bool, typer.Option("--doctor/--no-doctor", help="Examine the hosts for it, as `sterna doctor` does.")
]


def support_bundle(
    out_file: Out = None,
    migration: Migrations = None,
    config: Configs = None,
    lines: Lines = 2000,
    doctor: WithDoctor = True,
    api: Api = None,
) -> None:
    """Write one file with what somebody needs who helps: versions, settings, checks, logs, hosts, migrations.

    Passwords, tokens and keys are left out. Names of VMs and hosts, and addresses, are in it. What could not be had
    is named. Run it as root on the machine with the trouble, to have its settings and logs.
    """
    with plain_errors():
        from sterna.support import gathering
        from sterna.support.bundle import Bundle, write

        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        bundle = Bundle(f"sterna-support-{socket.gethostname().partition('.')[0]}-{now}")
        place = out_file or Path(f"{bundle.name}.tar.gz")
        err.print("looking; this takes up to some minutes" if doctor else "looking")
        given = [file for file in USUAL if file.exists()] if config is None else config
        gathering.machine(bundle, given, lines=lines, doctor=doctor)
        bundle.attempt("the fleet", lambda: gathering.fleet(bundle, api, migration or [], doctor=doctor))
        content = bundle.packed()
        try:
            write(place, content)
        except OSError as error:
            err.print(f"sterna: {place} cannot be written: {error.strerror}", style="red")
            raise typer.Exit(Exit.UNEXPECTED) from None
        for name in bundle.texts:
            out.print(f"  {name}", markup=False)
        for one in bundle.missing:
            err.print(f"missing: {one}", style="yellow")
        out.print(f"written to {place} ({amounts.size(len(content))}), for its owner only", markup=False)
        err.print("names of VMs and hosts, and addresses, are in it: look at it before you hand it on")
