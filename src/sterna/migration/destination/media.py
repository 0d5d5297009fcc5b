"""Takes the media that are only on the source, piece by piece."""

from __future__ import annotations

import base64
import binascii

from sterna.domain.calls import TakeMedium
from sterna.domain.entries.destination import TargetsMade
from sterna.domain.errors import BadRequest, Conflict
from sterna.migration.context import Context
from sterna.migration.media import LARGEST_MEDIUM, PIECE_BYTES


async def take(ctx: Context, piece: TakeMedium) -> None:
    """The destination's half. Raises Conflict, BadRequest, Permanent."""
    path, data = piece.path, _bytes(piece)
    targets = ctx.history.find(TargetsMade)
    made = targets.files if targets else ()
    carried = [d.path for d in ctx.incoming_vm().disks if d.carried]
    if ctx.history.turned_back is not None or ctx.history.closed or path not in made or path not in carried:
        raise Conflict(f"{ctx.host.name} expects no {path} in migration {ctx.migration.id}")
    await ctx.host.storage.write(path, piece.offset, data)


def _bytes(piece: TakeMedium) -> bytes:
    try:
        data = base64.b64decode(piece.data, validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadRequest(f"take_medium: `data` is not base64: {error}") from error
    if not 0 <= piece.offset <= LARGEST_MEDIUM or len(data) > PIECE_BYTES:
        raise BadRequest("take_medium needs a path, an offset, and a piece that is not too large")
    return data
