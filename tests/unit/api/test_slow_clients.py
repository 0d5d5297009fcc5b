"""A client of an event stream that hangs is cut off; it does not keep its connection and its stream for ever."""

import asyncio
import socket

import uvicorn

from sterna import bootstrap
from sterna.bootstrap import Server


async def test_a_client_that_takes_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr(bootstrap, "UNREAD_S", 1)
    ended = asyncio.Event()

    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

        async def pour():
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

        pouring = asyncio.create_task(pour())
        await receive()  # the request
        assert (await receive())["type"] == "http.disconnect"
        pouring.cancel()
        ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(uvicorn.Config(endless, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: sterna\r\n\r\n")
            reader._transport.pause_reading()  # its process stands still, its kernel does not
            await ended.wait()
            writer.close()
            server.should_exit = True
            await serving
