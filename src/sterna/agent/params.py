"""Parameters of requests, as they arrive from another host: each is checked before it is used."""

from __future__ import annotations

from sterna.domain.errors import BadRequest
from sterna.domain.options import MigrationOptions
from sterna.rpc.envelope import Request


def required_text(request: Request, key: str) -> str:
    """A string that is not empty. Raises BadRequest."""
    value = request.params.get(key)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{request.method} needs {key!r}, a string")
    return value


def migration_options(request: Request) -> MigrationOptions:
    """The request's options, with a valid objective. Raises BadRequest."""
    try:
        return MigrationOptions.of_request(request.params.get("options"))
    except ValueError as error:
        raise BadRequest(f"{request.method}: not valid options: {error}") from error
