"""The doctor's adapters on one host, as its settings choose them; and `sterna agent doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sterna.adapters.host.doctor import KernelLooks
from sterna.adapters.host.frames import TcpPath
from sterna.adapters.identity.doctor import look_at_certificates
from sterna.adapters.libvirt.doctor import LibvirtLooks
from sterna.adapters.nats.doctor import PLACES, look_at_bus_rights
from sterna.adapters.stderr import log_to_stderr
from sterna.adapters.vif.doctor import look_at_ovs
from sterna.agent.doctor import Doctor
from sterna.bootstrap.host import host_ports
from sterna.bootstrap.process import join_bus
from sterna.config import AgentSettings, load
from sterna.config.bus import BusTls
from sterna.domain.doctor.findings import Finding
from sterna.domain.doctor.host import judge_host
from sterna.domain.doctor.pairs import judge_peer
from sterna.domain.model import Data
from sterna.kit.clock import SystemClock
from sterna.kit.threads import in_thread
from sterna.ports.doctor import DoctorTools, Part

FILES_S = 10.0
JOIN_S = 5.0
"""A bus that is there is joined within a fraction of it."""
JOIN_LOOK_S = 0.1


def doctor_tools(settings: AgentSettings) -> DoctorTools:
    """What this host's doctor looks with."""
    libvirt = LibvirtLooks(settings.libvirt_uri)
    kernel = KernelLooks(settings.migration.address, settings.state_dir, settings.instances_dir)
    own = settings.identity.bus_tls(BusTls()).cert_file

    def certificates() -> Data:
        files = {str(own): "the bus and other hosts"} if own is not None else {}
        seen = look_at_certificates(files | libvirt.certificate_files(), datetime.now(UTC))
        return seen | {"enrolled": bool(settings.identity.enrol)}

    parts = (
        *libvirt.parts(),
        *kernel.parts(),
        Part("certificates", partial(in_thread, certificates, name="sterna-doctor", limit_s=FILES_S)),
        Part("Open vSwitch", partial(look_at_ovs, settings.network.ovsdb)),
        Part("nats-server's configuration", partial(in_thread, _bus_rights, name="sterna-doctor", limit_s=FILES_S)),
    )
    return DoctorTools(parts, TcpPath(), libvirt, str(settings.instances_dir))


def _bus_rights() -> Data:
    return look_at_bus_rights(PLACES)


async def _bus(settings: AgentSettings) -> Data:
    """Is the bus reached with this host's settings? Raises BadRequest for files that cannot be used."""
    bus = await join_bus(settings.bus, f"doctor {settings.host}", settings.host, settings.identity)
    clock = SystemClock()
    try:
        until = clock.monotonic_ms() + JOIN_S * 1000
        while not (state := bus.state()).connected and clock.monotonic_ms() < until:
            await clock.sleep(JOIN_LOOK_S)
        return {"bus_error": "" if state.connected else state.why or f"no answer within {JOIN_S:g} s"}
    finally:
        await bus.close()


async def examine(config: Path, peers: Sequence[str]) -> list[Finding]:
    """What is right and wrong with this host, and with the way to these addresses; the agent need not run. Raises
    BadRequest for wrong settings."""
    log_to_stderr("error")
    settings = load(AgentSettings, config)
    tools = doctor_tools(settings)
    bus = Part("the message bus", partial(_bus, settings))
    doctor = Doctor(host_ports(settings), DoctorTools((*tools.parts, bus), tools.path, None, tools.instances_dir))
    seen = await doctor.seen([(address, address) for address in peers])
    found = judge_host(seen.look)
    return found + [line for peer in seen.peers for line in judge_peer(settings.host, peer)]
