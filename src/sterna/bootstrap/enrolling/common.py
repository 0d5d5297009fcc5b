"""What the commands of enrolment share: options, errors as exit codes, files that are read and written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sterna.cli.exits import Exit, err
from sterna.domain.errors import BadRequest, Conflict, NotFound, SternaError, Temporary

if TYPE_CHECKING:
    from sterna.adapters.identity.authority import Authority

CA_FOLDER = Path("/etc/sterna/ca")
OWN_FOLDER = Path("/etc/sterna/identity")
BUS_FOLDER = Path("/etc/nats/identity")
"""Key and certificate of nats-server."""

CaFolder = Annotated[
    Path, typer.Option("--ca", envvar="STERNA_CA", metavar="FOLDER", help="Folder of the CA, on this machine.")
]
OwnFolder = Annotated[
    Path,
    typer.Option("--folder", metavar="FOLDER", help="Folder of key and certificate, as in [identity]."),
]
Addresses = Annotated[
    list[str] | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Address that the certificate is issued for; may be repeated. Default: the addresses of the previous "
        "certificate.",
    ),
]
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="File to write. Default: standard output.")
]

_CODES: dict[type[SternaError], Exit] = {
    BadRequest: Exit.USAGE,
    Conflict: Exit.CONFLICT,
    NotFound: Exit.NOT_FOUND,
    Temporary: Exit.UNREACHABLE,
}


@contextmanager
def plain() -> Iterator[None]:
    """Prints errors on stderr, each with a fix, and turns them into exit codes."""
    try:
        yield
    except SternaError as error:
        err.print(f"sterna: {error.message}", style="red")
        if error.fix:
            err.print(f"  fix: {error.fix}")
        codes = (_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
        raise typer.Exit(next(codes, Exit.UNEXPECTED)) from None


def authority_in(folder: Path) -> Authority:
    """The CA in this folder. Raises NotFound or BadRequest."""
    from sterna.adapters.identity.authority import Authority

    return Authority.open(folder)


def read_file(path: Path) -> bytes:
    """A file named on the command line; `-` is standard input. Raises BadRequest."""
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be read: {error.strerror or error}", fix="check the path and its permissions"
        ) from error


def write_out(path: Path | None, content: bytes, mode: int = 0o644) -> None:
    """To this file, whole or not at all, or to standard output. Nothing of it is secret. Raises BadRequest."""
    from sterna.adapters.identity import private_files

    if path is None:
        typer.echo(content.decode(), nl=False)
    else:
        private_files.write(path.absolute(), content, mode)
