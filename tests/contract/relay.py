"""Between clients and a server: passes bytes on, as far as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Relay:
    """What comes from the server may be swallowed, and connections may be closed."""

    server_port: int
    port: int = 0
    connections: int = 0
    first_chunks: int | None = None
    """So many chunks of the server's are passed on to each new connection, and no more; None: all."""
    muted: bool = False
    """Nothing of the server's is passed on, to any connection."""
    closes_after_s: float | None = None
    """Each new connection is closed after this time."""
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def close_all(self) -> None:
        """As the server would."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, onward = await asyncio.open_connection("127.0.0.1", self.server_port)
        self._writers += [writer, onward]
        if self.closes_after_s is not None:
            asyncio.get_running_loop().call_later(self.closes_after_s, self.close_all)
        await asyncio.gather(self._to_server(reader, onward), self._to_client(there, writer, self.first_chunks))

    async def _to_server(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while said := await reader.read(65536):
                onward.write(said)
        onward.close()

    async def _to_client(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, chunks: int | None
    ) -> None:
        with suppress(OSError):
            while said := await there.read(65536):
                if self.muted or chunks == 0:
                    continue
                chunks = None if chunks is None else chunks - 1
                writer.write(said)
        writer.close()


@asynccontextmanager
async def relaying(server_port: int) -> AsyncIterator[Relay]:
    """A relay to that port of this host."""
    relay = Relay(server_port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        relay.close_all()
