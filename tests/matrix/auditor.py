"""The independent auditor: it looks at the simulated world only, and shares no code with Sterna's bookkeeping.

`saw` is called at every change of the world; `verdict` at the end. It keeps its own memory of where a guest's
vCPUs last ran, and its own idea of what a guest needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sterna.domain.model import Disk, GuestState
from sterna.sim.simulation import SimWorld
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import Change, Definition, SimDomain

QEMU_DOWNTIME_MS = 300
"""QEMU's own limit of the downtime, which the next migration of a guest must find, whoever starts it."""
Facts = dict[str, frozenset[str]]
"""Place (a host, or `shared`) -> one line per thing that is there."""


@dataclass
class Guest:
    """What the auditor remembers of one guest."""

    uuid: str
    last_ran: str
    definition: Definition
    """As it last ran."""
    was: dict[str, str] = field(default_factory=dict)
    """Host -> running, paused, incoming, off."""
    ran_until_ms: float = 0.0
    lost: bool = False
    """It was in post-copy, and the QEMU that held the other part of its memory is gone: it can run nowhere."""


class Auditor:
    """Watches one world from the moment it is told of its guests."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.findings: list[str] = []
        self.guests: dict[str, Guest] = {}
        self.commanded = False
        """The test itself starts guests now."""
        world.watch(self.saw)

    def remember(self, uuid: str, host: str) -> None:
        """A new guest runs on `host`."""
        domain = self.world.hosts[host].domains[uuid]
        self.guests[uuid] = Guest(uuid, host, domain.definition, {host: _condition(domain)})

    # ------------------------------------------------------------ at every change

    def saw(self, change: Change) -> None:
        """Something changed: does everything that must always hold still hold?"""
        for guest in self.guests.values():
            running = self.running(guest.uuid)
            if len(running) > 1:
                self.find(f"TWO COPIES RUN of {guest.definition.name}: on {' and '.join(running)}")
            for host in running:
                for lack in lacks(self.world, self.world.hosts[host], guest.uuid):
                    self.find(f"runs on {host} without {lack}")
            self._check_destroyed(guest, change)
            halves = [d for h in self.world.hosts.values() if (d := h.domains.get(guest.uuid)) and d.live]
            guest.lost = len(halves) == 1 and halves[0].reason.startswith("postcopy")
            for there in self.world.hosts.values():
                self._follow(guest, there)

    def by_agent(self, change: Change) -> None:
        """An agent did that: in post-copy nothing but the stream and the port bindings may be touched."""
        stream = change.what in ("job", "binding") or (change.what == "domain" and "(postcopy" in change.detail)
        if stream or change.detail == "guest wrote" or "/.sterna-" in change.subject:
            return
        for guest in self.guests.values():
            if self.in_postcopy(guest.uuid):
                self.find(f"in post-copy, {change.what} {change.subject} of {change.host}: {change.detail}")

    def in_postcopy(self, uuid: str) -> bool:
        """Does it run on one host while another's QEMU still holds pages of it?"""
        held = [h for h in self.world.hosts.values() if _holds_pages(h.domains.get(uuid))]
        return bool(held) and bool(self.running(uuid))

    def running(self, uuid: str) -> list[str]:
        """Hosts where its vCPUs run."""
        hosts = self.world.hosts.values()
        return [h.name for h in hosts if uuid in h.domains and _condition(h.domains[uuid]) == "running"]

    def _follow(self, guest: Guest, host: SimHost) -> None:
        """Keep track of each copy; a guest goes on where it last ran, or where its memory was sent."""
        domain = host.domains.get(guest.uuid)
        now, before = _condition(domain), guest.was.get(host.name, "off")
        guest.was[host.name] = now
        if before == "running" and now == "off":
            guest.ran_until_ms = self.world.clock.monotonic_ms()
        if domain is None or now != "running":
            return
        arrives = domain.reason in ("migrated", "postcopy")
        if before != "running" and guest.last_ran != host.name and not arrives:
            self.find(f"an old copy of {guest.definition.name} was set running on {host.name} ({domain.reason}) "
                       f"though it last ran on {guest.last_ran}")  # fmt: skip
        guest.last_ran, guest.definition = host.name, domain.definition

    def _check_destroyed(self, guest: Guest, change: Change) -> None:
        here, last = change.host, guest.last_ran
        if change.subject == guest.uuid and change.what == "domain" and here == last:
            if change.detail.endswith("(destroyed)") and not guest.lost:
                self.find(f"the guest itself was destroyed, on {here}")
            if change.detail == "undefined":
                self.find(f"its definition was removed on {here}, where it last ran")
        if change.what == "file" and change.detail == "removed":
            host = self.world.hosts[last]
            if change.subject in _paths(guest.definition) and host.file(change.subject) is None:
                self.find(f"its disk {change.subject} was removed")
        targets = {d.iscsi.target for d in guest.definition.disks if d.iscsi}
        locked_out = change.detail == f"{self.world.hosts[last].initiator} withdrawn"
        if change.what == "admission" and locked_out and change.subject in targets:
            self.find(f"{last}, where it last ran, was locked out of {change.subject}")

    def find(self, text: str) -> None:
        """Something is not as it must be; said once."""
        line = f"{self.world.clock.monotonic_ms():9.0f} ms  {text}"
        if not any(known.endswith(text) for known in self.findings):
            self.findings.append(line)

    # ------------------------------------------------------------ at the end

    def verdict(
        self, uuid: str, source: str, destination: str, before: Facts, vm: frozenset[str], over_ms: float
    ) -> str:
        """`completed`, `stayed` or `ended at HOST`; anything that is not as it must be becomes a finding.

        `before`: everything without the VM; `vm`: what the VM adds to the side it is on; `over_ms`: when the
        migration was complete on the destination: what a guest leaves that ends later is not the migration's.
        """
        guest = self.guests[uuid]
        running = self.running(uuid)
        side = running[0] if running else guest.last_ran
        if guest.last_ran != side:
            self.find(f"it runs on {side} but last ran on {guest.last_ran}")
        now = facts(self.world, uuid)
        for place in before:
            expected = before[place] | (vm if place == side else frozenset())
            if (
                place == side == destination
            ):  # its own folder has moved with it (P8), whether it holds a disk or not
                now[place] -= {f"directory {self.world.hosts[side].instances_dir}/{uuid}"} - expected
                now[place] -= {line for line in now[place] if line.startswith("secret ")}  # it is opened with them
            if not running and place == side:
                expected = frozenset(line for line in expected if not line.startswith("live "))
                forgiven = ("live port", "live tap") if guest.ran_until_ms >= over_ms else ("live port",)
                now[place] = frozenset(line for line in now[place] if not line.startswith(forgiven))
                if not any(line.startswith("definition") for line in vm):
                    expected = frozenset(line for line in expected if not line.startswith("domain "))
            for line in sorted(now[place] - expected):
                self.find(f"LEFT on {place}: {line}")
            for line in sorted(expected - now[place]):
                self.find(f"MISSING on {place}: {line}")
        if self.world.copies:
            self.find("a copy is still under way")
        if not running:
            return f"ended at {side}"
        for mac, told in self.world.learnt.items():
            if told != side:
                self.find(f"the network sends the frames of {mac} to {told}, but it runs on {side}")
        return "completed" if side == destination else "stayed"


def lacks(world: SimWorld, host: SimHost, uuid: str) -> Iterator[str]:
    """What the guest that runs here needs and has not."""
    live = host.domains[uuid].live
    assert live is not None
    for nic in live.nics:
        port = host.ports.get(nic.device or "")
        if nic.device not in host.taps:
            yield f"the tap of {nic.mac}"
        if port is None or port.bridge not in host.bridges or port.external_ids.get("iface-id") != nic.port_id:
            yield f"a port on a bridge for {nic.mac}"
    for disk in live.disks:
        for ref in disk.secrets:
            known = (s.about for s in host.secrets.values() if s.value)
            if not any(ref.uuid in (None, k.uuid) and ref.usage in (None, k.usage) for k in known):
                yield f"the secret {ref.words}"
        wrote = world.guests[uuid].written.get(disk.target)
        if disk.iscsi is not None:
            yield from _lacks_target(world, host, uuid, disk, wrote)
        elif disk.path is not None:
            file = host.file(disk.path)
            if file is None:
                yield f"its disk {disk.path}"
            elif wrote not in (None, file.content):
                yield f"its own data on {disk.path}"


def _lacks_target(world: SimWorld, host: SimHost, uuid: str, disk: Disk, wrote: str | None) -> Iterator[str]:
    assert disk.iscsi is not None
    target = world.iscsi.targets[disk.iscsi.target]
    if host.initiator not in target.admitted:
        yield f"being admitted to {target.name}"
    holder = "" if disk.path else uuid  # a device is the host's, a login without one is QEMU's own
    if disk.path and host.devices.get(disk.path) != target.name:
        yield f"the device {disk.path}"
    if not any((s.target, s.host, s.uuid) == (target.name, host.name, holder) for s in world.iscsi.sessions):
        yield f"a session with {target.name}"
    if wrote not in (None, target.volume.content):
        yield f"its own data on {target.name}"


def facts(world: SimWorld, uuid: str) -> Facts:
    """Everything real, one line each, in words that do not depend on the host it is on."""
    guest = world.guests.get(uuid)
    found: Facts = {}
    for host in world.hosts.values():
        found[host.name] = frozenset(_host_lines(world, host))
    shared: set[str] = set()
    for folder in world.shared.values():
        shared |= {f"directory {path}" for path in folder.directories}
        for path, file in folder.files.items():
            data = "guest's data" if guest and file.content in guest.written.values() else file.content
            shared.add(f"file {path} {file.size_bytes} {file.format}: {data}")
    found["shared"] = frozenset(shared)
    return found


def _host_lines(world: SimWorld, host: SimHost) -> Iterator[str]:
    for domain in host.domains.values():
        yield from _domain_lines(domain)
    plugged = {}
    for port in host.ports.values():
        ids = port.external_ids
        plugged[port.device] = ids.get("iface-id")
        words = f"{port.bridge} tag {port.tag} mtu {port.mtu} {ids.get('iface-id')} {ids.get('attached-mac')}"
        yield f"live port {words}"
    for tap in host.taps:
        yield f"live tap of {plugged[tap]}" if tap in plugged else f"tap {tap} on no bridge"
    wrote = {content for guest in world.guests.values() for content in guest.written.values()}
    for path, file in host.root.files.items():
        data = "guest's data" if file.content in wrote else file.content
        yield f"file {path} {file.size_bytes} {file.format}: {data}"
    for path in host.root.directories:
        yield f"directory {path}"
    for target in world.iscsi.targets.values():
        if host.initiator in target.admitted:
            yield f"admitted to {target.name}"
    for session in world.iscsi.sessions:
        if session.host == host.name:
            yield f"live session {session.target} for {session.uuid}" if session.uuid else f"login {session.target}"
    for path, name in host.devices.items():
        yield f"device {path} of {name}"
    for uuid in getattr(host, "recovery_monitors", ()):
        yield f"recovery monitor of {uuid}"
    for secret in host.secrets.values():
        if secret.about.made_for:
            yield f"secret {secret.about.uuid} made for {secret.about.made_for}"
    for port_id, hosts in world.bindings.items():
        if host.name in hosts:
            bound = "unbound" if (port_id, host.name) in world.unbound else "bound"
            yield f"binding {port_id} {'active' if hosts[host.name] else 'inactive'} {bound}"
        if (port_id, host.name) in world.migrating_to:
            yield f"binding {port_id} says that it migrates"


def _domain_lines(domain: SimDomain) -> Iterator[str]:
    yield f"domain {domain.uuid}"
    if domain.autostart:
        yield f"autostart {domain.uuid}"
    if domain.interlocked:
        yield f"interlock on {domain.uuid}"
    if domain.job is not None:
        yield f"job of {domain.uuid}"
    elif domain.max_downtime_ms not in (None, QEMU_DOWNTIME_MS):
        yield f"a downtime limit of {domain.max_downtime_ms} ms for {domain.uuid}"
    if domain.live is not None:
        yield f"live domain {domain.uuid} {domain.state} {_words(domain.live)}"
    if domain.inactive is not None:
        nics = ",".join(f"{n.mac}:{'made by libvirt' if n.managed else n.device}" for n in domain.inactive.nics)
        yield f"definition {domain.uuid} {_words(domain.inactive)} {nics}"


def _words(definition: Definition) -> str:
    disks = ",".join(f"{d.target}={d.path or (d.iscsi.target if d.iscsi else d.kind)}" for d in definition.disks)
    nics = ",".join(f"{n.mac}/{n.port_id}" for n in definition.nics)
    return f"{definition.name} {definition.memory_bytes} [{disks}] [{nics}]"


def _holds_pages(domain: SimDomain | None) -> bool:
    paused = domain is not None and domain.live is not None and domain.state is GuestState.PAUSED
    return domain is not None and paused and domain.reason.startswith("postcopy")


def _condition(domain: SimDomain | None) -> str:
    if domain is None or domain.live is None:
        return "off"
    if domain.state is GuestState.RUNNING:
        return "running"
    return "incoming" if domain.reason == "incoming" else "paused"


def _paths(definition: Definition) -> set[str]:
    return {d.path for d in definition.disks if d.path}
