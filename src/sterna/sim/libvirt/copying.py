"""One simulated peer-to-peer migration, driven by the world: it goes on when whoever asked for it dies.

The phases, and what ends the copy in each:

    PREPARING    nothing on the destination yet              any fault: the source runs on
    COPYING      the incoming guest waits, source runs       any fault: incoming removed, source runs on
    SWITCHING    source paused, destination not yet running  a fault that libvirt sees: source runs again;
                                                             a libvirtd or control link lost: outcome unknown
    FINISHED     destination runs, its answer travels        libvirtd or control link lost: outcome unknown
    CONFIRMING   the source's libvirt ends its paused QEMU   source's libvirtd lost: that QEMU stays, paused
    POSTCOPY     destination runs, source still holds pages  stream lost: both wait to be joined again; a libvirtd
                                                             lost: the QEMUs go on, only the caller's answer is lost
    OVER

"Outcome unknown": the source's libvirt lets its guest run again (`Pace.resume_on_lost_finish`), unless the
interlock keeps the QEMU from it, as it does wherever the source "runs again" once its state has been sent.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sterna.domain.copying import CompletedJob, CopyPlan, JobSample
from sterna.sim.libvirt import qemu, streams
from sterna.sim.libvirt.postcopying import LOST, Ended, Postcopying
from sterna.sim.libvirt.rendering import incoming_definition, persistent_definition
from sterna.sim.libvirt.sending import Sending
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import Phase, SimDomain
from sterna.sim.world.world import World


class SimCopy(Sending, Postcopying):
    """A migration under way. `start` it, then `wait` for it; `error` is None if it completed."""

    def __init__(
        self, world: World, source: SimHost, destination: SimHost, domain: SimDomain, plan: CopyPlan
    ) -> None:
        super().__init__()
        self.world = world
        self.source = source
        self.destination = destination
        self.uuid = domain.uuid
        self.plan = plan
        self.phase = Phase.PREPARING
        self.error: str | None = None
        assert domain.live is not None
        self.definition = domain.live
        self._incoming = incoming_definition(domain.live, plan)
        self.bandwidth = min(plan.limit_bytes_s or world.pace.bandwidth_bytes, world.pace.bandwidth_bytes)
        self.max_downtime_ms = domain.max_downtime_ms or world.pace.max_downtime_ms
        self.memory_total = self.definition.memory_bytes
        self.disk_total = sum(self._allocated(d.target) for d in plan.disks if d.copied)
        self.iteration = 0
        self._disk_done = 0
        self._processed = 0
        self._sending = 0
        self._started_ms = self._stage_ms = world.clock.monotonic_ms()
        self._prepared_ms = self._paused_ms = self._started_ms
        self._over = asyncio.Event()

    # -- for the hypervisor --------------------------------------------------------------------------------

    @property
    def sender(self) -> str:
        """The host that sends it."""
        return self.source.name

    def start(self) -> None:
        """Register with the source's libvirt and begin."""
        self.source.domains[self.uuid].job = self
        self.world.copies.append(self)
        self._tell("started")
        self.world.spawn(self._run())

    async def wait(self) -> None:
        """Return when it is over; being cancelled changes nothing for the copy."""
        await self._over.wait()

    def abort(self) -> None:
        """`virsh domjobabort`: before the destination runs, the source runs on. Later it does nothing."""
        if self.phase < Phase.FINISHED and not self._switch.is_set():
            self._fail("operation aborted: migration out job: canceled by client")

    def sample(self) -> JobSample:
        """Statistics as they are now."""
        now = self.world.clock.monotonic_ms()
        sent = max(0, min(self._sending, int(max(now - self._stage_ms, 0) / 1000 * self.bandwidth)))
        on_disk = self.phase is Phase.COPYING and self.iteration == 0
        disk_done = self._disk_done + (sent if on_disk else 0)
        processed = self._processed + (0 if on_disk else sent)
        remaining = self.memory_total if self.iteration == 0 else self._sending - sent
        guest = self.world.guests[self.uuid]
        return JobSample(
            elapsed_ms=int(now - self._started_ms),
            memory_total=self.memory_total,
            memory_processed=processed,
            memory_remaining=remaining,
            memory_rate=self.bandwidth if self.iteration else 0,
            dirty_rate=guest.dirty_bytes_per_s if self.iteration > 1 else None,
            iteration=self.iteration or None,
            disk_total=self.disk_total,
            disk_processed=disk_done,
            disk_remaining=self.disk_total - disk_done,
            downtime_ms=int(self.max_downtime_ms) if self.iteration > 1 else None,
            throttle_percent=self.throttle or None,
        )

    # -- for the world: faults -----------------------------------------------------------------------------

    def link_changed(self) -> None:
        """A link was cut somewhere."""
        stream = self.world.joined(self.source.name, self.destination.name, "stream")
        control = self.world.joined(self.source.name, self.destination.name, "control")
        if self.phase is Phase.POSTCOPY:
            if not control:
                self._lose_call(LOST)
            if not stream:
                self._break()
            return
        if not control:
            self._destination_lost(reachable=True)
        elif not stream and self.phase < Phase.FINISHED:
            self._fail("operation failed: migration out job: unexpectedly failed: Input/output error")

    def libvirtd_lost(self, host: str) -> None:
        """A libvirtd went down: the source's drives the copy, the destination's holds the incoming guest."""
        if self.phase is Phase.POSTCOPY:
            self._lose_call("Cannot recv data: Connection reset by peer")
        elif host == self.destination.name:
            self._destination_lost(reachable=False)
        elif host == self.source.name and self.phase < Phase.OVER:
            self._finish("Cannot recv data: Connection reset by peer")
            self._drop_incoming()

    def qemu_gone(self, host: str) -> None:
        """The guest's QEMU on one of the two hosts is gone, whoever ended it."""
        if self.phase is Phase.OVER:
            return
        if self.phase is Phase.POSTCOPY:
            self._half_gone(host)
            return
        if host == self.source.name and self.phase >= Phase.FINISHED:
            self._finish(None)
        elif host == self.source.name:
            self._finish("operation failed: domain is no longer running")
            self._drop_incoming()
        elif self.phase < Phase.FINISHED:
            self._fail("operation failed: migration out job: unexpectedly failed: Input/output error")

    # -- its life ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._prepare()
            await self._copy()
            if self._switch.is_set():
                await self._post_copy()
            else:
                await self._switch_over()
                await self._confirm()
        except Ended:
            return
        except Exception as error:
            self._finish(f"the simulation itself failed: {error!r}")  # nobody must wait for ever
            raise

    async def _prepare(self) -> None:
        await self._wait(self.world.pace.prepare_ms)
        try:
            self._check_disk_copies()
            streams.check_hosts(self.source, self.destination, self.plan)
            if not self.world.joined(self.source.name, self.destination.name, "stream"):
                raise qemu.LibvirtSays("unable to connect to migration address: Connection timed out")
            domain = qemu.start_incoming(self.world, self.destination, self.uuid, self._incoming)
        except qemu.LibvirtSays as refusal:
            self._fail(str(refusal))
            raise Ended from refusal
        if self.phase is Phase.OVER:  # a watcher ended it at that very change: nobody feeds the guest now
            self._drop_incoming()
            raise Ended
        domain.job = self
        if self.plan.postcopy:
            self.destination.recovery_monitors.add(self.uuid)
        self._prepared_ms = self.world.clock.monotonic_ms()
        self._enter(Phase.COPYING)

    async def _copy(self) -> None:
        if self.disk_total:
            await self._send(self.disk_total)
            self._disk_done, self._processed = self.disk_total, 0
        guest = self.world.guests[self.uuid]
        remaining = self.memory_total
        while self.iteration == 0 or self._ms_for(remaining) > self.max_downtime_ms:
            self.iteration += 1
            self.world.emit(self.source, self.uuid, "iteration", iteration=self.iteration)
            self._tell(f"iteration {self.iteration}")
            took_ms, left = await self._send_until(remaining, self._counts_again)
            self._counts_again.clear()
            written = guest.dirty_bytes_per_s * (1 - self.throttle / 100) * took_ms / 1000
            dirtied = min(guest.working_set_bytes, int(written))
            self._auto_converge(dirtied, remaining - left)
            remaining = min(left + dirtied, self.memory_total)
            if self._switch.is_set():
                break
        self._sending = remaining

    def _whole(self) -> SimCopy:
        return self

    async def _pause(self) -> SimDomain:
        """The source's vCPUs stop: the switch-over begins."""
        source = self.source.domains[self.uuid]
        self._enter(Phase.SWITCHING)
        self._paused_ms = self.world.clock.monotonic_ms()
        qemu.pause(self.world, self.source, source, reason="migration", event="suspended-migrated")
        self._live()
        return source

    def _define(self, source: SimDomain) -> SimDomain:
        """libvirt's Finish: the disks are complete, the definition is there, the vCPUs do not run yet."""
        self._write_disk_copies()
        domain = self.destination.domains[self.uuid]
        if self.plan.persistent and source.inactive is not None:
            domain.inactive = persistent_definition(self.definition, source.inactive, self.plan)
            self.world.emit(self.destination, self.uuid, "defined", "added")
            self.world.tell(self.destination.name, "domain", self.uuid, "defined")
            self._live()
        return domain

    async def _switch_over(self) -> None:
        source = await self._pause()
        self.world.emit(self.source, self.uuid, "migration-device")
        await self._wait(self.world.pace.switch_ms + self._ms_for(self._sending))
        self._processed, self._sending = self._processed + self._sending, 0
        source.sent = f"stream of {self.plan.migration_id}"
        for host in (self.source, self.destination):
            self.world.emit(host, self.uuid, "migration-completed")
        domain = self._define(source)
        domain.job = None
        # Disks are counted on the source only.
        domain.completed = self._statistics().model_copy(update={"disk_processed": None, "disk_total": None})
        self.phase = Phase.FINISHED  # libvirt's Finish: what happens to the source no longer keeps it from running
        qemu.run(self.world, self.destination, domain, reason="migrated", event="resumed-migrated")
        self._live()
        self._tell("finished")
        self._live()

    async def _confirm(self) -> None:
        await self._wait(self.world.pace.finish_ms)
        self._enter(Phase.CONFIRMING)
        await self._wait(self.world.pace.confirm_ms)
        source = self.source.domains[self.uuid]
        source.completed = self._statistics()
        source.job = None
        qemu.end(self.world, self.source, source, reason="migrated", event="stopped-migrated")
        self.world.emit(self.source, self.uuid, "job-completed")
        self._finish(None)

    # -- endings -------------------------------------------------------------------------------------------

    def _fail(self, text: str) -> None:
        """libvirt saw it fail before the destination ran: remove the incoming guest, run on at the source."""
        if self.phase >= Phase.FINISHED:
            return
        paused = self.phase is Phase.SWITCHING
        self._finish(text)
        self._drop_incoming()
        if paused:
            self._resume_source()

    def _destination_lost(self, *, reachable: bool) -> None:
        """The source's libvirt lost the destination's: `reachable` by others still, or down."""
        if self.phase in (Phase.SWITCHING, Phase.FINISHED):
            self._finish(LOST)
            if reachable:
                self._drop_incoming()
            if self.world.pace.resume_on_lost_finish:
                self._resume_source()
        elif self.phase < Phase.SWITCHING:
            self._fail(LOST)

    def _drop_incoming(self) -> None:
        """The destination ends a guest that waits for memory nobody sends (its libvirtd, or QEMU by itself)."""
        domain = self.destination.domains.get(self.uuid)
        if domain is None or not domain.incoming:
            return
        if self.destination.libvirtd_up or not self._all_sent:
            qemu.end(self.world, self.destination, domain, reason="failed", event="stopped", detail="failed")

    def _resume_source(self) -> None:
        domain = self.source.domains.get(self.uuid)
        if domain is None or not domain.active or domain.running:
            return
        if domain.interlocked:
            qemu.pause(self.world, self.source, domain, reason="api-error", event="suspended")
        else:
            qemu.run(self.world, self.source, domain, reason="migration-canceled", event="resumed-migrated")

    def _finish(self, error: str | None) -> None:
        """The job is over for both libvirts."""
        if self.phase is Phase.OVER:
            return
        self._all_sent = self.phase >= Phase.SWITCHING
        self._joined.set()
        self.phase = Phase.OVER
        if not self._over.is_set():
            self.error = error
        self.world.copies.remove(self)
        for host in (self.source, self.destination):
            domain = host.domains.get(self.uuid)
            if domain is not None and domain.job is self:
                domain.job = None
        self._over.set()
        self._tell(error or "completed")

    _all_sent = False

    # -- details -------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self._live()
        self.phase = phase
        self._tell(phase.name.lower())
        self._live()

    def _live(self) -> None:
        if self.phase is Phase.OVER:
            raise Ended

    async def _wait(self, ms: float) -> None:
        await self.world.clock.sleep(ms / 1000)
        self._live()

    def _allocated(self, target: str) -> int:
        path = next((d.path for d in self.definition.disks if d.target == target), None)
        file = self.source.file(path) if path else None
        return file.allocated_bytes if file else 0

    def _copied_paths(self) -> list[tuple[str, str, str]]:
        """(target, path on the source, path on the destination) of the disks that travel with the memory."""
        paths = {d.target: d.path for d in self.definition.disks}
        return [(d.target, paths.get(d.target) or "", d.path or "") for d in self.plan.disks if d.copied]

    def _check_disk_copies(self) -> None:
        for target, here, there in self._copied_paths():
            mine, copy = self.source.file(here), self.destination.file(there)
            if mine is not None and copy is not None and copy.size_bytes != mine.size_bytes:
                raise qemu.LibvirtSays(f"internal error: unable to mirror '{target}': image sizes differ")
        for disk in self.definition.disks:
            planned = next((d for d in self.plan.disks if d.target == disk.target), None)
            if planned and planned.copied and disk.backing_path and not self.destination.file(disk.backing_path):
                raise qemu.LibvirtSays(f"internal error: Could not open backing file '{disk.backing_path}'")

    def _write_disk_copies(self) -> None:
        """The mirrors are complete: what the guest wrote is on the destination's disks too."""
        for _, here, there in self._copied_paths():
            mine, copy = self.source.file(here), self.destination.file(there)
            if mine is not None and copy is not None:
                filled = replace(copy, content=mine.content, allocated_bytes=mine.allocated_bytes)
                self.world.put_file(self.destination.name, there, filled)
                self._live()

    def _statistics(self) -> CompletedJob:
        now = self.world.clock.monotonic_ms()
        return CompletedJob(
            total_ms=int(now - self._started_ms),
            downtime_ms=int(now - self._paused_ms),
            memory_processed=self._processed,
            memory_total=self.memory_total,
            disk_processed=self._disk_done,
            disk_total=self.disk_total,
            iterations=self.iteration,
            setup_ms=int(self._prepared_ms - self._started_ms),
        )

    def _tell(self, detail: str) -> None:
        self.world.tell(self.source.name, "job", self.uuid, detail)
