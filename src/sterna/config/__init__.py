"""Settings of the two processes: one TOML file each, every key overridden by `STERNA_*` in the environment.

`STERNA_BUS__URL=nats://10.0.0.1:4222` overrides `url` in `[bus]`. A key this version does not know is an error
that names it: a misspelt setting must not be silently ignored. Used by `bootstrap` and `api/listeners.py` only.
"""

from __future__ import annotations

import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
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

from sterna.config.access import AccessSettings
from sterna.config.bus import BusServerSettings, BusSettings, IdentitySettings
from sterna.config.compute import ComputeSettings, NovaSettings
from sterna.config.fleet import FleetSettings
from sterna.config.metrics import MetricsSettings
from sterna.config.notify import MOST, NotifySettings, with_secrets
from sterna.config.section import Section
from sterna.domain.addresses import bare, encrypts, is_address, is_ipv6
from sterna.domain.errors import BadRequest
from sterna.domain.hosts import Transport

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]
LONGEST_DAYS = 36_500


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


class MigrationSettings(Section):
    """The migration network: this host's addresses in it, and how the other hosts are reached."""

    address: Address
    """This host's address in the network that carries migrations. No default: only the operator knows it."""
    more_addresses: tuple[Address, ...] = ()
    """This host's addresses on further networks. A memory stream that broke in post-copy is joined again over them
    when the first network is down."""
    insecure: bool = False
    """Allow what is migrated, and the calls to other hosts' libvirt, to travel unencrypted. Only for a network that
    nobody else can reach; both hosts of a migration must allow it."""
    uri_template: Template = "qemu+tls://{address}/system"
    """How another host's libvirt is reached. `qemu+tcp://{address}/system` needs no certificates, and
    `insecure = true`: whoever reaches that port is root on the host."""
    transport: Transport | None = None
    """How memory and copied disks travel to and from this host: `tls` (QEMU's own), `ssh` (inside libvirt's
    connection, where nothing else is open) or `tcp` (needs `insecure = true` on both hosts). Not set: TLS; with
    `insecure = true` on both hosts, TCP where one has no certificates."""
    ssh_uri_template: Template = "qemu+ssh://root@{address}/system"
    """For `transport = "ssh"`, as root, because the system's libvirtd is root's. Keys are configured in ssh, or the
    URI names them."""
    link_bytes_s: int | None = Field(default=None, ge=2**20)
    """Speed of the migration network in bytes/s. Not set: unknown. Then a copy has one connection (one fills 10
    Gb/s), is not compressed, and QEMU calculates its downtime from what it measures."""

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.insecure:
            return self
        ways = "set insecure = true, on a network that nobody else can reach"
        if not encrypts(self.uri_template):
            raise ValueError(f"uri_template {self.uri_template!r} is not encrypted: use qemu+tls, or {ways}")
        if not encrypts(self.ssh_uri_template):
            raise ValueError(f"ssh_uri_template {self.ssh_uri_template!r} is not SSH, and not encrypted otherwise")
        if self.transport is Transport.TCP:
            raise ValueError(f'transport = "tcp" is not encrypted: leave it out, or {ways}')
        return self


class NetworkSettings(Section):
    """This host's switch."""

    ovsdb: Annotated[str, AfterValidator(_numeric)] = "unix:/run/openvswitch/db.sock"
    """Open vSwitch's database. The default is where every distribution's listens. '': this host has no Open
    vSwitch, only Linux bridges and macvtap."""
    provider: Literal["native", "neutron"] = "native"
    """Where ports are looked up. `native`: in the domain XML alone. `neutron`: in the cloud of `[openstack]`."""
    wait_for: Literal["", "ovn-installed"] = ""
    """How this host's network agent reports that it has wired a port; a copy waits for it. `ovn-installed`: in the
    interface's external_ids, as OVN's controller does. '': no wait, except that provider neutron waits for its
    agents."""
    vif_plugging_timeout_s: float = Field(default=10.0, ge=0, le=600)
    """Provider neutron, or `wait_for`: how long a migration waits for the destination's network agent to wire the
    ports, before anything is copied, in seconds. An agent looks every two seconds and needs one. 0: no wait."""
    vif_plugging_is_fatal: bool = False
    """True: the migration fails after that time. False: it continues, and the guest is unreachable after its
    switch-over until the agent is done."""
    physical_networks: dict[str, tuple[str, ...]] = {}
    """The physical functions of each SR-IOV network on this host, by network device: `physnet1 = ["enp59s0f0"]`. No
    default: only the operator knows what a cable is plugged into."""


class VolumeSettings(Section):
    """How this host reaches volumes."""

    initiator: str | None = None
    """This host's iSCSI initiator name. Not set: the host cannot take VMs with iSCSI disks."""
    tgt_socket: str | None = None
    """tgt's management socket, where the iSCSI target is this machine's own tgt (the lab)."""
    provider: Literal["native", "cinder"] = "native"
    """The service that admits hosts to volumes. `native`: tgt, or none. `cinder`: the cloud of `[openstack]`, for
    every disk whose serial is a volume id."""


class OpenStackSettings(Section):
    """The cloud whose Neutron or Cinder this host's VMs use. Read only where a `provider` needs it."""

    auth_url: str | None = None
    """Keystone, e.g. `https://cloud.example:5000/v3`. No default."""
    username: str | None = None
    """A user for Sterna, with the roles `admin` and `service` in `project`. No default."""
    password: SecretStr | None = None
    """Password of `username`. Better in the environment: `STERNA_OPENSTACK__PASSWORD`. It is never logged."""
    host: str | None = None
    """This host's name in the cloud, as Nova and Neutron's agent know it. Not set: `host` of the agent."""
    images: bool = True
    """Ask Glance what a VM's image demands, where the VM's metadata names the image but not its properties. False
    for a cloud without Glance."""
    project: str = "service"
    """The user's project. The default is where every installer puts the services' users."""
    user_domain: str = "Default"
    """The user's domain. The default is the name that Keystone gives its first domain."""
    project_domain: str = "Default"
    """The project's domain, as `user_domain`."""
    region: str | None = None
    """Region in the catalog. Not set: the catalog has one region."""
    interface: Literal["internal", "public", "admin"] = "internal"
    """Which endpoints of the catalog are used. Compute hosts reach the services over the internal network."""
    ca_file: Path | None = None
    """CA certificates for the services. Not set: the system's."""
    timeout_s: float = Field(default=60.0, gt=0)
    """How long a service may take to answer, in seconds. Cinder's own limit for its storage back end is 60."""


class TestSettings(Section):
    """For tests only."""

    fault_file: Path | None = None
    """A file that says which steps must fail. Never set it on a production host."""


class AgentSettings(BaseSettings):
    """`sterna agent --config FILE`."""

    model_config = SettingsConfigDict(env_prefix="STERNA_", env_nested_delimiter="__", extra="forbid")

    host: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")
    """The host's identity in every record. No dots, because it is one token on the bus. No default."""
    state_dir: Path = Path("/var/lib/sterna")
    """Folder of the journal: a local disk that survives a reboot."""
    instances_dir: Path = Path("/var/lib/libvirt/images")
    """Folder of local disks. Sterna creates and removes files nowhere else. The default is libvirt's own."""
    libvirt_uri: str = "qemu:///system"
    """The host's system libvirtd."""
    traits: tuple[str, ...] = ()
    """Traits of this host that images may require (`trait:CUSTOM_X=required`)."""
    log_level: LogLevel = "info"
    """What is written to stderr. `debug` adds a line for each attempt to reach a bus that is away, and for each
    hint that was not sent."""
    log_format: LogFormat = "console"
    """How it is written: for people, or as one JSON object per line, with the time in UTC."""
    identity: IdentitySettings = IdentitySettings()
    bus: BusSettings = BusSettings()
    migration: MigrationSettings
    network: NetworkSettings = NetworkSettings()
    volumes: VolumeSettings = VolumeSettings()
    openstack: OpenStackSettings = OpenStackSettings()
    metrics: MetricsSettings = MetricsSettings()
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


def _days(least: int) -> AfterValidator:
    def checked(days: int) -> int:
        if days and not least <= days <= LONGEST_DAYS:
            raise ValueError(f"{days} is neither 0 (for ever) nor {least} to {LONGEST_DAYS} days")
        return days

    return AfterValidator(checked)


class KeepSettings(Section):
    """How long records are kept, in days. 0: for ever. What is older is removed in the background, by every
    controller of the database. Nothing that is still open is removed."""

    migrations_days: Annotated[int, _days(2)] = 90
    """Migrations and their timelines, after nothing of them was left to do on their hosts; at least 2. The last
    100 that were completed stay: forecasts learn from them."""
    operations_days: Annotated[int, _days(2)] = 90
    """Operations after their end; at least 2. The newest of each host stays, because it can be undone."""
    log_days: Annotated[int, _days(31)] = 365
    """Lines of the log of requests (`sterna log`); at least 31. The database itself protects those of the last 30
    days."""


class ControllerSettings(BaseSettings):
    """`sterna controller --config FILE`."""

    model_config = SettingsConfigDict(env_prefix="STERNA_", env_nested_delimiter="__", extra="forbid")

    database: str = "sqlite:////var/lib/sterna/controller.db"
    """SQLAlchemy URL. SQLite serves one machine; `postgresql+psycopg://…` several controllers."""
    log_level: LogLevel = "info"
    """As for an agent."""
    log_format: LogFormat = "console"
    """As for an agent."""
    identity: IdentitySettings = IdentitySettings()
    bus: BusSettings = BusSettings()
    listen: str = Field(default="", pattern=r"^(.+:\d{1,5})?$")
    """Address and port where the API listens besides its Unix socket, e.g. `127.0.0.1:8774` (8774 is Nova's port as
    well). Every request there needs a token. '': nowhere."""
    access: AccessSettings = AccessSettings()
    bus_server: BusServerSettings = BusServerSettings()
    keep: KeepSettings = KeepSettings()
    compute: ComputeSettings = ComputeSettings()
    nova: NovaSettings = NovaSettings()
    fleet: FleetSettings = FleetSettings()
    metrics: MetricsSettings = MetricsSettings()
    notify_secrets: dict[str, SecretStr] = {}
    """Secrets of the endpoints of `[[notify]]` by their names, for the environment:
    `STERNA_NOTIFY_SECRETS__PAGER=whsec_…`. They win over `secret`. Never logged."""
    notify: tuple[NotifySettings, ...] = Field(default=(), max_length=MOST)
    """Webhooks that are called when something has happened, each a table `[[notify]]`."""

    @property
    def endpoints(self) -> tuple[NotifySettings, ...]:
        """Those of `notify`, each with its secret."""
        return with_secrets(self.notify, self.notify_secrets)

    @model_validator(mode="after")
    def _endpoints_are_whole(self) -> Self:
        with_secrets(self.notify, self.notify_secrets)
        return self

    @model_validator(mode="after")
    def _keystone_is_named(self) -> Self:
        if (self.compute.enabled or self.nova.region is not None) and self.access.keystone.auth_url is None:
            raise ValueError("[compute] and [nova] need access.keystone.auth_url")
        return self

    @field_validator("listen")
    @classmethod
    def _is_a_port(cls, listen: str) -> str:
        if listen and not 0 < int(listen.rpartition(":")[2]) < 2**16:
            raise ValueError(f"{listen!r} has no port from 1 to 65535")
        return listen

    @model_validator(mode="after")
    def _ca_has_a_controller(self) -> Self:
        if self.access.ca_folder is not None and self.identity.enrol != "sterna":
            raise ValueError(
                'access.ca_folder needs identity.enrol = "sterna": hosts join at a controller of that CA'
            )
        if self.bus_server.config_file is not None and self.access.ca_folder is None:
            raise ValueError("bus_server.config_file needs access.ca_folder: the CA knows who is enrolled")
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
        raise BadRequest(f"{path} is not TOML: {e}", fix="correct the line it names") from e
    except OSError as e:
        raise BadRequest(f"{path} cannot be read: {e.strerror}", fix="check its owner and mode") from e
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
