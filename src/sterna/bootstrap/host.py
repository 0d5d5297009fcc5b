"""The adapters of one compute host, as its settings choose them."""

from __future__ import annotations

from sterna.adapters.files.storage import FileStorage
from sterna.adapters.identity.permits import PermitCheck
from sterna.adapters.images.glance import GlanceImages
from sterna.adapters.libvirt.hypervisor import HostSettings, LibvirtHypervisor
from sterna.adapters.libvirt.qemu.handshake import TlsHandshake
from sterna.adapters.libvirt.qemu.probe import PlainProbe
from sterna.adapters.network.native import NativeNetwork
from sterna.adapters.network.neutron.network import NeutronNetwork
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.sealing import HpkeSealing
from sterna.adapters.vif.plugs import Plugs
from sterna.adapters.volumes.cinder.volumes import CinderVolumes, Connector
from sterna.adapters.volumes.rbd import RbdVolumes
from sterna.adapters.volumes.shared_file import SharedFileVolumes
from sterna.adapters.volumes.tgt import TgtVolumes
from sterna.config import AgentSettings
from sterna.domain.addresses import filled
from sterna.kit.clock import SystemClock
from sterna.migration.context import HostPorts
from sterna.ports.network import Network
from sterna.ports.secrets import Keyring
from sterna.ports.volume import Volumes


def cloud_of(settings: AgentSettings) -> Cloud | None:
    """The cloud whose providers these settings choose; None where they choose none. Raises BadRequest without the
    extra `openstack`."""
    section = settings.openstack
    if not settings.needs_cloud or section.auth_url is None or section.username is None or section.password is None:
        return None
    return Cloud(
        CloudAccess(
            auth_url=section.auth_url,
            username=section.username,
            password=section.password.get_secret_value(),
            project=section.project,
            user_domain=section.user_domain,
            project_domain=section.project_domain,
            region=section.region,
            interface=section.interface,
            ca_file=str(section.ca_file) if section.ca_file else None,
            timeout_s=section.timeout_s,
        )
    )


def network_of(settings: AgentSettings, cloud: Cloud | None) -> Network:
    """The service that has the VMs' ports."""
    if settings.network.provider == "native" or cloud is None:
        return NativeNetwork()
    return NeutronNetwork(cloud)


def volumes_of(settings: AgentSettings, cloud: Cloud | None, keyring: Keyring) -> tuple[Volumes, ...]:
    """The services that have the VMs' volumes: the first that handles a disk gets it."""
    volumes: list[Volumes] = []
    if settings.volumes.provider == "cinder" and cloud is not None:
        name = settings.openstack.host or settings.host
        me = Connector(name, settings.migration.address, settings.volumes.initiator)
        volumes.append(CinderVolumes(cloud, me, keyring=keyring))
    volumes.append(SharedFileVolumes())
    volumes.append(RbdVolumes())
    if settings.volumes.initiator:
        volumes.append(
            TgtVolumes(settings.volumes.initiator, tgt_socket=settings.volumes.tgt_socket, keyring=keyring)
        )
    return tuple(volumes)


def permits_of(settings: AgentSettings) -> PermitCheck | None:
    """None where the certificates of controllers are another CA's: then nothing in them says that they are."""
    identity = settings.identity
    return PermitCheck(identity.folder, SystemClock()) if identity.enrol == "sterna" else None


def host_ports(settings: AgentSettings) -> HostPorts:
    """The real adapters of one compute host. Raises BadRequest where an optional part is missing."""
    cloud = cloud_of(settings)
    about = HostSettings(
        name=settings.host,
        address=settings.migration.address,
        initiator=settings.volumes.initiator,
        instances_dir=str(settings.instances_dir),
        link_bytes_s=settings.migration.link_bytes_s,
        transport=settings.migration.transport,
        insecure=settings.migration.insecure,
    )
    hypervisor = LibvirtHypervisor(settings.libvirt_uri, about)
    return HostPorts(
        name=settings.host,
        address=settings.migration.address,
        uri=lambda address: filled(settings.migration.uri_template, address),
        tunnel_uri=lambda address: filled(settings.migration.ssh_uri_template, address),
        hypervisor=hypervisor,
        vif=Plugs(settings.network.ovsdb, settings.network.physical_networks),
        network=network_of(settings, cloud),
        volumes=volumes_of(settings, cloud, hypervisor),
        storage=FileStorage(settings.instances_dir),
        clock=SystemClock(),
        sealing=HpkeSealing(),
        handshake=TlsHandshake(settings.migration.address),
        probe=PlainProbe(settings.migration.address),
        wait_for=settings.network.wait_for,
        vif_plugging_timeout_s=settings.network.vif_plugging_timeout_s,
        vif_plugging_is_fatal=settings.network.vif_plugging_is_fatal,
        network_host=settings.openstack.host or "",
        images=GlanceImages(cloud) if cloud is not None and settings.openstack.images else None,
        traits=settings.traits,
        more_addresses=settings.migration.more_addresses,
        permits=permits_of(settings),
    )
