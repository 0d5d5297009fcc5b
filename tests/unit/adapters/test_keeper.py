"""The process that holds a guest's second monitor: never two, and none for a socket that is gone."""

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from qemu.qmp import QMPClient

from sterna.adapters.libvirt.qemu import keeper


@asynccontextmanager
async def monitor(
    path: Path, *, greets: bool, silent_after: str = "", ended: asyncio.Event | None = None
) -> AsyncIterator[None]:
    """A QEMU's monitor that greets and agrees to everything, or one that is somebody else's and says nothing.

    It answers nothing any more from the command `silent_after` on; its QEMU ends when `ended` is set.
    """
    ended = ended or asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering = asyncio.create_task(answer(reader, writer))
        await asyncio.wait({answering, ending}, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greets:
            version = {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}
            writer.write(json.dumps({"QMP": {"version": version, "capabilities": ["oob"]}}).encode() + b"\n")
        while asked := await reader.read(4096):  # one command at a time, and no newline behind it
            command = json.loads(asked)
            if greets and silent_after not in (command.get("execute"), command.get("exec-oob")):
                told = {"return": {}} | {k: v for k, v in command.items() if k == "id"}
                writer.write(json.dumps(told).encode() + b"\n")

    ending = asyncio.create_task(ended.wait())
    async with await asyncio.start_unix_server(serve, path):
        yield
    ending.cancel()


@pytest.fixture(autouse=True)
async def clients(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[QMPClient]]:
    """A keeper leaves its connection to the kernel, which closes it with the process."""
    made: list[QMPClient] = []

    class Client(QMPClient):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            made.append(self)

    monkeypatch.setattr(keeper, "QMPClient", Client)
    yield made
    for client in made:
        with contextlib.suppress(EOFError):  # its QEMU has ended
            await client.disconnect()


@asynccontextmanager
async def keeping(folder: Path) -> AsyncIterator[asyncio.Task[None]]:
    """The keeper of the monitor in this folder, once it takes commands."""
    task = asyncio.create_task(keeper.keep(str(folder / "socket"), folder / "held"))
    async with asyncio.timeout(10):
        while not (folder / "held").exists():  # noqa: ASYNC110 - no event tells of a file
            await asyncio.sleep(0.01)
    yield task
    (folder / "held").unlink(missing_ok=True)
    await asyncio.wait_for(task, 10)


async def test_a_monitor_that_somebody_else_holds_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "CONNECT_S", 0.2)
    async with monitor(tmp_path / "socket", greets=False):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(keeper.keep(str(tmp_path / "socket"), tmp_path / "held"), 10)
    assert not (tmp_path / "held").exists()


async def test_it_passes_commands_on_until_its_socket_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_S", 0.05)
    async with monitor(tmp_path / "socket", greets=True), keeping(tmp_path) as task:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "held")
        writer.write(b'{"execute": "migrate-pause"}\n')
        assert json.loads(await reader.readline()) == {"return": {}}
        writer.close()
        (tmp_path / "held").unlink()
        await asyncio.wait_for(task, 10)


async def test_its_socket_is_its_owners_alone_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chmod by name would follow a link that QEMU's user has put there."""
    monkeypatch.setattr(keeper, "LOOK_S", 0.05)
    monkeypatch.setattr(os, "chmod", lambda *_, **__: pytest.fail("it is made first, and protected then"))
    async with monitor(tmp_path / "socket", greets=True), keeping(tmp_path):
        assert stat.S_IMODE((tmp_path / "held").stat().st_mode) == 0o600


async def test_who_connects_and_commands_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_S", 0.05)
    monkeypatch.setattr(keeper, "ANSWER_S", 0.2)
    async with monitor(tmp_path / "socket", greets=True), keeping(tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "held")
        writer.write(b'{"execute": ')
        async with asyncio.timeout(10):
            assert "not understood" in json.loads(await reader.readline())["error"]
            assert await reader.read() == b""
        writer.close()


async def test_a_monitor_that_falls_silent_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_S", 0.05)
    monkeypatch.setattr(keeper, "ANSWER_S", 0.2)
    async with (
        monitor(tmp_path / "socket", greets=True, silent_after="migrate-recover"),
        keeping(tmp_path) as task,
    ):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "held")
        writer.write(b'{"execute": "migrate-recover"}\n')
        async with asyncio.timeout(10):
            assert "QEMU does not answer" in json.loads(await reader.readline())["error"]
        writer.close()
        assert not task.done()  # it may only be busy


async def test_it_ends_with_its_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_S", 0.05)
    ended = asyncio.Event()
    async with monitor(tmp_path / "socket", greets=True, ended=ended), keeping(tmp_path) as task:
        ended.set()
        await asyncio.wait_for(task, 10)
    assert not (tmp_path / "held").exists()


async def test_a_monitor_that_was_removed_meanwhile_is_not_held(tmp_path: Path) -> None:
    async with monitor(tmp_path / "socket", greets=True):
        (tmp_path / "socket").rename(tmp_path / "moved")
        (tmp_path / "link").symlink_to(tmp_path / "moved")

        async def close_it(*_: object) -> None:
            (tmp_path / "link").unlink()

        real = QMPClient.connect

        async def connect(self: QMPClient, address: str) -> None:
            await real(self, address)
            await close_it()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(QMPClient, "connect", connect)
            await asyncio.wait_for(keeper.keep(str(tmp_path / "link"), tmp_path / "held"), 10)
    assert not (tmp_path / "held").exists()
