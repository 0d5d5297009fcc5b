"""Change a running copy: its bandwidth limit. The journal says what was changed and when."""

from __future__ import annotations

from collections.abc import Callable

from sterna.domain import amounts
from sterna.domain.entries.notes import Tuned
from sterna.domain.entries.source import Copied
from sterna.domain.errors import BadRequest, Conflict, NotFound, Permanent, Temporary
from sterna.domain.journal import Entry, Role
from sterna.domain.model import Data
from sterna.domain.step import History
from sterna.migration.context import HostPorts
from sterna.ports.records import Journal
from sterna.rpc.envelope import Request

LEAST_BYTES_S = 2**20
"""libvirt counts in MiB/s."""


class Tuning:
    """The source agent's method `tune_migration`."""

    def __init__(self, host: HostPorts, journal: Journal, on_write: Callable[[Entry], None]) -> None:
        self._host, self._journal, self._on_write = host, journal, on_write

    async def tune_migration(self, request: Request) -> Data:
        """`tune_migration {id, bandwidth_bytes_s}`: the copy sends no more than this from now on; null: no limit.

        Raises BadRequest; NotFound; Conflict where nothing is being copied; Temporary, Unreachable where it is not
        known to have taken effect: ask again.
        """
        wanted, limit = request.params.get("id"), request.params.get("bandwidth_bytes_s")
        known = self._journal.get(wanted) if isinstance(wanted, str) else None
        if known is None or known[1] is not Role.SOURCE:
            raise NotFound(f"no migration {wanted} starts on {self._host.name}")
        if limit is not None and (not isinstance(limit, int) or limit < LEAST_BYTES_S):
            raise BadRequest(
                f"a limit of {amounts.rate(limit)} is less than libvirt accepts", fix="give at least 1MiB/s"
            )
        migration = known[0]
        if migration.options.rehearse:
            raise Conflict(
                "this is a rehearsal: its copy is deliberately slow, so that the guest stays where it is"
            )
        history = History.read(self._journal.entries(migration.id))
        if history.closed or history.turned_back is not None or history.has(Copied):
            raise Conflict(f"{migration.vm_name} is no longer being copied")
        try:
            await self._host.hypervisor.set_bandwidth(migration.vm_uuid, limit)
        except Temporary:
            raise
        except Permanent as error:
            fix = "try again when its status is migrating"
            raise Conflict(f"{migration.vm_name}: {error.message}", fix=fix) from error
        note = Tuned(bandwidth_bytes_s=limit)
        data = note.to_data()
        self._on_write(self._journal.append(migration.id, note.kind, row=note.under, name=note.entry, data=data))
        return {"accepted": True}
