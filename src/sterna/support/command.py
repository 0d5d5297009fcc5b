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
    typer.Option(
        "--out",
        metavar="FILE",
        help="Output file. Default: sterna-support-MACHINE-TIME.tar.gz in the current folder.",
    ),
]
Migrations = Annotated[
    list[str] | None,
    typer.Option(
        "--migration",
        metavar="ID",
        help="Include this migration with its timeline: its ID, or its first characters; may be repeated.",
        autocompletion=completion.migrations,
    ),
]
Configs = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file to include; may be repeated. Default: agent.toml and controller.toml in /etc/sterna.",
    ),
]
Lines = Annotated[
    int, typer.Option("--lines", min=0, max=100_000, help="Lines of each log in systemd's journal. 0: none.")
]
WithDoctor = Annotated[bool, typer.Option("--doctor/--no-doctor", help="Include the results of `sterna doctor`.")]


def support_bundle(
    out_file: Out = None,
    migration: Migrations = None,
    config: Configs = None,
    lines: Lines = 2000,
    doctor: WithDoctor = True,
    api: Api = None,
) -> None:
    """Write a file for support: versions, settings, checks, logs, hosts, operations, migrations.

    Passwords, tokens and keys are removed. Names of VMs and hosts, and addresses, are not. The command lists what
    it could not collect. Run it as root on the machine that has the problem, to include its settings and logs.
    """
    with plain_errors():
        from sterna.support import gathering
        from sterna.support.bundle import Bundle, write

        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        bundle = Bundle(f"sterna-support-{socket.gethostname().partition('.')[0]}-{now}")
        place = out_file or Path(f"{bundle.name}.tar.gz")
        err.print("collecting; this can take some minutes" if doctor else "collecting")
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
        out.print(f"written to {place} ({amounts.size(len(content))}), readable by its owner only", markup=False)
        err.print("it contains names of VMs and hosts, and addresses: review it before you share it")
