"""`[bus]` and `[identity]` of both processes' settings: how they reach the bus, and the certificate they have.

`[bus_server]` of a controller's: the server of the bus, where it is beside."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    SecretStr,
    field_validator,
    model_validator,
)

from sterna.config.section import Section
from sterna.domain.errors import BadRequest
from sterna.domain.trust.bus_config import listening_at
from sterna.domain.trust.identities import BUS_SERVICE
from sterna.kit.urls import server_url


class BusTls(Section):
    """TLS to the message bus. An enrolled process needs none of these keys: `[identity]` has its certificate."""

    ca_file: Path | None = None
    """CA certificates; the server's certificate must be signed by one of them. Not set: those of `[identity]`, or
    plain TCP where there is none."""
    cert_file: Path | None = None
    """This process's own certificate, where the bus requires one."""
    key_file: Path | None = None
    """The key of `cert_file`. Not set: it is in the same file."""
    server_name: str | None = None
    """The name in the server's certificate. Not set: `bus.sterna` with a certificate of Sterna's own CA, else the
    host of `url`."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.ca_file is None and (self.cert_file or self.key_file):
            raise ValueError(
                "without ca_file nothing would be encrypted: name it, or leave cert_file and key_file out"
            )
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file without cert_file")
        return self


class IdentitySettings(Section):
    """This process's certificate: it identifies the sender of each message."""

    enrol: Literal["", "sterna", "external"] = ""
    """Where the certificate comes from. `sterna`: from Sterna's own CA (`sterna agent join`, `sterna ca issue`).
    `external`: from a CA of yours; name the files. '': there is none, and the bus does not authenticate senders."""
    folder: Path = Path("/etc/sterna/identity")
    """Where `sterna` keeps key and certificate: a folder of root's own, mode 0700."""
    server: str | None = None
    """The controller that renews the certificate, as `https://10.0.0.1:8774`. Not set: it is not renewed."""
    ca_file: Path | None = None
    """With `external`: the certificates of your CA."""
    cert_file: Path | None = None
    """With `external`: this host's certificate, made out to its migration addresses, for clients and servers."""
    key_file: Path | None = None
    """With `external`: the key of `cert_file`."""

    @field_validator("server")
    @classmethod
    def _is_reachable_at(cls, server: str | None) -> str | None:
        try:
            return None if server is None else server_url(server)
        except BadRequest as error:
            raise ValueError(f"{error.message}: {error.fix}") from None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        files = {"ca_file": self.ca_file, "cert_file": self.cert_file, "key_file": self.key_file}
        missing = [name for name, file in files.items() if file is None]
        if self.enrol == "external" and missing:
            raise ValueError(f'enrol = "external" needs {", ".join(missing)}')
        if self.enrol != "external" and len(missing) < len(files):
            raise ValueError('ca_file, cert_file and key_file are for enrol = "external"')
        if self.server is not None and self.enrol != "sterna":
            raise ValueError('server is for enrol = "sterna": a certificate of your CA is renewed by you')
        return self

    def bus_tls(self, given: BusTls) -> BusTls:
        """What TLS to the bus is spoken with: what `[bus.tls]` says, else this certificate."""
        if not self.enrol or given.ca_file is not None:
            return given
        if self.enrol == "external":
            files = {"ca_file": self.ca_file, "cert_file": self.cert_file, "key_file": self.key_file}
            return given.model_copy(update=files)
        own = self.folder / "current"
        files = {"ca_file": own / "ca.crt", "cert_file": own / "own.crt", "key_file": own / "own.key"}
        return given.model_copy(update={"server_name": given.server_name or BUS_SERVICE, **files})


class BusSettings(Section):
    """How to reach the message bus, and as which user."""

    url: str = "nats://127.0.0.1:4222"
    """Address of the bus; several are separated by commas. By default NATS's port on this machine. `tls://` asks
    for TLS, also without `[bus.tls]`: with the system's CAs."""
    user: str | None = None
    """User on the bus. Not set: a bus without accounts, or one that knows users by their certificates."""
    password: SecretStr | None = None
    """Password of `user`. It is never logged."""
    tls: BusTls = BusTls()

    @field_validator("url")
    @classmethod
    def _is_reachable_at(cls, url: str) -> str:
        for one in url.split(","):
            parts = urlsplit(one.strip())
            if parts.scheme not in ("nats", "tls") or not parts.hostname:
                raise ValueError(f"{one.strip()!r} is not the address of a bus: write nats://host:4222")
            if parts.username is not None or parts.password is not None:
                raise ValueError("the address is shown in logs: user and password have keys of their own")
            _ = parts.port  # raises ValueError
        return url


class BusServerSettings(Section):
    """The server of the bus, where it runs beside the controller that has the CA: it lets in who joins, and shuts
    out who is removed, within seconds. Needs `ca_folder` in `[access]`."""

    config_file: Path | None = None
    """nats-server's configuration, which the controller writes as `sterna bus config` does. A file that Sterna
    did not write is not replaced. Not set: you write it."""
    listen: str = ""
    """Where nats-server listens, as `10.0.0.1:4222`."""
    folder: Path = Path("/etc/nats/identity")
    """The folder that `sterna ca issue bus` filled."""
    reload: tuple[str, ...] = ("nats-server", "--signal", "reload")
    """The command that has the running server read its configuration. Any command that ends within 20 s can be
    used: `["systemctl", "reload", "nats-server"]`, or a script that copies the file to several servers."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.config_file is None:
            return self
        try:
            listening_at(self.listen)
        except BadRequest as error:
            raise ValueError(f"listen: {error.message}: {error.fix}") from None
        if not self.reload or not self.reload[0]:
            raise ValueError("reload is a command: the program and its arguments")
        return self
