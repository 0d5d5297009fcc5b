"""What every route is given: the controller this application serves."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from sterna.controller.controller import Controller


def controller_of(request: Request) -> Controller:
    """The controller this application serves."""
    controller: Controller = request.app.state.controller
    return controller


Served = Annotated[Controller, Depends(controller_of)]
MigrationId = Annotated[str, Path(description="The migration's UUID.")]
