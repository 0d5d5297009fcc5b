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
    """CA certificates; the server's certificate must be signed by one of them. Not set: those of `[identity]`;
    without either, plain TCP."""
    cert_file: Path | None = None
    """Certificate of this process, if the bus requires one."""
    key_file: Path | None = None
    """The key of `cert_file`. Not set: it is in the same file."""
    server_name: str | None = None
    """Name in the server's certificate. Not set: `bus.sterna` with a certificate of Sterna's own CA, otherwise the
    host in `url`."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.ca_file is None and (self.cert_file or self.key_file):
            raise ValueError("without ca_file nothing would be encrypted: set it, or remove cert_file and key_file")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        return self


class IdentitySettings(Section):
    """This process's certificate: it identifies the sender of each message."""

    enrol: Literal["", "sterna", "external"] = ""
    """Source of the certificate. `sterna`: Sterna's own CA (`sterna agent join`, `sterna ca issue`). `external`:
    your own CA; set the three files. '': no certificate, and the bus does not authenticate senders."""
    folder: Path = Path("/etc/sterna/identity")
    """With `sterna`: folder of key and certificate, owned by root, mode 0700."""
    server: str | None = None
    """URL of the controller that renews the certificate, e.g. `https://10.0.0.1:8774`. Not set: it is not
    renewed."""
    ca_file: Path | None = None
    """With `external`: the certificates of your CA."""
    cert_file: Path | None = None
    """With `external`: this host's certificate, issued for its migration addresses, for clients and servers."""
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
            raise ValueError('server is for enrol = "sterna": you renew certificates of your own CA yourself')
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
    """How to connect to the message bus, and as which user."""

    url: str = "nats://127.0.0.1:4222"
    """Address of the bus; separate several with commas. The default is NATS's port on this machine. `tls://`
    requires TLS, also without `[bus.tls]`: with the system's CAs."""
    user: str | None = None
    """User on the bus. Not set: the bus has no accounts, or identifies users by their certificates."""
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
                raise ValueError("the address is shown in logs: set user and password with their own keys")
            _ = parts.port  # raises ValueError
        return url


class BusServerSettings(Section):
    """The server of the bus, if it runs on the machine of the controller with the CA. The controller then adds
    hosts that join and removes hosts that were removed, within seconds. Needs `ca_folder` in `[access]`."""

    config_file: Path | None = None
    """nats-server's configuration, which the controller writes like `sterna bus config`. A file that Sterna did not
    write is not replaced. Not set: you write it."""
    listen: str = ""
    """Where nats-server listens, e.g. `10.0.0.1:4222`."""
    folder: Path = Path("/etc/nats/identity")
    """Folder of nats-server's key and certificate (`sterna ca issue bus`)."""
    reload: tuple[str, ...] = ("nats-server", "--signal", "reload")
    """Command that makes the running server reload its configuration. Any command that ends within 20 s can be
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
            raise ValueError("reload must be a command: the program and its arguments")
        return self
