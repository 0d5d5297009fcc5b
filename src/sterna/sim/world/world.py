"""The simulated world: hosts, storage, switches and guests. Its state is the truth that tests compare against.

Adapters (`hypervisor.py`, `vif.py`, `volumes.py`, `storage.py`, `network.py`) and tests change it through the
methods here, each of which tells the watchers at once. It knows nothing of Sterna's own bookkeeping.
"""

from __future__ import annotations

import asyncio
import itertools
import posixpath
from collections.abc import Callable, Coroutine
from typing import Any

from sterna.domain.model import Disk
from sterna.ports.clock import Clock
from sterna.ports.hypervisor import GuestEvent
from sterna.sim.world import needs
from sterna.sim.world.events import EventHub
from sterna.sim.world.host import SimHost
from sterna.sim.world.iscsi import THE_HOST, Session, SimIscsi
from sterna.sim.world.things import (
    GIB,
    Change,
    Job,
    Pace,
    SimDomain,
    SimFile,
    SimFolder,
    SimGuest,
    SimPort,
    Violation,
)

Watcher = Callable[[Change], None]


class World:
    """Hosts and what joins them. Everything happens on `clock`; nothing sleeps for real."""

    def __init__(self, clock: Clock, *, pace: Pace | None = None) -> None:
        self.clock = clock
        self.pace = pace or Pace()
        self.hosts: dict[str, SimHost] = {}
        self.shared: dict[str, SimFolder] = {}
        self.iscsi = SimIscsi()
        self.guests: dict[str, SimGuest] = {}
        self.bindings: dict[str, dict[str, bool]] = {}
        """Port id -> host -> is its binding the active one?"""
        self.port_owners: dict[str, str] = {}
        """Port id -> UUID of the VM that the network service has it for."""
        self.unbound: set[tuple[str, str]] = set()
        """(port, host) of bindings that say nothing of how to plug: those that were active before."""
        self.migrating_to: dict[tuple[str, str], str] = {}
        """(port, host) -> the host that binding's profile names as where it goes."""
        self.network_up = True
        """Does the network service answer?"""
        self.learnt: dict[str, str] = {}
        """MAC -> the host where it was last announced."""
        self.events = EventHub()
        self.lock_places = itertools.count(2**61)
        self.copies: list[Job] = []
        """Migrations under way."""
        self.violations: list[Violation] = []
        self._watchers: list[Watcher] = []
        self._cut: set[tuple[frozenset[str], str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- watching ------------------------------------------------------------------------------------------

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback` at every change from now on, after it has happened; the answer stops it.

        A watcher may change the world (that is how a test makes a fault at a named moment).
        """
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def tell(self, host: str, what: str, subject: str, detail: str = "") -> None:
        """A change has happened: note violations, then tell the watchers."""
        change = Change(self.clock.monotonic_ms(), host, what, subject, detail)
        self._note_violations(change)
        for watcher in tuple(self._watchers):
            watcher(change)

    def emit(self, host: SimHost, uuid: str, kind: str, detail: str = "", iteration: int | None = None) -> None:
        """A libvirt event; nothing sees one whose libvirtd is down."""
        if host.libvirtd_up:
            event = {"kind": kind, "detail": detail, "iteration": iteration, "at_ms": self.clock.monotonic_ms()}
            self.events.publish(host.name, uuid, GuestEvent.model_validate(event))

    def running(self, uuid: str) -> list[str]:
        """Hosts on which this guest's vCPUs run now: at most one, always."""
        return [h.name for h in self.hosts.values() if (d := h.domains.get(uuid)) is not None and d.running]

    def _note_violations(self, change: Change) -> None:
        for host, domain in self._concerned(change):
            if not domain.running:
                continue
            running = self.running(domain.uuid)
            if len(running) > 1:
                self._violate(change, host, domain.uuid, f"two copies run, on {' and '.join(running)}")
            for text in needs.missing(host, self.iscsi, self.guests[domain.uuid], domain):
                self._violate(change, host, domain.uuid, text)

    def _violate(self, change: Change, host: SimHost, uuid: str, text: str) -> None:
        if not any(v.host == host.name and v.uuid == uuid and v.text == text for v in self.violations):
            self.violations.append(Violation(change.at_ms, host.name, uuid, text))

    def _concerned(self, change: Change) -> list[tuple[SimHost, SimDomain]]:
        """The domains a change may hurt."""
        if change.what in ("tap", "port"):
            host = self.hosts[change.host]
            return [(host, d) for d in host.users_of(change.subject)]
        if change.what == "domain":
            host = self.hosts[change.host]
            return [(host, host.domains[change.subject])] if change.subject in host.domains else []
        if change.what == "file":
            users = self.hosts[change.host].folder(change.subject).users.get(change.subject, set())
            return [(self.hosts[name], self.hosts[name].domains[uuid]) for name, uuid in sorted(users)]
        if change.what == "device":
            here = self.hosts[change.host]
            return [(here, d) for d in here.domains.values() if d.live and _opens(d.live.disks, change.subject)]
        if change.what in ("admission", "session"):
            logged_in = {s.host for s in self.iscsi.sessions if s.target == change.subject}
            hosts = [self.hosts[n] for n in sorted(logged_in | {change.host} - {""})]
            return [(h, d) for h in hosts for d in h.domains.values() if _reaches(d, change.subject)]
        return []

    # -- hosts and what joins them -------------------------------------------------------------------------

    def add_host(
        self,
        name: str,
        *,
        memory_bytes: int = 64 * GIB,
        cpus: int = 16,
        bridges: tuple[str, ...] = ("br-int",),
        shared: tuple[str, ...] = ("/srv/shared",),
    ) -> SimHost:
        """A new host with its own root file system and the named shared folders."""
        number = len(self.hosts) + 1
        address = f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}"
        host = SimHost(self, name, address=address, memory_bytes=memory_bytes, cpus=cpus)
        host.host_uuid = f"00000000-0000-4000-8000-{number:012x}"
        host.bridges = dict.fromkeys(bridges, 1500)
        host.root.directories.add(host.instances_dir)
        self.hosts[name] = host
        for path in shared:
            self.share(path, name)
        return host

    def share(self, path: str, *hosts: str) -> SimFolder:
        """Make the folder `path` the same file system on these hosts."""
        folder = self.shared.setdefault(path, SimFolder(path, shared=True))
        for name in hosts:
            if name not in folder.hosts:
                folder.hosts.add(name)
                self.hosts[name].folders.append(folder)
        return folder

    def host_at(self, uri: str) -> SimHost | None:
        """The host whose libvirtd a URI names, by address or by name."""
        named = uri.partition("//")[2].partition("/")[0].rpartition("@")[2]
        return next((h for h in self.hosts.values() if named in (h.address, h.name)), None)

    def cut(self, a: str, b: str, *, kinds: tuple[str, ...] = ("stream", "control")) -> None:
        """Cut the path between two hosts: QEMU's `stream`, libvirt's `control` connection, or both."""
        for kind in kinds:
            self._cut.add((frozenset((a, b)), kind))
            self.tell(a, "link", b, f"{kind} cut")
        for copy in tuple(self.copies):
            copy.link_changed()

    def mend(self, a: str, b: str) -> None:
        """Join them again."""
        for kind in ("stream", "control"):
            self._cut.discard((frozenset((a, b)), kind))
        self.tell(a, "link", b, "mended")

    def joined(self, a: str, b: str, kind: str) -> bool:
        """Is the path of this kind between the hosts whole?"""
        return (frozenset((a, b)), kind) not in self._cut

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that belongs to the world: it goes on whoever asked for it dies."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End the world: cancel what still happens in it."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- files ---------------------------------------------------------------------------------------------

    def make_directory(self, host: str, path: str) -> None:
        """Make it, and its parents."""
        folder = self.hosts[host].folder(path)
        while not self.hosts[host].directory_exists(path):
            folder.directories.add(path)
            self.tell(host, "directory", path, "made")
            path = posixpath.dirname(path)

    def remove_directory(self, host: str, path: str) -> None:
        """Remove it; the caller has seen that it is empty."""
        self.hosts[host].folder(path).directories.discard(path)
        self.tell(host, "directory", path, "removed")

    def put_file(self, host: str, path: str, file: SimFile) -> None:
        """Make a file, or write to it."""
        folder = self.hosts[host].folder(path)
        if path not in folder.files:
            folder.births[path] = folder.births.get(path, 0) + 1
        folder.files[path] = file
        self.tell(host, "file", path, "written")

    def remove_file(self, host: str, path: str) -> bool:
        """Remove a file; False where there was none."""
        if self.hosts[host].folder(path).files.pop(path, None) is None:
            return False
        self.tell(host, "file", path, "removed")
        return True

    # -- switch --------------------------------------------------------------------------------------------

    def add_port(self, host: str, port: SimPort) -> None:
        """Make the tap and put it on its bridge."""
        self.hosts[host].taps.add(port.device)
        self.tell(host, "tap", port.device, "made")
        self.hosts[host].ports[port.device] = port
        self.tell(host, "port", port.device, "added")

    def put_port(self, host: str, port: SimPort) -> None:
        """Only the switch's record: its device is no tap."""
        self.hosts[host].ports[port.device] = port
        self.tell(host, "port", port.device, "added")

    def add_link(self, host: str, name: str) -> None:
        """A bridge or veth of a hybrid plug; there already is nothing."""
        if name not in self.hosts[host].links:
            self.hosts[host].links.add(name)
            self.tell(host, "link", name, "made")

    def remove_link(self, host: str, name: str) -> bool:
        """Delete it; False where there is none."""
        if name not in self.hosts[host].links:
            return False
        self.hosts[host].links.discard(name)
        self.tell(host, "link", name, "removed")
        return True

    def remove_port(self, host: str, device: str) -> bool:
        """Take it off its bridge and delete the tap; False where there was neither."""
        had_port = self.hosts[host].ports.pop(device, None) is not None
        if had_port:
            self.tell(host, "port", device, "removed")
        return self.remove_tap(host, device) or had_port

    def remove_tap(self, host: str, device: str) -> bool:
        """Delete the tap only, as a reboot does: the switch remembers the port."""
        if device not in self.hosts[host].taps:
            return False
        self.hosts[host].taps.discard(device)
        self.tell(host, "tap", device, "removed")
        return True

    # -- volumes and bindings ------------------------------------------------------------------------------

    def admit(self, target: str, initiator: str, host: str = "") -> None:
        """Add an initiator to a target's access list."""
        self.iscsi.targets[target].admitted.add(initiator)
        self.tell(host, "admission", target, f"{initiator} admitted")

    def withdraw(self, target: str, initiator: str, host: str = "") -> None:
        """Take it off the list; logins that exist are not ended by that, as with tgt."""
        if target in self.iscsi.targets and initiator in self.iscsi.targets[target].admitted:
            self.iscsi.targets[target].admitted.discard(initiator)
            self.tell(host, "admission", target, f"{initiator} withdrawn")

    def log_in(self, session: Session) -> None:
        """A QEMU opened a LUN."""
        self.iscsi.sessions.add(session)
        self.tell(session.host, "session", session.target, "opened")

    def log_out(self, host: str, uuid: str) -> None:
        """A guest's QEMU is gone, and its logins with it."""
        for session in sorted(s for s in self.iscsi.sessions if s.host == host and s.uuid == uuid):
            self.iscsi.sessions.discard(session)
            self.tell(host, "session", session.target, "closed")

    def end_sessions(self, target: str, initiator: str) -> None:
        """Cut an initiator's logins to a target: a guest that still used one has lost its disk."""
        held = [s for s in self.iscsi.sessions if s.target == target and s.initiator == initiator]
        for session in sorted(held):
            self.iscsi.sessions.discard(session)
            self.tell(session.host, "session", target, "cut")

    def attach_device(self, host: str, path: str, target: str) -> None:
        """The host itself logs in and its kernel makes a device, as far as either is missing."""
        session = Session(target, self.hosts[host].initiator, host, THE_HOST)
        if session not in self.iscsi.sessions:
            self.log_in(session)
        if path not in self.hosts[host].devices:
            self.hosts[host].devices[path] = target
            self.tell(host, "device", path, "made")

    def detach_device(self, host: str, path: str, target: str) -> None:
        """Remove the device and log the host out, as far as either is there."""
        if self.hosts[host].devices.pop(path, None) is not None:
            self.tell(host, "device", path, "removed")
        session = Session(target, self.hosts[host].initiator, host, THE_HOST)
        if session in self.iscsi.sessions:
            self.iscsi.sessions.discard(session)
            self.tell(host, "session", target, "closed")

    def bind(self, port_id: str, host: str, active: bool | None) -> None:
        """Set a port's binding on a host; None removes it."""
        hosts = self.bindings.setdefault(port_id, {})
        if hosts.get(host) == active:
            return
        if active is None:
            del hosts[host]
            self.unbound.discard((port_id, host))
            self.migrating_to.pop((port_id, host), None)
        else:
            hosts[host] = active
        self.tell(host, "binding", port_id, {None: "removed", True: "active", False: "inactive"}[active])

    def activate_binding(self, port_id: str, host: str) -> None:
        """Make it the active one, at once; the one that was loses all it knew."""
        hosts = self.bindings[port_id]
        for other in [name for name, active in hosts.items() if active]:
            hosts[other] = False
            self.unbound.add((port_id, other))
        self.bind(port_id, host, True)

    def move_binding(self, port_id: str, host: str) -> None:
        """The active binding becomes this host's; unbound, if nobody is there."""
        for other in [name for name, active in self.bindings[port_id].items() if active]:
            del self.bindings[port_id][other]
            self.migrating_to.pop((port_id, other), None)
        if not self.hosts[host].powered:
            self.unbound.add((port_id, host))
        self.bind(port_id, host, True)

    def rebind(self, port_id: str, host: str) -> None:
        """The service works out again how it is plugged there."""
        if (port_id, host) in self.unbound:
            self.unbound.discard((port_id, host))
            self.tell(host, "binding", port_id, "bound again")

    def mark_binding(self, port_id: str, host: str, to: str) -> None:
        """Its profile names the host it migrates to; '' for none."""
        if self.migrating_to.get((port_id, host), "") != to:
            self.migrating_to[port_id, host] = to
            if not to:
                del self.migrating_to[port_id, host]
            self.tell(host, "binding", port_id, f"migrating to {to}" if to else "migrating no more")

    # -- libvirtd (through SimHost.libvirtd_up) ------------------------------------------------------------

    def libvirtd_stopped(self, host: SimHost) -> None:
        """Connections break; guests run on. A copy cannot go on without either side's libvirtd."""
        self.events.disconnect(host.name)
        for domain in host.domains.values():
            domain.completed = None
        self.tell(host.name, "libvirtd", host.name, "down")
        for copy in tuple(self.copies):
            copy.libvirtd_lost(host.name)

    def libvirtd_started(self, host: SimHost) -> None:
        """libvirtd is back, and remembers nothing of guests without a QEMU."""
        for domain in host.domains.values():
            if not domain.active:
                domain.reason = "unknown"  # libvirt keeps no reason for a guest without QEMU across a restart
        self.events.reconnect(host.name, [d.uuid for d in host.domains.values() if d.running])
        for domain in host.domains.values():
            if not domain.active:
                domain.reason = "unknown"  # it does not remember how a guest ended
        self.tell(host.name, "libvirtd", host.name, "up")


def _opens(disks: tuple[Disk, ...], path: str) -> bool:
    return any(d.path == path for d in disks)


def _reaches(domain: SimDomain, target: str) -> bool:
    return domain.live is not None and any(d.iscsi and d.iscsi.target == target for d in domain.live.disks)
