"""The process that holds a guest's second monitor: never two, and none for a socket that is gone."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from sterna.adapters.libvirt.qemu import keeper


@asynccontextmanager
async def monitor(path, *, greets):
    """A QEMU's monitor that greets and agrees to everything, or one that is somebody else's and says nothing."""

    async def serve(reader, writer):
        if greets:
            version = {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}
            writer.write(json.dumps({"QMP": {"version": version, "capabilities": ["oob"]}}).encode() + b"\n")
        while asked := await reader.read(4096):  # one command at a time, and no newline behind it
            if greets:
                answer = {"return": {}} | {k: v for k, v in json.loads(asked).items() if k == "id"}
                writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield


async def test_a_monitor_that_somebody_else_holds_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "CONNECT_S", 0.2)
    async with monitor(tmp_path / "socket", greets=False):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(keeper.keep(str(tmp_path / "socket"), tmp_path / "held"), 10)
    assert not (tmp_path / "held").exists()


async def test_it_passes_commands_on_until_its_socket_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "LOOK_S", 0.05)
    async with monitor(tmp_path / "socket", greets=True):
        keeping = asyncio.create_task(keeper.keep(str(tmp_path / "socket"), tmp_path / "held"))
        async with asyncio.timeout(10):
            while not (tmp_path / "held").exists():  # noqa: ASYNC110 - no event tells of a file
                await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "held")
        writer.write(b'{"execute": "migrate-pause"}\n')
        assert json.loads(await reader.readline()) == {"return": {}}
        writer.close()
        (tmp_path / "held").unlink()
        await asyncio.wait_for(keeping, 10)


async def test_a_monitor_that_was_removed_meanwhile_is_not_held(tmp_path):
    async with monitor(tmp_path / "socket", greets=True):
        (tmp_path / "socket").rename(tmp_path / "moved")
        (tmp_path / "link").symlink_to(tmp_path / "moved")

        async def close_it(*_):
            (tmp_path / "link").unlink()

        real = keeper.QMPClient.connect

        async def connect(self, address):
            await real(self, address)
            await close_it()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keeper.QMPClient, "connect", connect)
            await asyncio.wait_for(keeper.keep(str(tmp_path / "link"), tmp_path / "held"), 10)
    assert not (tmp_path / "held").exists()
