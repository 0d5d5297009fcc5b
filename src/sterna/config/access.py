"""`[access]` of a controller's settings: who may use the API, and where it listens."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from sterna.config.section import Section
from sterna.domain.access import UserRole
from sterna.domain.tokens import DIGEST, NAME

PeerRole = Literal["none", "viewer", "operator", "admin"]


class FixedToken(Section):
    """A token that needs no database: for programs that are installed together with the controller. Only its hash
    stands here: `printf %s "$TOKEN" | sha256sum`. Use a random token of at least 32 characters."""

    name: str = Field(pattern=NAME)
    """Who holds it, in logs and records."""
    role: UserRole
    """What its holder may do: `viewer`, `operator`, `admin`, or `neutron` for Neutron's notifier alone."""
    sha256: str = Field(pattern=DIGEST)
    """SHA-256 of the token, in hexadecimal."""


class AccessSettings(Section):
    """Who may use the API, and where. Tokens are made with `sterna token create`."""

    socket: str = "/run/sterna/api.sock"
    """Unix socket of the API. Who uses it needs no token: the kernel tells who it is. '': no Unix socket."""
    group: str = "sterna"
    """The group whose members may use the Unix socket, of /etc/group. Without that group only root may."""
    root_role: PeerRole = "admin"
    """What root, and the user that the controller runs as, may do there without a token. `none`: nothing."""
    group_role: PeerRole = "operator"
    """What members of `group` may do over the Unix socket without a token."""
    cert_file: Path | None = None
    """Certificate for `listen`, with its chain. Not set: no TLS, which is possible on loopback addresses only."""
    key_file: Path | None = None
    """The key of `cert_file`. Not set: it is in the same file."""
    insecure: bool = False
    """True: `listen` may be an address that others reach, without TLS. Who reads the network reads the tokens."""
    names: tuple[str, ...] = ()
    """Host names under which clients reach the API, besides its addresses and this machine's name. A request with
    another name in its `Host` header is refused."""
    tokens: tuple[FixedToken, ...] = ()
    """Tokens of the settings, each a table `[[access.tokens]]`."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file without cert_file")
        names = [token.name for token in self.tokens]
        if len(set(names)) < len(names):
            raise ValueError("two tokens have the same name")
        return self
