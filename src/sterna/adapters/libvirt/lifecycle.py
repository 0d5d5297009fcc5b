"""`ports.hypervisor.Lifecycle`: ends, starts and forgets guests.

Every caller has asked both hypervisors (invariant 1 of the protocol). These methods look once more, in the same
thread and on the same connection right before they act, and refuse if what they see is not what they were called
for.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import libvirt

from sterna.adapters.libvirt.observe import epoch_of, find, job_of, observe_domain
from sterna.adapters.libvirt.private_state import StateFolders
from sterna.adapters.libvirt.qemu import interlock, recovery
from sterna.adapters.libvirt.qemu.monitor import Refused, ask
from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.session.host import LibvirtHost
from sterna.adapters.libvirt.xml.describe import describe
from sterna.domain.copying import CompletedJob
from sterna.domain.errors import Conflict, NotFound, StorageSilent, Temporary
from sterna.domain.model import GuestState, Observation, StateFile
from sterna.domain.whereabouts import BROKEN_POSTCOPY, GONE, POSTCOPY
from sterna.kit.mounts import on_disk

_FOLDERS = StateFolders()

_RESTART = (
    "restart libvirtd on this host, while no other guest of it is in a migration: it holds a job of a QEMU that is "
    "gone (guests keep running)"
)
"""Seen where the source's QEMU dies in post-copy: the domain is off, its migration job stays (libvirt 11.3)."""


_SAVED = "start the VM where it is now, or remove its saved state there (virsh managedsave-remove)"
_BY_HAND = "look at it, and undefine it by hand if it is not needed (virsh undefine --keep-nvram)"


class LibvirtLifecycle(LibvirtHost):
    """Destroys only guests that do not run."""

    async def end_incoming(self, uuid: str, epoch: int) -> bool:
        """R0: end a guest that waits for its memory here and never ran. False where there is none.

        Raises Conflict if it runs, ran, or carries another epoch.
        """

        def end(conn: Connect) -> bool:
            domain, seen = self._look(conn, uuid)
            if seen.state in (GuestState.ABSENT, GuestState.SHUTOFF):
                return False
            _same_epoch(seen, epoch)
            if seen.state is not GuestState.PAUSED or seen.ran:
                raise Conflict(f"the guest is {seen.state} ({seen.reason}) and has run here: not ended")
            return _destroy(domain)

        return await self._ask_of(uuid, end)

    async def end_leftover(self, uuid: str, epoch: int) -> bool:
        """End the source's paused copy, after proof that the guest runs on dhost. False where there is none.

        Raises Conflict if it runs, waits for memory itself, or carries another epoch.
        """

        def end(conn: Connect) -> bool:
            domain, seen = self._look(conn, uuid)
            if seen.state in (GuestState.ABSENT, GuestState.SHUTOFF):
                return False
            _same_epoch(seen, epoch)
            if seen.state is not GuestState.PAUSED or seen.reason == "incoming":
                raise Conflict(f"the guest is {seen.state} ({seen.reason}): not a leftover of a migration")
            return _destroy(domain)

        return await self._ask_of(uuid, end)

    async def hold(self, uuid: str, epoch: int) -> None:
        """Stop the vCPUs of the source's old copy. Paused is not an error. Raises NotFound, Conflict."""

        def hold(conn: Connect) -> None:
            domain, seen = self._look(conn, uuid)
            if seen.state is GuestState.ABSENT:
                raise NotFound(f"no VM {uuid} on this host")
            _same_epoch(seen, epoch)
            if seen.state is GuestState.SHUTOFF:
                raise Conflict("the guest has no QEMU here: there is nothing to hold")
            if seen.state is GuestState.RUNNING:
                domain.suspend()

        await self._ask_of(uuid, hold)

    async def resume(self, uuid: str, epoch: int) -> None:
        """Let the source's guest, paused by a failed migration, run on. Running is not an error.

        The cause of the pause does not matter here: the caller knows it from `observe`'s reason. The interlock
        goes. Raises NotFound; Conflict on another epoch, while a copy runs or comes in, or if it has no QEMU.
        """

        def resume(conn: Connect) -> None:
            domain, seen = self._look(conn, uuid)
            if seen.state is GuestState.ABSENT:
                raise NotFound(f"no VM {uuid} on this host")
            _same_epoch(seen, epoch)
            if seen.state is GuestState.RUNNING:
                return
            if seen.state is not GuestState.PAUSED:
                raise Conflict(f"the guest is {seen.state} ({seen.reason}): Sterna never restarts a guest")
            if seen.reason in POSTCOPY:
                raise Conflict("the guest was sent away in post-copy: it runs nowhere but on the destination")
            if seen.job_active:
                raise Conflict(f"libvirt is still migrating the guest ({seen.reason})")
            interlock.release(domain)
            domain.resume()

        await self._ask_of(uuid, resume)

    async def release_interlock(self, uuid: str, epoch: int) -> None:
        """Take the interlock away. Missing, or no QEMU, is not an error. Raises Conflict."""

        def release(conn: Connect) -> None:
            domain, seen = self._look(conn, uuid)
            if seen.state in GONE:
                return
            _same_epoch(seen, epoch)
            if seen.job_active:
                raise Conflict(f"libvirt is still migrating the guest ({seen.reason})")
            interlock.release(domain)

        await self._ask_of(uuid, release)

    async def interlocked(self, uuid: str) -> bool:
        """Is it set? False too where there is no QEMU."""

        def look(conn: Connect) -> bool:
            domain = find(conn, uuid)
            return domain is not None and bool(domain.isActive()) and interlock.engaged(domain)

        return await self._ask_of(uuid, look)

    async def undefine(self, uuid: str, epoch: int | None, *, remove: tuple[str, ...] = ()) -> bool:
        """F10, R5: forget an INACTIVE domain, with the state in `remove`. False where there is none.

        Raises Conflict if it is active, or carries another epoch (None: any).
        """

        def undefine(conn: Connect) -> bool:
            domain = find(conn, uuid)
            if domain is None:
                self._events.forget(uuid)
                return False
            if domain.isActive():
                raise Conflict("the guest is active: not undefined", fix="find out who has started it here")
            present = epoch_of(domain)
            if epoch is not None and present != epoch:
                raise Conflict(f"the domain carries epoch {present}, not {epoch}", fix=_BY_HAND)
            try:
                if "save" not in remove and domain.hasManagedSaveImage():
                    raise Temporary(f"{domain.name()} has a saved state that is not this host's alone", fix=_SAVED)
                domain.undefineFlags(_undefine_flags(domain, remove))
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
                    raise Temporary(f"libvirt does not undefine the domain: {error}", fix=_RESTART) from error
                raise
            self._events.forget(uuid)
            return True

        return await self._ask_of(uuid, undefine)

    async def remove_state(self, uuid: str, states: tuple[StateFile, ...]) -> dict[str, str]:
        """F10, R7: remove state that no definition of this VM leads to here; path -> why it stays.

        Raises Conflict where the VM is defined here, Unreachable.
        """

        stays = {}
        for state in states:
            if await self._ask_of(uuid, lambda conn: find(conn, uuid) is not None):
                raise Conflict(
                    "the VM is defined on this host: its state stays", fix="find out who has defined it here"
                )
            try:
                why = await on_disk(partial(_FOLDERS.remove, uuid, state), state.path)
            except StorageSilent as silent:
                why = silent.message
            stays.update({state.path: why} if why else {})
        return stays

    async def listen_again(self, uuid: str, epoch: int, address: str) -> str:
        """Destination: wait for the source's half of a guest in post-copy; the URI.

        Raises Conflict where there is no guest of this epoch in post-copy, Permanent, Unreachable.
        """
        _, seen = await self._ask_of(uuid, lambda conn: self._look(conn, uuid))
        _same_epoch(seen, epoch)
        if not seen.job_active and seen.reason not in POSTCOPY:
            raise Conflict(f"the guest is {seen.state} ({seen.reason}): not in post-copy")
        return await recovery.listen_again(uuid, address)

    async def end_spent(self, uuid: str, epoch: int) -> bool:
        """End the source's half where its QEMU has given a post-copy up. False where there is none.

        Raises Conflict.
        """

        def end(conn: Connect) -> bool:
            domain, seen = self._look(conn, uuid)
            if seen.state in GONE:
                return False
            _same_epoch(seen, epoch)
            runs = seen.state is GuestState.RUNNING and seen.reason in POSTCOPY
            if not runs and not recovery.given_up(domain):
                raise Conflict(f"the guest is {seen.state} ({seen.reason}): its QEMU may still send")
            # Its vCPUs stop at once: the end of a QEMU takes longer. One whose monitor hangs is ended anyway.
            with contextlib.suppress(Refused, libvirt.libvirtError):
                ask(domain, "stop")
            return _destroy(domain)

        return await self._ask_of(uuid, end)

    async def end_lost(self, uuid: str, epoch: int) -> bool:
        """End what is left of a guest whose other half is gone. False where there is none. Raises Conflict."""
        _, seen = await self._ask_of(uuid, lambda conn: self._look(conn, uuid))
        unnoticed = seen.reason != BROKEN_POSTCOPY and (seen.reason in POSTCOPY or seen.job_active)
        waits = unnoticed and await recovery.waits(uuid)

        def end(conn: Connect) -> bool:
            domain, seen = self._look(conn, uuid)
            if seen.state in GONE:
                return False
            _same_epoch(seen, epoch)
            if seen.reason != BROKEN_POSTCOPY and not waits:
                raise Conflict(f"the guest is {seen.state} ({seen.reason}): not lost in post-copy")
            return _destroy(domain)

        return await self._ask_of(uuid, end)

    async def close_recovery(self, uuid: str) -> None:
        """Take away the second monitor, if there is one."""
        recovery.remove_monitor(uuid)

    async def open_recovery(self, uuid: str) -> None:
        """Have the second monitor held, if there is one. Raises Unreachable."""
        await recovery.hold_monitor(uuid)

    async def set_autostart(self, uuid: str, on: bool) -> None:
        """Set or clear autostart; a transient domain has none and is left alone. Raises NotFound."""

        def write(conn: Connect) -> None:
            domain = conn.lookupByUUIDString(uuid)
            if domain.isPersistent() and bool(domain.autostart()) != on:
                domain.setAutostart(1 if on else 0)

        await self._ask_of(uuid, write)

    async def end_exports(self, uuid: str) -> tuple[str, ...]:
        """Destination, after the copy: libvirt ends its NBD server before the guest runs, and was seen not to have.
        Such a guest can never be migrated again. One with a job (a backup serves its disks) is left alone."""

        def end(conn: Connect) -> tuple[str, ...]:
            domain = find(conn, uuid)
            if domain is None or not domain.isActive() or job_of(domain).active:
                return ()
            exports = [e["id"] for e in ask(domain, "query-block-exports") if e["type"] == "nbd"]
            if exports:
                ask(domain, "nbd-server-stop")
            return tuple(exports)

        return await self._ask_of(uuid, end)

    async def completed_job(self, uuid: str) -> CompletedJob | None:
        """Statistics of the last finished migration of this guest as this libvirtd saw it; None where it knows
        none (never migrated, or libvirtd was restarted since)."""

        def read(conn: Connect) -> CompletedJob | None:
            domain = find(conn, uuid)
            if domain is None:
                return None
            # KEEP: without it the first reader gets them and the next, or the same after a crash, nothing.
            flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
            try:
                stats = domain.jobStats(flags)
            except libvirt.libvirtError as error:
                if error.get_error_code() in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
                    return None
                raise
            return to_completed(stats)

        return await self._ask_of(uuid, read)

    def _look(self, conn: Connect, uuid: str) -> tuple[Any, Observation]:
        """The domain and what is true of it now. Raises Temporary while libvirt takes it down, libvirtError."""
        domain = find(conn, uuid)
        if domain is None:
            return None, Observation(state=GuestState.ABSENT)
        seen = observe_domain(domain, seen_running=self._events.seen_running(uuid))
        if seen.state is GuestState.UNKNOWN:
            fix = "check that libvirtd answers about it (virsh domstate); restart libvirtd if it stays so"
            raise Temporary(f"{domain.name()}: {seen.reason}", fix=fix)
        return domain, seen


def to_completed(stats: dict[str, Any]) -> CompletedJob | None:
    """libvirt's statistics of a completed migration; None if it was another kind of job, or none."""
    migrations = (libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
    if stats.get(libvirt.VIR_DOMAIN_JOB_OPERATION) not in migrations:
        return None

    def get(name: str) -> int | None:
        value = stats.get(getattr(libvirt, f"VIR_DOMAIN_JOB_{name}"))
        return int(value) if value is not None else None

    # Disks are counted on the source only; the destination's libvirtd says 0 of 0, which is not knowing.
    disks_counted = get("DISK_TOTAL") or stats.get(libvirt.VIR_DOMAIN_JOB_OPERATION) == migrations[1]
    return CompletedJob(
        total_ms=get("TIME_ELAPSED"),
        downtime_ms=get("DOWNTIME"),
        downtime_net_ms=get("DOWNTIME_NET"),
        memory_processed=get("MEMORY_PROCESSED"),
        memory_total=get("MEMORY_TOTAL"),
        disk_processed=get("DISK_PROCESSED") if disks_counted else None,
        disk_total=get("DISK_TOTAL") if disks_counted else None,
        iterations=get("MEMORY_ITERATION"),
        setup_ms=get("SETUP_TIME"),
    )


def _same_epoch(seen: Observation, epoch: int) -> None:
    if seen.epoch != epoch:
        raise Conflict(f"the domain carries epoch {seen.epoch}, not {epoch}")


def _destroy(domain: Any) -> bool:
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        # It ended by itself in between, which is what was wanted.
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return True
        raise
    return True


def _undefine_flags(domain: Any, remove: tuple[str, ...]) -> int:
    """What libvirt keeps for this domain is removed with it, NVRAM and TPM state only if requested.

    NVRAM and TPM state elsewhere than in libvirt's own folders always stay: an operator chose their place.
    """
    flags: int = libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    flags |= libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE if "save" in remove else 0
    state = describe(domain.XMLDesc()).firmware
    elsewhere = {s.kind for s in state if not _FOLDERS.own(domain.UUIDString(), s)}
    nvram = "nvram" in remove and "nvram" not in elsewhere
    flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM if nvram else libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    tpm = "tpm" in remove and "tpm" not in elsewhere
    return flags | int(libvirt.VIR_DOMAIN_UNDEFINE_TPM if tpm else libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM)
