"""The address of the API and the credentials for it. Parent folders are not searched: they may belong to others."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sterna.cli.waiting import within
from sterna.domain.errors import BadRequest, Unreachable

DEFAULT_API = "unix:/run/sterna/api.sock"
UNIX = "unix:"
FILES_S = 10.0
"""For one file. Ctrl-C does not interrupt a wait in the kernel, e.g. for a home folder on a dead NFS server."""
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")

T = TypeVar("T")


@dataclass(frozen=True)
class ApiAddress:
    """The address of the API, and the credentials for it."""

    api: str
    """`http(s)://...`, or `unix:/path` of its socket."""
    token: str | None = None
    """None: nothing is sent. On a Unix socket the kernel reports the user."""
    ca_file: str | None = None
    """CA certificates for its TLS, instead of the system's."""


def find_api(given: str | None) -> ApiAddress:
    """The first of: `given`, STERNA_API, the lab in the current folder, `api` in ~/.config/sterna/cli.toml, the
    default. A lab has its own token. Otherwise the token is STERNA_TOKEN, or the content of ~/.config/sterna/token.
    That file is not read for a Unix socket.

    Raises BadRequest if other users may read the file, or it does not contain a token; Unreachable if its file
    system does not answer.
    """
    named, settings = given or os.environ.get("STERNA_API"), _settings()
    if named is None and (lab := _lab(Path.cwd())) is not None:
        return lab
    api = (named or _address(settings.get("api")) or DEFAULT_API).rstrip("/")
    ca_file = os.environ.get("STERNA_CA_FILE") or settings.get("ca_file")
    return ApiAddress(api, _own_token(api), str(ca_file) if ca_file else None)


def _own_token(api: str) -> str | None:
    if token := os.environ.get("STERNA_TOKEN"):
        return _checked(token, "STERNA_TOKEN")
    if api.startswith(UNIX):
        return None
    path = _folder() / "token"
    try:
        return _checked(_trusted_text(path, secret=True), str(path))
    except OSError:
        return None


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise BadRequest(f"{where} does not contain a valid token", fix="store what `sterna token create` printed")
    return token


def _lab(folder: Path) -> ApiAddress | None:
    path = folder / ".lab" / "lab.json"
    try:
        lab = json.loads(_trusted_text(path))
    except (OSError, ValueError):
        return None
    api = _address(lab.get("controller_url")) if isinstance(lab, dict) else None
    if api is None:
        return None
    token, ca = lab.get("controller_token"), lab.get("controller_ca")
    ca_file = str(ca) if ca else None
    if token is None:
        return ApiAddress(api.rstrip("/"), ca_file=ca_file)
    return ApiAddress(
        api.rstrip("/"), _checked(_trusted_text(path, secret=True) and str(token), str(path)), ca_file
    )


def _folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sterna"


def _settings() -> dict[str, Any]:
    try:
        return tomllib.loads(_trusted_text(_folder() / "cli.toml"))
    except (OSError, ValueError):
        return {}


def _address(value: object) -> str | None:
    return value if isinstance(value, str) and value.startswith(("http://", "https://", f"{UNIX}/")) else None


def from_disk(act: Callable[[], T], path: Path | str) -> T:
    """`act`'s result, or its exception. Raises Unreachable if the file system does not answer: without the file,
    the command might use another API than the one it names."""
    try:
        return within(FILES_S, act)
    except TimeoutError as error:
        why = f"{path} cannot be read: its file system does not answer"
        raise Unreachable(why, fix="check that file system (`findmnt --target FILE` shows it)") from error


def _trusted_text(path: Path, *, secret: bool = False) -> str:
    """Raises PermissionError if a user other than this one or root owns the file or may write it; BadRequest if it
    is `secret` and other users may read it; Unreachable if its file system does not answer."""
    return from_disk(lambda: _read(path, secret=secret), path)


def _read(path: Path, *, secret: bool) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        about = os.fstat(file.fileno())
        if about.st_uid not in (0, os.getuid()) or about.st_mode & 0o002 or not stat.S_ISREG(about.st_mode):
            raise PermissionError(f"{path} may belong to another user")
        if secret and about.st_mode & 0o077:
            raise BadRequest(f"other users may read the token in {path}", fix=f"chmod 600 {path}")
        return file.read()
