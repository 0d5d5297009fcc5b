"""Dependencies that routes share: the controller that this application serves, and parameters of lists."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from sterna.controller.controller import Controller
from sterna.domain.errors import BadRequest


def controller_of(request: Request) -> Controller:
    """The controller this application serves."""
    controller: Controller = request.app.state.controller
    return controller


Served = Annotated[Controller, Depends(controller_of)]
MigrationId = Annotated[str, Path(description="The migration's UUID.")]
Cursor = Annotated[
    str | None,
    Query(max_length=8192, pattern="^[A-Za-z0-9_-]*$", description="`next_cursor` of the previous page."),
]
Limit = Annotated[int, Query(ge=1, le=500, description="Maximum number of items on a page.")]
LARGEST = 2**63 - 1
"""What a database, and libvirt, can take of a number."""


def cursor_of(*place: str) -> str:
    """A place in a list that is ordered by words, as clients get it: nothing to take apart."""
    return urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_of(cursor: str, words: int) -> tuple[str, ...]:
    """The inverse of `cursor_of`. Raises BadRequest for anything else."""
    try:
        found = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        found = None
    if not (isinstance(found, list) and len(found) == words and all(map(_is_text, found))):
        raise BadRequest(
            f"cursor {cursor[:100]!r} was not issued by this API", fix="use `next_cursor` of the previous page"
        )
    return tuple(found)


def _is_text(word: object) -> bool:
    """Also for a database: JSON can hold halves of characters."""
    return isinstance(word, str) and word == word.encode(errors="replace").decode()


def position(text: str, what: str, fix: str) -> int:
    """A place in a list that an earlier answer named. Raises BadRequest for anything else."""
    short = len(text) <= len(str(LARGEST))  # Python itself refuses to read a number of thousands of digits
    if not (short and text.isascii() and text.isdecimal() and int(text) <= LARGEST):
        raise BadRequest(f"{what} {text!r} was not issued by this API", fix=fix)
    return int(text)
