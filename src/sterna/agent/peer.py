"""The other agent of one migration, over RPC: a `Peer` for the steps."""

from __future__ import annotations

from sterna.domain.journal import Migration
from sterna.domain.model import Data
from sterna.ports.records import Envelope
from sterna.rpc.client import RpcClient
from sterna.rpc.outbox import Outbox

LONGEST_S = 60.0
"""What the other agent does for a call: questions to its libvirt and files, a disconnect. Seconds at most."""
LONG_CALLS_S = {"pre_live_migration": 600.0, "wait_vif_plugged": 700.0}
"""P4-P10: each of its steps may be retried for 30 s. P12: 30 s for the switch, then `vif_plugging_timeout_s`, which
is 600 s at most."""


class RpcPeer:
    """Every message carries the migration's id and epoch; a cast also the migration itself, as a receiver that does
    not know it must be able to write it off."""

    def __init__(self, client: RpcClient, outbox: Outbox, migration: Migration, to: str) -> None:
        self._client, self._outbox, self._migration, self._to = client, outbox, migration, to

    async def call(self, method: str, params: Data) -> Data:
        """See `ports.peer.Peer.call`."""
        m = self._migration
        total_s = LONG_CALLS_S.get(method, LONGEST_S)
        return await self._client.call(self._to, method, params, migration_id=m.id, epoch=m.epoch, total_s=total_s)

    def cast(self, method: str, params: Data, *, key: str) -> None:
        """See `ports.peer.Peer.cast`."""
        m = self._migration
        self._outbox.put(
            Envelope(
                id=f"{m.id}/{key}",
                to=self._to,
                method=method,
                migration_id=m.id,
                epoch=m.epoch,
                params=params | {"migration": m.model_dump(mode="json")},
            )
        )
