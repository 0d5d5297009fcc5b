"""`ports.hypervisor.Mover`: the copy of a running guest (protocol M1-M6), source side."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import libvirt

from sterna.adapters.libvirt.observe import epoch_of, job_of
from sterna.adapters.libvirt.qemu import bandwidth as sharing
from sterna.adapters.libvirt.qemu import interlock, recovery
from sterna.adapters.libvirt.qemu.monitor import Refused, ask
from sterna.adapters.libvirt.session.connection import Connect, Connection
from sterna.adapters.libvirt.session.host import HostSettings, LibvirtHost
from sterna.adapters.libvirt.xml.metadata import NAMESPACE, PREFIX
from sterna.adapters.libvirt.xml.render import own_metadata, render_live, render_persistent
from sterna.adapters.libvirt.zeros import finds_zeros
from sterna.domain.copying import CopyPlan, JobSample
from sterna.domain.departure import IN_POSTCOPY
from sterna.domain.errors import Conflict, NotFound, Permanent, Temporary, Unknown
from sterna.domain.journal import leaps
from sterna.domain.model import Value
from sterna.ports.hypervisor import GuestEvent

_MIB = 1 << 20
_UNLIMITED_MIB_S = (2**63 - 1) >> 20
"""libvirt's own notion of no limit. Given explicitly: else a limit that somebody set on the domain stays."""
_NO_SUCH_JOB = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)


class Prepared(Value):
    """What goes into libvirt's call."""

    flags: int
    params: dict[str, Any]


class LibvirtMover(LibvirtHost):
    """Each copy has a connection and thread of its own, and another one for looking at it."""

    def __init__(self, uri: str = "qemu:///system", settings: HostSettings | None = None) -> None:
        super().__init__(uri, settings)
        self._watchers: dict[str, Connection] = {}
        self._shared: dict[str, int] = {}
        """Limits, in bytes/s, of the copies in this life whose disks must share one."""

    def close(self) -> None:
        """Close the connections. A copy that runs goes on."""
        super().close()
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers.clear()

    async def mark(self, uuid: str, migration_id: str, epoch: int) -> None:
        """Write Sterna's epoch into the domain's metadata, live and persistent.

        Raises Conflict during a copy (libvirt would wait 30 s for its lock) and for an epoch older than the
        domain's; NotFound, Unreachable, Permanent.
        """
        await self._ask_of(uuid, lambda conn: _mark(conn, uuid, migration_id, epoch))

    async def interlock(self, uuid: str, epoch: int) -> None:
        """From the hand-over on this host's guest cannot run again. Raises NotFound, Conflict, Permanent."""

        def engage(conn: Connect) -> None:
            domain = conn.lookupByUUIDString(uuid)
            present = epoch_of(domain)
            if present != epoch:
                raise Conflict(f"the domain carries epoch {present}, not {epoch}")
            if job_of(domain).active:
                raise Conflict("the interlock cannot be set while libvirt migrates the guest")
            try:
                interlock.engage(domain)
            except Refused as error:
                why = f"the interlock cannot be set in the guest's QEMU: {error.message}"
                raise Permanent(why, fix="see The interlock in docs/explanation/guarantees.md") from error

        await self._ask_of(uuid, engage)

    async def migrate(self, uuid: str, plan: CopyPlan) -> None:
        """M4: run the copy to its end. Cancelling the caller does not end it: that is `abort`.

        Raises Permanent if it cannot even be asked for, Unknown on any error of the call itself: observe both
        hosts then.
        """
        connection = Connection(self._uri, f"sterna-move-{uuid[:8]}")
        try:
            prepared = await connection.run(lambda conn: _prepare(conn, uuid, plan))
            if plan.limit_bytes_s is not None and sum(disk.copied for disk in plan.disks) > 1:
                self._shared[uuid] = plan.limit_bytes_s
            try:
                await connection.run(lambda conn: _migrate(conn, uuid, plan, prepared), unlimited=True)
            except (Temporary, Permanent) as error:
                raise Unknown(f"libvirt's migration call ended with: {error.message}", fix=error.fix) from error
        finally:
            self._shared.pop(uuid, None)
            connection.close()
            watcher = self._watchers.pop(uuid, None)  # nobody looks at it any more, or not soon
            if watcher is not None:
                watcher.close()

    async def sent(self, uuid: str) -> str:
        """The last stream that the guest's QEMU has sent whole. Raises NotFound, Permanent, Unreachable."""

        def look(conn: Connect) -> str:
            return _sent(ask(conn.lookupByUUIDString(uuid), "query-migrate"))

        return await self._ask_of(uuid, look)

    async def sample(self, uuid: str) -> JobSample | None:
        """Statistics of the running copy; None where there is none. May block for over a second.

        Raises Unreachable.
        """
        watcher = self._watchers.get(uuid)
        if watcher is None:
            watcher = self._watchers[uuid] = Connection(self._uri, f"sterna-watch-{uuid[:8]}")
        try:
            stats = await watcher.run(lambda conn: _job_stats(conn, uuid))
            if stats is not None and uuid in self._shared:
                limit = self._shared[uuid]
                with contextlib.suppress(Temporary, Permanent):  # shared at the next sample
                    await watcher.run(lambda conn: sharing.share(conn.lookupByUUIDString(uuid), limit))
        except NotFound:
            stats = None
        if stats is None and self._watchers.get(uuid) is watcher:
            del self._watchers[uuid]
            watcher.close()
        return to_sample(stats) if stats is not None else None

    async def abort(self, uuid: str) -> None:
        """Ask libvirt to abort the running copy. No job is not an error. Raises Unreachable, Permanent."""

        def give_up(conn: Connect) -> None:
            try:
                conn.lookupByUUIDString(uuid).abortJob()
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _NO_SUCH_JOB:
                    raise

        await self._ask_of(uuid, give_up)

    async def set_max_downtime(self, uuid: str, ms: int) -> None:
        """How long the guest may be paused at the switch-over. Raises NotFound, Permanent, Unreachable."""
        await self._ask_of(uuid, lambda conn: conn.lookupByUUIDString(uuid).migrateSetMaxDowntime(ms, 0))

    async def set_bandwidth(self, uuid: str, bytes_s: int | None) -> None:
        """The running copy's limit from now on. Raises NotFound, Permanent, Unreachable."""
        mib_s = _UNLIMITED_MIB_S if bytes_s is None else max(1, bytes_s // _MIB)

        def limit(conn: Connect) -> None:
            domain = conn.lookupByUUIDString(uuid)
            if not job_of(domain).active:
                raise Permanent("libvirt copies nothing of this guest now")
            if to_sample(_job_stats(conn, uuid) or {}).memory_processed is None:
                # libvirt sets the limit it was given with the copy when QEMU begins: this one would be lost
                raise Permanent("the copy has not begun to send yet", fix="try again in a moment")
            domain.migrateSetMaxSpeed(mib_s, 0)

        await self._ask_of(uuid, limit)
        self._shared.pop(uuid, None)  # the memory is being sent: the disks are whole

    async def switch_to_postcopy(self, uuid: str) -> None:
        """Let the guest run on the destination. Raises Permanent while libvirt cannot, NotFound, Unreachable."""
        await self._ask_of(uuid, lambda conn: conn.lookupByUUIDString(uuid).migrateStartPostCopy(0))

    async def send_again(self, uuid: str, uri: str) -> None:
        """Source: join the destination's half at `uri`. Raises Permanent, NotFound, Unreachable."""
        await self._ask_of(uuid, lambda conn: recovery.send_again(conn, uuid, uri))

    def events(self, uuid: str) -> AbstractAsyncContextManager[AsyncIterator[GuestEvent]]:
        """Events of one guest on this host from now on. The iterator raises Unreachable if libvirtd is lost."""
        return self._events.subscribe(uuid)


def _sent(status: dict[str, Any]) -> str:
    """A mark of the stream from QEMU's `query-migrate`. QEMU keeps what it says of the last stream until the next
    begins; these times of a complete one do not change."""
    if str(status.get("status", "")).startswith("postcopy-"):
        return IN_POSTCOPY
    if status.get("status") != "completed":
        return ""
    return "completed" + "".join(f" {key}={status.get(key)}" for key in ("setup-time", "total-time", "downtime"))


def _mark(conn: Connect, uuid: str, migration_id: str, epoch: int) -> None:
    domain = conn.lookupByUUIDString(uuid)
    present = epoch_of(domain)
    # what cannot be true is written over
    if present is not None and present > epoch and not leaps(present, epoch - 1):
        raise Conflict(f"the domain carries epoch {present}, newer than {epoch}")
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
    if domain.isActive():
        if job_of(domain).active:
            raise Conflict("the epoch cannot be written while libvirt migrates the guest")
        flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
    own = own_metadata(domain.XMLDesc(), epoch=epoch, migration_id=migration_id)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, own, PREFIX, NAMESPACE, flags)


def _prepare(conn: Connect, uuid: str, plan: CopyPlan) -> Prepared:
    """Flags and parameters (protocol M2: which disks are copied). Raises Permanent."""
    domain = conn.lookupByUUIDString(uuid)
    readable = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
    flags = _named_flags(plan)
    live = domain.XMLDesc(readable)
    params: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: render_live(live, plan),
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: _UNLIMITED_MIB_S,
        **plan.parameters,
    }
    if plan.migrate_uri:
        params[libvirt.VIR_MIGRATE_PARAM_URI] = plan.migrate_uri
    if plan.persistent and domain.isPersistent():
        inactive = domain.XMLDesc(readable | libvirt.VIR_DOMAIN_XML_INACTIVE)
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST
        params[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = render_persistent(inactive, plan, live=live)
    copied = [disk.target for disk in plan.disks if disk.copied]
    flags &= ~libvirt.VIR_MIGRATE_NON_SHARED_DISK
    if copied:
        # Never without the list: libvirt would copy every writable disk, the shared ones onto themselves.
        # With a base both hosts see, only what is above it travels; a disk without one is whole anyway.
        on_bases = any(disk.from_base for disk in plan.disks)
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC if on_bases else libvirt.VIR_MIGRATE_NON_SHARED_DISK
        params[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = copied
        sparse = [disk.target for disk in plan.disks if disk.copied and disk.holes_kept]
        if sparse and finds_zeros(conn):
            params[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS_DETECT_ZEROES] = sparse
    return Prepared(flags=flags, params=params)


def _named_flags(plan: CopyPlan) -> int:
    """The solver's flags as libvirt's bits. Raises Permanent for one this libvirt-python does not know."""
    bits = 0
    for name in plan.flags:
        bit = getattr(libvirt, f"VIR_MIGRATE_{name}", None)
        if bit is None:
            raise Permanent(f"libvirt-python here knows no VIR_MIGRATE_{name}", fix="update it")
        bits |= bit
    return bits


def _migrate(conn: Connect, uuid: str, plan: CopyPlan, prepared: Prepared) -> None:
    domain = conn.lookupByUUIDString(uuid)
    present = epoch_of(domain)
    if present != plan.epoch:
        raise Conflict(f"the domain carries epoch {present}, the plan {plan.epoch}")
    domain.migrateToURI3(plan.destination_uri, prepared.params, prepared.flags)


def _job_stats(conn: Connect, uuid: str) -> dict[str, Any] | None:
    domain = conn.lookupByUUIDString(uuid)
    try:
        stats: dict[str, Any] = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_SUCH_JOB:
            return None
        raise
    return stats if stats.get("type") not in (None, libvirt.VIR_DOMAIN_JOB_NONE) else None


def to_sample(stats: dict[str, Any]) -> JobSample:
    """libvirt's typed parameters in our units; what it does not say stays None."""

    def get(name: str) -> int | None:
        value = stats.get(getattr(libvirt, f"VIR_DOMAIN_JOB_{name}"))
        return int(value) if value is not None else None

    pages, page_size, iteration = get("MEMORY_DIRTY_RATE"), get("MEMORY_PAGE_SIZE"), get("MEMORY_ITERATION")
    # QEMU counts a second into the copy and at the ends of iterations; until then it says 0, which is no
    # measurement. An idle guest's rate is unknown, too, rather than 0.
    pages = pages or None
    # Until QEMU has begun, libvirt fills in zeros: 0 of 0 bytes means that nobody has counted yet.
    counted = bool(get("MEMORY_TOTAL"))
    return JobSample(
        elapsed_ms=get("TIME_ELAPSED"),
        memory_total=get("MEMORY_TOTAL") if counted else None,
        memory_processed=get("MEMORY_PROCESSED") if counted else None,
        memory_remaining=get("MEMORY_REMAINING") if counted else None,
        memory_rate=get("MEMORY_BPS"),
        dirty_rate=pages * page_size if pages is not None and page_size is not None else None,
        iteration=iteration or None,
        disk_total=get("DISK_TOTAL"),
        disk_processed=get("DISK_PROCESSED"),
        disk_remaining=get("DISK_REMAINING"),
        downtime_ms=get("DOWNTIME"),
        throttle_percent=get("AUTO_CONVERGE_THROTTLE"),
    )
