"""Everything real on one host, as a plain value, for comparison before and after."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from sterna.domain.model import DEFAULT_PLUG
from sterna.sim.world.things import Definition, SimDomain
from sterna.sim.world.world import World


@dataclass(frozen=True)
class HostSnapshot:
    """What is on one host now. Two are equal if nothing but epochs and statistics differs."""

    host: str
    domains: dict[str, Any] = field(default_factory=dict)
    """UUID -> name, state, persistent, autostart, job, interlocked, live and inactive definition (no epoch)."""
    ports: dict[str, Any] = field(default_factory=dict)
    """Device -> bridge, tag, mtu, external_ids."""
    taps: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """Bridges and veths of hybrid plugs."""
    files: dict[str, Any] = field(default_factory=dict)
    """Path -> size, format, content; shared folders included."""
    directories: tuple[str, ...] = ()
    admissions: tuple[str, ...] = ()
    """iSCSI targets that admit this host's initiator."""
    sessions: tuple[tuple[str, str], ...] = ()
    """(target, UUID) of the logins QEMUs of this host hold; UUID '' of the host's own."""
    devices: dict[str, str] = field(default_factory=dict)
    """Path -> target of the volumes the host has attached."""
    recovery_monitors: tuple[str, ...] = ()
    """UUIDs of guests whose second monitor's socket is there."""
    secrets: dict[str, Any] = field(default_factory=dict)
    """UUID -> what its libvirt tells of it, and whether it has a value."""
    bindings: dict[str, str] = field(default_factory=dict)
    """Port id -> `active` or `inactive`, where bound to this host, and what else its binding says."""

    def mentions(self, text: str) -> bool:
        """Does anything here carry this text (a VM's UUID, a device)? For "nothing is left"."""
        return any(text in repr(getattr(self, f.name)) for f in fields(self) if f.name != "host")

    def diff(self, after: HostSnapshot) -> list[str]:
        """One line per difference, readable in a test's failure."""
        lines: list[str] = []
        for f in fields(self):
            old, new = getattr(self, f.name), getattr(after, f.name)
            if isinstance(old, dict):
                keys = sorted(old.keys() | new.keys())
                lines += [f"{f.name} {k}: {old.get(k)} -> {new.get(k)}" for k in keys if old.get(k) != new.get(k)]
            elif old != new:
                lines.append(f"{f.name}: {old} -> {new}")
        return lines


def take(world: World, name: str) -> HostSnapshot:
    """The host as it is at this moment."""
    host = world.hosts[name]
    return HostSnapshot(
        host=name,
        domains={uuid: _domain(domain) for uuid, domain in sorted(host.domains.items())},
        ports={
            p.device: {"bridge": p.bridge, "tag": p.tag, "mtu": p.mtu, "external_ids": dict(p.external_ids)}
            | ({"plug": p.plug, "mac": p.mac, "mode": p.mode} if p.plug != DEFAULT_PLUG else {})
            for p in host.ports.values()
        },
        taps=tuple(sorted(host.taps)),
        links=tuple(sorted(host.links)),
        files={path: (f.size_bytes, f.format, f.content) for path, f in sorted(host.files())},
        directories=tuple(sorted(path for folder in host.folders for path in folder.directories)),
        admissions=tuple(sorted(t.name for t in world.iscsi.targets.values() if host.initiator in t.admitted)),
        sessions=tuple(sorted((s.target, s.uuid) for s in world.iscsi.sessions if s.host == name)),
        devices=dict(sorted(host.devices.items())),
        recovery_monitors=tuple(sorted(host.recovery_monitors)),
        secrets={uuid: (s.about, s.value is not None) for uuid, s in sorted(host.secrets.items())},
        bindings={
            port: " ".join(_binding(world, port, name, hosts[name]))
            for port, hosts in sorted(world.bindings.items())
            if name in hosts
        },
    )


def _binding(world: World, port: str, host: str, active: bool) -> list[str]:
    words = ["active" if active else "inactive"]
    if (port, host) in world.unbound:
        words.append("unbound")
    if (port, host) in world.migrating_to:
        words.append(f"migrating to {world.migrating_to[port, host]}")
    return words


def _domain(domain: SimDomain) -> dict[str, Any]:
    return {
        "name": domain.definition.name,
        "state": str(domain.state),
        "persistent": domain.inactive is not None,
        "autostart": domain.autostart,
        "job": domain.job is not None,
        "interlocked": domain.interlocked,
        "live": _definition(domain.live),
        "inactive": _definition(domain.inactive),
    }


def _definition(definition: Definition | None) -> str | None:
    return repr(replace(definition, epoch=None)) if definition else None
