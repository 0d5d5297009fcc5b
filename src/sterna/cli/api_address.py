"""The address of the API and the credentials for it. Parent folders are not searched: they may belong to others."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Sequence
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
_BETWEEN = re.compile(r"\s*,\s*(?=unix:|[a-z]+://)")
"""A comma between two addresses. One in a path or in a password is a part of it."""

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


def find_apis(given: Sequence[str] | None = None) -> tuple[ApiAddress, ...]:
    """The addresses as given, else STERNA_API, else the lab in this very folder, else `api` in
    ~/.config/sterna/cli.toml, else the default. Several, separated by commas or repeated, are controllers of one
    fleet, in the order in which they are asked. A lab has its own token; for all others it is STERNA_TOKEN, else
    the file ~/.config/sterna/token, which is not read for a Unix socket.

    Raises BadRequest if other users may read the file, or it does not contain a token; Unreachable if its file
    system does not answer.
    """
    named, settings = _split(given or (os.environ.get("STERNA_API") or "",)), _settings()
    if not named and (lab := _lab(Path.cwd())) is not None:
        return (lab,)
    apis = named or _split(_addresses(settings.get("api"))) or (DEFAULT_API,)
    ca_file = os.environ.get("STERNA_CA_FILE") or settings.get("ca_file")
    return tuple(ApiAddress(api, _own_token(api), str(ca_file) if ca_file else None) for api in apis)


def _split(texts: Sequence[str]) -> tuple[str, ...]:
    """Each address once, in the order given."""
    found = (one.strip().rstrip("/") for text in texts for one in _BETWEEN.split(text))
    return tuple(dict.fromkeys(one for one in found if one))


def _addresses(value: object) -> list[str]:
    """Of `api` in cli.toml: one address, several with commas, or a list. What is not an address is left out."""
    texts = value if isinstance(value, list) else [value]
    return [found for text in texts if (found := _address(text)) is not None]


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
