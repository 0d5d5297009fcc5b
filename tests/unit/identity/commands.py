"""Commands of enrolment as they are typed, and a host that joins with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from sterna.adapters.identity.own import OwnFiles

Run = Callable[..., Result]
"""`sterna("host", "add", "host1", code=0)`."""


def by_files(sterna: Run, name: str, folder: Path, *addresses: str) -> OwnFiles:
    """A host joins by files."""
    given = [word for address in addresses for word in ("--address", address)]
    token = sterna("host", "add", name, *given).stdout.strip()
    request, answer = folder.with_suffix(".csr"), folder.with_suffix(".crt")
    sterna("agent", "request", name, "--folder", folder, "--out", request)
    sterna("ca", "sign", request, "--out", answer)
    sterna("agent", "join", "-", "--certificate", answer, "--folder", folder, typed=f"{token}\n")
    return OwnFiles(folder)
