"""Media that are only on the source (seed and config drives), sent by the agents: libvirt copies nothing read-only.

They go in pieces into files that P8 made, and are undone (R7) and removed at the source (F10) as copied disks are.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from sterna.domain.errors import BadRequest, Conflict, Permanent
from sterna.domain.model import Data
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.pre import unless_aborted

LARGEST_MEDIUM = 128 << 20
"""Twice the largest config drive that Nova makes. An installation's CD is larger, and is not needed any more."""
PIECE_BYTES = 256 << 10
"""Half of what one message may carry, in base64."""


class SendMedia(Step[Context]):
    """Before the copy: the bytes of media that the destination does not have."""

    name = "send-media"
    patience_s = 60.0  # as P3: a destination agent that was killed gets the time to be started again

    async def do(self, ctx: Context, plan: Data) -> Data:
        """One after the other; repeating is harmless. Raises Permanent where one was changed meanwhile."""
        sent = {}
        for path in (d.path for d in ctx.vm_before().disks if d.carried and d.path):
            sent[path] = await _send(ctx, path)
        return {"sent": sent}


async def _send(ctx: Context, path: str) -> int:
    offset = 0
    while True:
        piece = await ctx.host.storage.read(path, offset, PIECE_BYTES)
        params = {"path": path, "offset": offset, "data": base64.b64encode(piece).decode()}
        if piece or offset == 0:
            await unless_aborted(ctx, ctx.peer.call("take_medium", params))
        if not piece:
            break
        offset += len(piece)
    if await ctx.host.storage.digest(path) != await ctx.elsewhere.digest(path):
        raise Permanent(f"{path} was changed while it was sent to {ctx.peer_name}", fix="try again")
    return offset


async def take(ctx: Context, told: Data) -> Data:
    """The destination's half. Raises Conflict, BadRequest, Permanent."""
    path, offset, data = _piece(told)
    made = ctx.history.results.get("create-instance-directory", {}).get("files", ())
    carried = [d.path for d in ctx.incoming_vm().disks if d.carried]
    if ctx.history.turned is not None or ctx.history.closed or path not in made or path not in carried:
        raise Conflict(f"{ctx.host.name} expects no {path} in migration {ctx.migration.id}")
    await ctx.host.storage.write(path, offset, data)
    return {}


def _piece(told: Data) -> tuple[str, int, bytes]:
    path, offset, text = (told.get(key) for key in ("path", "offset", "data"))
    right = isinstance(path, str) and type(offset) is int and 0 <= offset <= LARGEST_MEDIUM
    try:
        data = base64.b64decode(_text(text), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadRequest(f"take_medium: `data` is not base64: {error}") from error
    if not right or len(data) > PIECE_BYTES:
        raise BadRequest("take_medium needs a path, an offset, and a piece that is not too large")
    return str(path), int(str(offset)), data


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value
