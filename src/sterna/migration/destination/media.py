"""Takes the media that are only on the source, piece by piece."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from sterna.domain.entries.destination import TargetsMade
from sterna.domain.errors import BadRequest, Conflict
from sterna.domain.model import Data
from sterna.migration.context import Context
from sterna.migration.media import LARGEST_MEDIUM, PIECE_BYTES


async def take(ctx: Context, told: Data) -> Data:
    """The destination's half. Raises Conflict, BadRequest, Permanent."""
    path, offset, data = _piece(told)
    targets = ctx.history.find(TargetsMade)
    made = targets.files if targets else ()
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
