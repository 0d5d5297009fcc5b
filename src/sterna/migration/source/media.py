"""Sends the media that are only on this host, before the copy."""

from __future__ import annotations

import base64

from sterna.domain.calls import TakeMedium
from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.source import MediaSent
from sterna.domain.errors import Permanent
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.media import PIECE_BYTES
from sterna.migration.source.asking import unless_aborted


class SendMedia(Step[Context, NoPlan, MediaSent]):
    """Before the copy: the bytes of media that the destination does not have."""

    name = "send-media"
    patience_s = 60.0  # as P3: a destination agent that was killed gets the time to be started again

    async def do(self, ctx: Context, plan: NoPlan) -> MediaSent:
        """One after the other; repeating is harmless. Raises Permanent where one was changed while it was sent."""
        sent = {}
        for path in (d.path for d in ctx.vm_before().disks if d.carried and d.path):
            sent[path] = await _send(ctx, path)
        return MediaSent(sent=sent)


async def _send(ctx: Context, path: str) -> int:
    offset = 0
    while True:
        piece = await unless_aborted(ctx, ctx.host.storage.read(path, offset, PIECE_BYTES))
        data = base64.b64encode(piece).decode()
        if piece or offset == 0:
            await unless_aborted(ctx, ctx.ask(TakeMedium(path=path, offset=offset, data=data)))
        if not piece:
            break
        offset += len(piece)
    mine = await unless_aborted(ctx, ctx.host.storage.digest(path))
    if mine != await ctx.elsewhere.digest(path):
        raise Permanent(f"{path} was changed while it was sent to {ctx.peer_name}", fix="try again")
    return offset
