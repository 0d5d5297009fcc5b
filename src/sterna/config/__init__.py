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
from sterna.config.traces import TracesSettings
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
                raise ValueError(f"{one.strip()!r} has no IP address: Open vSwitch accepts no host names") from None
    return remotes


def _dialable(address: str) -> str:
    """An address without brackets. Raises ValueError for one that another host could not use."""
    if "%" in address:
        raise ValueError(
            f"{address!r} has a zone, which names a device of this host only: use a global or unique local address"
        )
    plain = bare(address)
    if not is_address(plain) or (plain != address and not is_ipv6(address)):
        raise ValueError(f"{address!r} is not a valid IPv4 or IPv6 address or host name")
    return plain


Address = Annotated[str, AfterValidator(_dialable)]
Template = Annotated[str, AfterValidator(_with_address)]


class MigrationSettings(Section):
    """The migration network: this host's addresses in it, and how to connect to the other hosts."""

    address: Address
    """This host's address in the migration network. No default: only the operator knows it."""
    more_addresses: tuple[Address, ...] = ()
    """This host's addresses in other networks. If the first network fails during post-copy, the memory stream is
    resumed over them."""
    insecure: bool = False
    """Allow unencrypted migrations, and unencrypted calls to other hosts' libvirt. Only for a network that nobody
    else can reach; both hosts of a migration must allow it."""
    uri_template: Template = "qemu+tls://{address}/system"
    """URI of another host's libvirt. `qemu+tcp://{address}/system` needs no certificates, but `insecure = true`:
    anyone who can reach that port is root on the host."""
    transport: Transport | None = None
    """Transport for memory and copied disks to and from this host: `tls` (QEMU's own), `ssh` (inside libvirt's
    connection, if no other port is open) or `tcp` (needs `insecure = true` on both hosts). Not set: TLS; with
    `insecure = true` on both hosts, TCP if one has no certificates."""
    ssh_uri_template: Template = "qemu+ssh://root@{address}/system"
    """For `transport = "ssh"`. As root, because the system's libvirtd runs as root. Configure keys in ssh, or in
    the URI."""
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
            raise ValueError(f"ssh_uri_template {self.ssh_uri_template!r} is neither SSH nor encrypted otherwise")
        if self.transport is Transport.TCP:
            raise ValueError(f'transport = "tcp" is not encrypted: leave it out, or {ways}')
        return self


class NetworkSettings(Section):
    """Network of this host."""

    ovsdb: Annotated[str, AfterValidator(_numeric)] = "unix:/run/openvswitch/db.sock"
    """Open vSwitch's database. The default is the path in every distribution. '': this host has no Open vSwitch,
    only Linux bridges and macvtap."""
    provider: Literal["native", "neutron"] = "native"
    """Source of information about ports. `native`: only the domain XML. `neutron`: the cloud in `[openstack]`."""
    wait_for: Literal["", "ovn-installed"] = ""
    """How this host's network agent reports that it has wired a port. The copy waits for it. `ovn-installed`: in
    the interface's external_ids, like OVN's controller. '': no wait, except that provider neutron waits for its
    agents."""
    vif_plugging_timeout_s: float = Field(default=10.0, ge=0, le=600)
    """Provider neutron, or `wait_for`: how long a migration waits for the destination's network agent to wire the
    ports before the copy, in seconds. An agent polls every two seconds and needs one. 0: no wait."""
    vif_plugging_is_fatal: bool = False
    """True: the migration fails after that time. False: it continues, and the guest is unreachable after its
    switch-over until the agent is done."""
    physical_networks: dict[str, tuple[str, ...]] = {}
    """The physical functions of each SR-IOV network on this host, by network device: `physnet1 = ["enp59s0f0"]`. No
    default: only the operator knows the cabling."""


class VolumeSettings(Section):
    """How this host connects to volumes."""

    initiator: str | None = None
    """This host's iSCSI initiator name. Not set: the host accepts no VMs with iSCSI disks."""
    tgt_socket: str | None = None
    """tgt's management socket, if the iSCSI target is tgt on this machine (the lab). Not set: tgt's default one, if
    `tgtadm` is installed. Targets that this tgt does not have must admit the host themselves."""
    provider: Literal["native", "cinder"] = "native"
    """The service that gives hosts access to volumes. `native`: tgt, or none. `cinder`: the cloud in
    `[openstack]`, for every disk whose serial is a volume ID."""


class OpenStackSettings(Section):
    """The cloud whose Neutron or Cinder this host's VMs use. Used only if a `provider` needs it."""

    auth_url: str | None = None
    """Keystone, e.g. `https://cloud.example:5000/v3`. No default."""
    username: str | None = None
    """A user for Sterna, with the roles `admin` and `service` in `project`. No default."""
    password: SecretStr | None = None
    """Password of `username`. Better in the environment: `STERNA_OPENSTACK__PASSWORD`. It is never logged."""
    host: str | None = None
    """This host's name in the cloud, as Nova and Neutron's agent know it. Not set: `host` of the agent."""
    images: bool = True
    """Ask Glance for the requirements of a VM's image if the VM's metadata names the image but not its properties.
    False for a cloud without Glance."""
    project: str = "service"
    """The user's project. The default is the project of the services' users in most installations."""
    user_domain: str = "Default"
    """The user's domain. The default is the name of Keystone's first domain."""
    project_domain: str = "Default"
    """The project's domain, as `user_domain`."""
    region: str | None = None
    """Region in the catalog. Not set: the catalog has one region."""
    interface: Literal["internal", "public", "admin"] = "internal"
    """Which endpoints of the catalog are used. Compute hosts reach the services over the internal network."""
    ca_file: Path | None = None
    """CA certificates for the services. Not set: the system's."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Timeout for responses of the services, in seconds. Cinder's own timeout for its storage back end is 60."""


class TestSettings(Section):
    """For tests only."""

    fault_file: Path | None = None
    """A file that lists the steps that must fail. Never set it on a production host."""


class AgentSettings(BaseSettings):
    """`sterna agent --config FILE`."""

    model_config = SettingsConfigDict(env_prefix="STERNA_", env_nested_delimiter="__", extra="forbid")

    host: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")
    """Name of the host in all records. No dots, because it is one token in NATS subjects. No default."""
    state_dir: Path = Path("/var/lib/sterna")
    """Folder of the journal: a local disk that survives a reboot."""
    instances_dir: Path = Path("/var/lib/libvirt/images")
    """Folder of local disks. Sterna creates and removes files nowhere else. The default is libvirt's own."""
    libvirt_uri: str = "qemu:///system"
    """The host's system libvirtd."""
    traits: tuple[str, ...] = ()
    """Traits of this host that images may require (`trait:CUSTOM_X=required`)."""
    log_level: LogLevel = "info"
    """Level of the log on stderr. `debug` adds a line for each failed attempt to connect to the bus, and for each
    hint that was not sent."""
    log_format: LogFormat = "console"
    """Format of the log: for people, or one JSON object per line, with the time in UTC."""
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
            raise ValueError(f"{days} is neither 0 (forever) nor {least} to {LONGEST_DAYS} days")
        return days

    return AfterValidator(checked)


class KeepSettings(Section):
    """How long records are kept, in days. 0 means forever. Older records are deleted in the background, by every
    controller of the database. Migrations and operations that have not ended are kept."""

    migrations_days: Annotated[int, _days(2)] = 90
    """Migrations with their timelines, counted from when their hosts have finished all work; at least 2. The last
    100 completed ones are kept, because forecasts learn from them."""
    operations_days: Annotated[int, _days(2)] = 90
    """Operations, counted from their end; at least 2. The newest drain or rolling operation of each host is kept,
    because it can be undone."""
    log_days: Annotated[int, _days(31)] = 365
    """Lines of the audit log (`sterna log`); at least 31. The database itself protects the lines of the last 30
    days."""


class ControllerSettings(BaseSettings):
    """`sterna controller --config FILE`."""

    model_config = SettingsConfigDict(env_prefix="STERNA_", env_nested_delimiter="__", extra="forbid")

    database: str = "sqlite:////var/lib/sterna/controller.db"
    """SQLAlchemy URL. SQLite is for a single controller; use `postgresql+psycopg://…` for several."""
    log_level: LogLevel = "info"
    """As for an agent."""
    log_format: LogFormat = "console"
    """As for an agent."""
    identity: IdentitySettings = IdentitySettings()
    bus: BusSettings = BusSettings()
    listen: str = Field(default="", pattern=r"^(.+:\d{1,5})?$")
    """Address and port of the API, in addition to its Unix socket, e.g. `127.0.0.1:8774` (Nova uses 8774 as well).
    Every request there needs a token. '': only the Unix socket."""
    access: AccessSettings = AccessSettings()
    bus_server: BusServerSettings = BusServerSettings()
    keep: KeepSettings = KeepSettings()
    compute: ComputeSettings = ComputeSettings()
    nova: NovaSettings = NovaSettings()
    fleet: FleetSettings = FleetSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TracesSettings = TracesSettings()
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
                'access.ca_folder needs identity.enrol = "sterna": the controller needs a certificate of that CA'
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
        raise BadRequest(f"there is no settings file {path}", fix="give the path of the settings with --config")
    # toml_file can only be given to a class: one of the same fields for this file
    here = type(
        kind.__name__, (kind,), {"model_config": SettingsConfigDict(toml_file=path), "__doc__": kind.__doc__}
    )
    try:
        return here()  # type: ignore[no-any-return]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadRequest(f"{path} is not TOML: {e}", fix="correct that line") from e
    except OSError as e:
        raise BadRequest(f"{path} cannot be read: {e.strerror}", fix="check its owner and mode") from e
    except SettingsError as e:
        fix = """write lists as JSON: STERNA_TRAITS='["CUSTOM_GOLD"]'; set the keys of sections one by one:
            STERNA_BUS__URL"""
        raise BadRequest(f"STERNA_* in the environment is wrong: {e}", fix=fix) from e
    except ValidationError as e:
        wrong = [f"{'.'.join(str(p) for p in error['loc'])}: {error['msg']}" for error in e.errors()]
        raise BadRequest(
            f"settings in {path} or STERNA_* in the environment are wrong: {'; '.join(wrong)}",
            fix="correct or remove these keys; see docs/reference/configuration.md",
        ) from e
