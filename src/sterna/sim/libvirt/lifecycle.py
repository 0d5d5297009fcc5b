"""`ports.hypervisor.Lifecycle` of a simulated host: ends, starts and forgets guests."""

from __future__ import annotations

from sterna.domain.errors import Conflict, Unreachable
from sterna.domain.model import GuestState, StateFile
from sterna.domain.whereabouts import BROKEN_POSTCOPY, POSTCOPY
from sterna.sim.libvirt import qemu
from sterna.sim.libvirt.part import SimPart, ask

LIBVIRTS_OWN = "/var/lib/libvirt/"
"""State elsewhere stays, as an operator chose its place."""


class SimLifecycle(SimPart):
    """Ends, starts and forgets guests."""

    async def end_incoming(self, uuid: str, epoch: int) -> bool:
        """R0: end a guest that waits here for its memory and never ran."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return False
        self._check_epoch(domain, epoch)
        seen = self._look(uuid, domain)
        if seen.state is not GuestState.PAUSED or seen.ran:
            raise Conflict(f"the guest is {seen.state} ({seen.reason}) and has run here: not ended")
        self._destroy(domain)
        return True

    async def end_leftover(self, uuid: str, epoch: int) -> bool:
        """End the source's paused copy after the guest has arrived elsewhere."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return False
        self._check_epoch(domain, epoch)
        if domain.state is not GuestState.PAUSED or domain.incoming:
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): no leftover of a migration")
        self._destroy(domain)
        return True

    async def hold(self, uuid: str, epoch: int) -> None:
        """Stop the vCPUs of the source's old copy. Paused is not an error. Raises NotFound, Conflict."""
        domain = self._require(await self._called(), uuid)
        self._check_epoch(domain, epoch)
        if not domain.active:
            raise Conflict("the guest has no QEMU here: there is nothing to hold")
        if domain.running:
            qemu.pause(self._world, self._host, domain, reason="user", event="suspended")

    async def resume(self, uuid: str, epoch: int) -> None:
        """Let a guest paused by a failed migration run on. Raises NotFound, Conflict."""
        domain = self._require(await self._called(), uuid)
        self._check_epoch(domain, epoch)
        if domain.running:
            return
        if not domain.active:
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): Sterna starts no guest again")
        if domain.reason in POSTCOPY:
            raise Conflict("the guest was sent away in post-copy: it runs nowhere but on the destination")
        if domain.job is not None:
            raise Conflict(f"libvirt is still migrating the guest ({domain.reason})")
        self._set_interlock(domain, False)
        qemu.run(self._world, self._host, domain, reason="unpaused", event="resumed", detail="unpaused")

    async def release_interlock(self, uuid: str, epoch: int) -> None:
        """Take the interlock away. Missing, or no QEMU, is not an error. Raises Conflict."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return
        self._check_epoch(domain, epoch)
        if domain.job is not None:
            raise Conflict(f"libvirt is still migrating the guest ({domain.reason})")
        self._set_interlock(domain, False)

    async def interlocked(self, uuid: str) -> bool:
        """Is it set?"""
        domain = (await self._called()).domains.get(uuid)
        return domain is not None and domain.interlocked

    async def undefine(self, uuid: str, epoch: int | None, *, remove: tuple[str, ...] = ()) -> bool:
        """F10, R5: forget an inactive domain, with the state in `remove`."""
        here = await self._called()
        domain = here.domains.get(uuid)
        if domain is None:
            self._memory.forget(uuid)
            return False
        if domain.active:
            raise Conflict(f"{here.name}: guest {uuid} is active ({domain.state}): not undefined")
        if epoch is not None:
            self._check_epoch(domain, epoch)
        del here.domains[uuid]
        self._world.tell(here.name, "domain", uuid, "undefined")
        for state in domain.definition.firmware:
            if state.kind in remove and state.path.startswith(LIBVIRTS_OWN):
                self._world.remove_file(here.name, state.path)
        self._world.emit(here, uuid, "undefined", "removed")
        return True

    async def remove_state(self, uuid: str, states: tuple[StateFile, ...]) -> dict[str, str]:
        """State that no definition leads to; path -> why it stays. Raises Conflict."""
        here = await self._called()
        if uuid in here.domains:
            raise Conflict(f"{here.name}: guest {uuid} is defined: its state stays")
        stays = {}
        for state in states:
            if state.path.startswith(LIBVIRTS_OWN):
                self._world.remove_file(here.name, state.path)
            else:
                stays[state.path] = "it is not in libvirt's own folder"
        return stays

    async def listen_again(self, uuid: str, epoch: int, address: str) -> str:
        """Destination: wait for the source's half; the URI. Raises Conflict, Permanent."""
        here = await self._called()
        domain = self._require(here, uuid)
        self._check_epoch(domain, epoch)
        job = domain.job
        if job is None or domain.incoming:
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): not in post-copy")
        if not domain.held:
            raise Unreachable(f"{here.name}: nobody holds the guest's second monitor")
        ask(job.listen)
        return f"tcp:{address}:49152"

    async def end_spent(self, uuid: str, epoch: int) -> bool:
        """End the source's half where its QEMU has given a post-copy up. Raises Conflict."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return False
        self._check_epoch(domain, epoch)
        if domain.job is None or not domain.job.given_up:
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): its QEMU may still send")
        self._destroy(domain)
        return True

    async def end_lost(self, uuid: str, epoch: int) -> bool:
        """End what is left of a guest whose other half is gone. Raises Conflict."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or not domain.active:
            return False
        self._check_epoch(domain, epoch)
        if domain.reason != BROKEN_POSTCOPY and (domain.job is None or not domain.job.waits_for_nobody):
            raise Conflict(f"the guest is {domain.state} ({domain.reason}): not lost in post-copy")
        self._destroy(domain)
        return True

    async def open_recovery(self, uuid: str) -> None:
        """Hold the second monitor, if there is one. Raises Unreachable where its QEMU no longer lets anybody in."""
        here = await self._called()
        domain = here.domains.get(uuid)
        if domain is None or not domain.active or uuid not in here.recovery_monitors or domain.held:
            return
        if domain.reason in POSTCOPY:  # QEMU's main thread may stand still by now: the worst case is simulated
            raise Unreachable(f"{here.name}: the guest's second monitor does not open")
        domain.held = True

    async def close_recovery(self, uuid: str) -> None:
        """Take away the second monitor, if there is one."""
        self._host.recovery_monitors.discard(uuid)

    async def set_autostart(self, uuid: str, on: bool) -> None:
        """Set or clear autostart; a transient domain is left alone."""
        domain = self._require(await self._called(), uuid)
        if domain.inactive is not None and domain.autostart != on:
            domain.autostart = on
            self._world.tell(self._host.name, "domain", uuid, f"autostart {'on' if on else 'off'}")

    async def end_exports(self, uuid: str) -> tuple[str, ...]:
        """What the guest's QEMU offers over NBD is offered no more, unless a job is under way."""
        domain = (await self._called()).domains.get(uuid)
        if domain is None or domain.job is not None or not domain.exports:
            return ()
        ended, domain.exports = domain.exports, ()
        self._world.tell(self._host.name, "domain", uuid, "exports ended")
        return ended
