"""What every route is given: the controller this application serves."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from sterna.controller.controller import Controller
from sterna.domain.errors import BadRequest


def controller_of(request: Request) -> Controller:
    """The controller this application serves."""
    controller: Controller = request.app.state.controller
    return controller


Served = Annotated[Controller, Depends(controller_of)]
MigrationId = Annotated[str, Path(description="The migration's UUID.")]
LARGEST = 2**63 - 1
"""What a database, and libvirt, can take of a number."""


def position(text: str, what: str, fix: str) -> int:
    """A place in a list that an earlier answer named. Raises BadRequest for anything else."""
    short = len(text) <= len(str(LARGEST))  # Python itself refuses to read a number of thousands of digits
    if not (short and text.isascii() and text.isdecimal() and int(text) <= LARGEST):
        raise BadRequest(f"{what} {text!r} was not issued by this API", fix=fix)
    return int(text)
