"""Settings of the two processes: one TOML file each, every key overridden by `STERNA_*` in the environment.

`STERNA_BUS__URL=nats://10.0.0.1:4222` overrides `url` in `[bus]`. A key this version does not know is an error
that names it: a misspelt setting must not be silently ignored. Used by `bootstrap.py` only.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from sterna.domain.errors import BadRequest


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BusTls(_Section):
    """TLS to the bus. Empty in the lab, where the bus listens on the lab's own addresses only."""

    ca_file: Path | None = None
    """None: plain TCP. Set: the server must show a certificate signed by it."""
    cert_file: Path | None = None
    """This process's own certificate, where the bus asks for one."""
    key_file: Path | None = None


class BusSettings(_Section):
    """How to reach the message bus and who to be there."""

    url: str = "nats://127.0.0.1:4222"
    """NATS's own port, on this machine: nothing leaves it until an address is given."""
    user: str | None = None
    """None: a bus without accounts, as in the lab."""
    password: SecretStr | None = None
    tls: BusTls = BusTls()


class MigrationSettings(_Section):
    """How other hosts reach this one."""

    address: str
    """No default: only the operator knows which of a host's networks carries migrations."""
    more_addresses: tuple[str, ...] = ()
    """This host's addresses on further networks: where a memory stream that broke in post-copy is joined again when
    the first network is away. None by default."""
    uri_template: str = "qemu+tcp://{address}/system"
    """TCP, since that needs no certificates; `qemu+tls://{address}/system` once libvirt has them."""


class NetworkSettings(_Section):
    """This host's switch."""

    ovsdb: str = "unix:/run/openvswitch/db.sock"
    """Where every distribution's Open vSwitch listens. '': this host has none, only Linux bridges and macvtap."""
    physical_networks: dict[str, tuple[str, ...]] = {}
    """Each SR-IOV network's physical functions on this host, by network device: `physnet1 = ["enp59s0f0"]`. None by
    default: only the operator knows what a cable is plugged into."""


class VolumeSettings(_Section):
    """How this host reaches volumes."""

    initiator: str | None = None
    """This host's iSCSI initiator name. None: it has none and cannot take VMs with iSCSI disks."""
    tgt_socket: str | None = None
    """tgt's management socket, where the iSCSI target is this machine's own tgt (the lab). None: no such target."""


class TestSettings(_Section):
    """For tests only."""

    fault_file: Path | None = None
    """A file that says which step shall fail. None, the default: nothing is ever made to fail."""


class AgentSettings(BaseSettings):
    """`sterna agent --config FILE`."""

    model_config = SettingsConfigDict(env_prefix="STERNA_", env_nested_delimiter="__", extra="forbid")

    host: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")
    """No default: the name is the host's identity in every record. One token on the bus, so no dots."""
    state_dir: Path = Path("/var/lib/sterna")
    """Where the journal lives: local disk that survives a reboot."""
    instances_dir: Path = Path("/var/lib/libvirt/images")
    """libvirt's own folder for disks. Sterna creates and removes files nowhere else."""
    libvirt_uri: str = "qemu:///system"
    """The host's system libvirtd."""
    bus: BusSettings = BusSettings()
    migration: MigrationSettings
    network: NetworkSettings = NetworkSettings()
    volumes: VolumeSettings = VolumeSettings()
    test: TestSettings = TestSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        return env_settings, TomlConfigSettingsSource(settings_cls)


class ControllerSettings(BaseSettings):
    """`sterna controller --config FILE`."""

    model_config = SettingsConfigDict(env_prefix="STERNA_", env_nested_delimiter="__", extra="forbid")

    database: str = "sqlite:////var/lib/sterna/controller.db"
    """SQLAlchemy URL. SQLite serves one controller; `postgresql+psycopg://…` serves several."""
    bus: BusSettings = BusSettings()
    listen: str = Field(default="127.0.0.1:8774", pattern=r"^.+:\d{1,5}$")
    """Loopback, since the API asks nobody who they are yet. 8774 is where Nova's API listens too."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        return env_settings, TomlConfigSettingsSource(settings_cls)


S = TypeVar("S", AgentSettings, ControllerSettings)


def load(kind: type[S], path: Path) -> S:
    """Settings of `kind` from the file at `path` and the environment.

    Raises BadRequest, naming each key that is wrong, missing or unknown.
    """
    if not path.is_file():
        raise BadRequest(f"there is no settings file {path}", fix="name one with --config")
    # toml_file can only be given to a class: one of the same fields for this file
    here = type(
        kind.__name__, (kind,), {"model_config": SettingsConfigDict(toml_file=path), "__doc__": kind.__doc__}
    )
    try:
        return here()  # type: ignore[no-any-return]
    except tomllib.TOMLDecodeError as e:
        raise BadRequest(f"{path} is not TOML: {e}", fix="mend the line it names") from e
    except ValidationError as e:
        wrong = [f"{'.'.join(str(p) for p in error['loc'])}: {error['msg']}" for error in e.errors()]
        raise BadRequest(
            f"settings in {path} or STERNA_* in the environment are wrong: {'; '.join(wrong)}",
            fix="mend or remove these keys; docstrings in sterna/config.py say what each is for",
        ) from e
