"""A client that leaves an event stream is not an error.

FastAPI's event streams forward through a memory stream that is closed when the client has left. Where a keep-alive
or an event waits in it at that moment, anyio raises BrokenResourceError in FastAPI's own task group, and the server
would log a traceback for each such client.
"""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LeavingClients:
    """ASGI middleware: ends a request quietly whose client has left, where nothing else went wrong."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the application; raises what it raises, but for that."""
        left = False

        async def listen() -> Message:
            nonlocal left
            message = await receive()
            left = left or message["type"] == "http.disconnect"
            return message

        try:
            await self._app(scope, listen, send)
        except BaseExceptionGroup as group:
            _, rest = group.split((anyio.BrokenResourceError, anyio.ClosedResourceError))
            if rest is not None or not left:
                raise
