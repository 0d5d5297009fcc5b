"""`[access]` of a controller's settings: who may use the API, and where it listens."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from sterna.config.section import Section
from sterna.domain.access import UserRole
from sterna.domain.tokens import DIGEST, NAME

PeerRole = Literal["none", "viewer", "operator", "admin"]


class FixedToken(Section):
    """A token that needs no database, for programs that are installed together with the controller. Contains only
    the hash: `printf %s "$TOKEN" | sha256sum`. Use a random token of at least 32 characters."""

    name: str = Field(pattern=NAME)
    """Name of the holder in logs and records."""
    role: UserRole
    """Role of the holder: `viewer`, `operator`, `admin`, or `neutron` (only for Neutron's notifier)."""
    sha256: str = Field(pattern=DIGEST)
    """SHA-256 of the token, in hexadecimal."""


class KeystoneSettings(Section):
    """The cloud whose users may use the API, and whose Neutron may post events. They send a Keystone token in
    `X-Auth-Token`. Needs the extra `openstack`."""

    auth_url: str | None = None
    """Keystone, e.g. `https://cloud.example:5000/v3`. Not set: no Keystone tokens are accepted."""
    username: str | None = None
    """A user for the controller that may validate tokens: with the role `service` in `project`. No default."""
    password: SecretStr | None = None
    """Password of `username`. Better in the environment: `STERNA_ACCESS__KEYSTONE__PASSWORD`. Never logged."""
    project: str = "service"
    """The project of `username`. Only tokens for this project are accepted."""
    user_domain: str = "Default"
    """The domain of `username`."""
    project_domain: str = "Default"
    """The domain of `project`."""
    ca_file: Path | None = None
    """CA certificates for Keystone. Not set: the system's."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Timeout for Keystone's responses, in seconds."""
    roles: dict[str, UserRole] = {"service": UserRole.NEUTRON}
    """Sterna's role for each Keystone role in `project`. By default services may post events, and other users may
    do nothing. For people, add a role that only the cloud's administrators assign: `sterna_operator =
    "operator"`."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        missing = [key for key in ("username", "password") if getattr(self, key) is None]
        if self.auth_url is not None and missing:
            raise ValueError(f"auth_url needs {' and '.join(missing)}")
        return self


class AccessSettings(Section):
    """Who may use the API, and where. Create tokens with `sterna token create`."""

    socket: str = "/run/sterna/api.sock"
    """Unix socket of the API. Its users need no token: the kernel identifies them. '': no Unix socket."""
    group: str = "sterna"
    """Group in /etc/group whose members may use the Unix socket. If it does not exist, only root may."""
    root_role: PeerRole = "admin"
    """Role on the Unix socket, without a token, of root and of the controller's user. `none`: a token is needed."""
    group_role: PeerRole = "operator"
    """Role on the Unix socket, without a token, of members of `group`. `none`: a token is needed."""
    cert_file: Path | None = None
    """Certificate for `listen`, with its chain. Not set: that of `[identity]`. Without either there is no TLS,
    which is allowed only on loopback addresses."""
    key_file: Path | None = None
    """The key of `cert_file`. Not set: it is in the same file."""
    insecure: bool = False
    """True: without `cert_file` there is no TLS on `listen`, even on an address that others can reach. Anyone who
    can read the network traffic can read the tokens."""
    ca_folder: Path | None = None
    """Folder of Sterna's own CA, if it is on this machine: hosts then join and renew their certificates over
    `listen`. Needs `enrol = "sterna"` in `[identity]`. Not set: hosts join with files."""
    names: tuple[str, ...] = ()
    """Host names that clients use for the API, besides its addresses and this machine's name. A request with
    another name in its `Host` header is refused."""
    tokens: tuple[FixedToken, ...] = ()
    """Tokens in the settings, each a table `[[access.tokens]]`."""

    keystone: KeystoneSettings = KeystoneSettings()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        if self.ca_folder is not None and self.insecure:
            raise ValueError("ca_folder cannot be used with insecure: hosts send the secrets of their tokens")
        names = [token.name for token in self.tokens]
        if len(set(names)) < len(names):
            raise ValueError("two tokens have the same name")
        return self
