"""Settings of the two processes: one TOML file each, every key overridden by `STERNA_*` in the environment.

`STERNA_BUS__URL=nats://10.0.0.1:4222` overrides `url` in `[bus]`. A key this version does not know is an error
that names it: a misspelt setting must not be silently ignored. Used by `bootstrap.py` only.
"""

from __future__ import annotations

import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from sterna.domain.addresses import bare, is_ipv6
from sterna.domain.errors import BadRequest
from sterna.domain.model import Transport
from sterna.domain.untrusted import is_address

LogLevel = Literal["debug", "info", "warning", "error"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BusTls(_Section):
    """TLS to the bus. Empty in the lab, where the bus listens on the lab's own addresses only."""

    ca_file: Path | None = None
    """None: plain TCP. Set: the server must show a certificate signed by it."""
    cert_file: Path | None = None
    """This process's own certificate, where the bus asks for one."""
    key_file: Path | None = None
    """The key of `cert_file`. None: it is in the same file."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.ca_file is None and (self.cert_file or self.key_file):
            raise ValueError(
                "without ca_file nothing would be encrypted: name it, or leave cert_file and key_file out"
            )
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file without cert_file")
        return self


class BusSettings(_Section):
    """How to reach the message bus and who to be there."""

    url: str = "nats://127.0.0.1:4222"
    """NATS's own port, on this machine: nothing leaves it until an address is given."""
    user: str | None = None
    """None: a bus without accounts, as in the lab."""
    password: SecretStr | None = None
    """Of `user`. None: a bus without passwords. It is never logged."""
    tls: BusTls = BusTls()

    @field_validator("url")
    @classmethod
    def _is_reachable_at(cls, url: str) -> str:
        for one in url.split(","):
            parts = urlsplit(one.strip())
            if parts.scheme not in ("nats", "tls") or not parts.hostname:
                raise ValueError(f"{one.strip()!r} is no address of a bus: write nats://host:4222")
            if parts.username is not None or parts.password is not None:
                raise ValueError("the address is shown in logs: user and password have keys of their own")
            _ = parts.port  # raises ValueError
        return url


def _with_address(template: str) -> str:
    try:
        found = template.format(address="192.0.2.1")
    except (LookupError, ValueError, AttributeError, TypeError):
        found = ""
    if "192.0.2.1" not in found:
        raise ValueError(f"{template!r} must contain {{address}}, and nothing else in braces")
    return template


def _numeric(remotes: str) -> str:
    """Raises ValueError for a remote with a host name: Open vSwitch's library resolves none."""
    for one in remotes.split(","):
        kind, _, rest = one.strip().partition(":")
        host = rest[: rest.index("]") + 1] if rest.startswith("[") and "]" in rest else rest.split(":")[0]
        if kind in ("tcp", "ssl"):
            try:
                ip_address(bare(host))
            except ValueError:
                raise ValueError(f"{one.strip()!r} has no IP address: Open vSwitch takes no names there") from None
    return remotes


def _dialable(address: str) -> str:
    """An address without brackets. Raises ValueError for one that another host could not use."""
    if "%" in address:
        raise ValueError(
            f"{address!r} has a zone, which means a device of this host only: name a global or unique local address"
        )
    plain = bare(address)
    if not is_address(plain) or (plain != address and not is_ipv6(address)):
        raise ValueError(f"{address!r} is not a valid IPv4 or IPv6 address or host name")
    return plain


Address = Annotated[str, AfterValidator(_dialable)]
Template = Annotated[str, AfterValidator(_with_address)]


class MigrationSettings(_Section):
    """How other hosts reach this one."""

    address: Address
    """No default: only the operator knows which of a host's networks carries migrations."""
    more_addresses: tuple[Address, ...] = ()
    """This host's addresses on further networks: where a memory stream that broke in post-copy is joined again when
    the first network is away. None by default."""
    uri_template: Template = "qemu+tcp://{address}/system"
    """TCP, since that needs no certificates; `qemu+tls://{address}/system` once libvirt has them."""
    transport: Transport | None = None
    """How memory travels to and from this host: `tcp`, `tls` (QEMU's own; refused where it cannot be had) or `ssh`
    (inside libvirt's connection, where nothing else is open). None: TLS where both hosts have certificates,
    else TCP, since a lab without certificates must work and a host with them was given them for this."""
    ssh_uri_template: Template = "qemu+ssh://root@{address}/system"
    """For `transport = "ssh"`: the system's libvirtd is root's. Keys are ssh's affair, or the URI names them."""
    link_bytes_s: int | None = Field(default=None, ge=2**20)
    """What the migration network carries, in bytes/s. None: not known; then a copy has one connection, as one fills
    10 Gb/s, is not compressed, and QEMU reckons its downtime by what it sees."""


class NetworkSettings(_Section):
    """This host's switch."""

    ovsdb: Annotated[str, AfterValidator(_numeric)] = "unix:/run/openvswitch/db.sock"
    """Where every distribution's Open vSwitch listens. '': this host has none, only Linux bridges and macvtap."""
    provider: Literal["native", "neutron"] = "native"
    """Who knows the ports. `native`: the domain XML alone. `neutron`: the cloud of `[openstack]`."""
    wait_for: Literal["", "ovn-installed"] = ""
    """How this host's network agent says that it has wired a port, which a copy then waits for. `ovn-installed`:
    in the interface's external_ids, as OVN's controller does. '': nobody is waited for, except that provider
    neutron waits for its agents, whichever they are."""
    vif_plugging_timeout_s: float = Field(default=10.0, ge=0, le=600)
    """Provider neutron, or `wait_for`: how long a migration waits, before anything is copied, for the destination's
    network agent to wire the ports, in seconds, at most 600. An agent looks every two seconds and needs one; 0 does
    not wait."""
    vif_plugging_is_fatal: bool = False
    """Does the migration fail if the agent was slower? By default it goes on: the guest is then unreachable after
    its switch-over until the agent is done, as with Neutron servers that wire only what is active."""
    physical_networks: dict[str, tuple[str, ...]] = {}
    """Each SR-IOV network's physical functions on this host, by network device: `physnet1 = ["enp59s0f0"]`. None by
    default: only the operator knows what a cable is plugged into."""


class VolumeSettings(_Section):
    """How this host reaches volumes."""

    initiator: str | None = None
    """This host's iSCSI initiator name. None: it has none and cannot take VMs with iSCSI disks."""
    tgt_socket: str | None = None
    """tgt's management socket, where the iSCSI target is this machine's own tgt (the lab). None: no such target."""
    provider: Literal["native", "cinder"] = "native"
    """Who admits hosts to volumes. `native`: tgt or nobody. `cinder`: the cloud of `[openstack]`, for every disk
    whose serial is a volume id."""


class OpenStackSettings(_Section):
    """The cloud whose Neutron or Cinder this host's VMs use. Read only where a `provider` asks for it."""

    auth_url: str | None = None
    """Keystone, `https://cloud.example:5000/v3`. No default: it is every cloud's own."""
    username: str | None = None
    """No default: a user of Sterna's own, with the roles `admin` and `service` in `project`."""
    password: SecretStr | None = None
    """Of `username`. Better in the environment, as `STERNA_OPENSTACK__PASSWORD`. It is never logged."""
    host: str | None = None
    """This host's name in the cloud, as Nova and Neutron's agent call it. None: `host` of the agent."""
    images: bool = True
    """Ask Glance what a VM's image demands, where the VM's own metadata names the image and no more. False for a
    cloud without Glance."""
    project: str = "service"
    """Where every installer puts the services' users."""
    user_domain: str = "Default"
    """The name Keystone gives its first domain."""
    project_domain: str = "Default"
    """As `user_domain`."""
    region: str | None = None
    """None: the catalog has one region."""
    interface: Literal["internal", "public", "admin"] = "internal"
    """Compute hosts reach the services over the internal network."""
    ca_file: Path | None = None
    """None: the system's certificate authorities."""
    timeout_s: float = Field(default=60.0, gt=0)
    """How long a service may take to answer, in seconds: Cinder's own limit for its storage back end is 60."""


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
    traits: tuple[str, ...] = ()
    """What this host has of what images demand (`trait:CUSTOM_X=required`). None by default: nobody else knows."""
    log_level: LogLevel = "info"
    """`debug` adds a line for each try to reach a bus that is away, and for each hint that was not sent."""
    bus: BusSettings = BusSettings()
    migration: MigrationSettings
    network: NetworkSettings = NetworkSettings()
    volumes: VolumeSettings = VolumeSettings()
    openstack: OpenStackSettings = OpenStackSettings()
    test: TestSettings = TestSettings()

    @property
    def needs_cloud(self) -> bool:
        """Does a provider ask an OpenStack cloud?"""
        return self.network.provider == "neutron" or self.volumes.provider == "cinder"

    @model_validator(mode="after")
    def _cloud_is_named(self) -> Self:
        missing = [key for key in ("auth_url", "username", "password") if getattr(self.openstack, key) is None]
        if self.needs_cloud and missing:
            wanted = ", ".join(f"openstack.{key}" for key in missing)
            raise ValueError(f"provider neutron or cinder needs {wanted}")
        return self

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
    """SQLAlchemy URL. SQLite serves one machine; `postgresql+psycopg://…` several controllers."""
    log_level: LogLevel = "info"
    """As an agent's."""
    bus: BusSettings = BusSettings()
    listen: str = Field(default="127.0.0.1:8774", pattern=r"^.+:\d{1,5}$")
    """Loopback, since the API asks nobody who they are yet. 8774 is where Nova's API listens too."""

    @field_validator("listen")
    @classmethod
    def _is_a_port(cls, listen: str) -> str:
        if not 0 < int(listen.rpartition(":")[2]) < 2**16:
            raise ValueError(f"{listen!r} has no port from 1 to 65535")
        return listen

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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadRequest(f"{path} is not TOML: {e}", fix="mend the line it names") from e
    except OSError as e:
        raise BadRequest(f"{path} cannot be read: {e.strerror}", fix="see who may read it") from e
    except SettingsError as e:
        fix = (
            """lists are JSON there: STERNA_TRAITS='["CUSTOM_GOLD"]'; of a section, set its keys: STERNA_BUS__URL"""
        )
        raise BadRequest(f"STERNA_* in the environment is wrong: {e}", fix=fix) from e
    except ValidationError as e:
        wrong = [f"{'.'.join(str(p) for p in error['loc'])}: {error['msg']}" for error in e.errors()]
        raise BadRequest(
            f"settings in {path} or STERNA_* in the environment are wrong: {'; '.join(wrong)}",
            fix="correct or remove these keys; see docs/reference/configuration.md",
        ) from e
