"""An ovsdb-server that hangs: its old copy is not believed, nobody waits for ever, and all works again."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ovsdbapp.backend.ovs_idl.connection import Connection

from sterna.adapters.vif import ovsdb
from sterna.adapters.vif.ovs import OvsVif
from sterna.adapters.vif.ovsdb import OvsDb, add_port, forwards, rows
from sterna.domain.errors import Unreachable
from sterna.domain.model import Nic
from sterna.domain.plugs import OVS

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def free_port() -> int:
    """Free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Server:
    """One ovsdb-server with an empty database."""

    def __init__(self, folder: Path) -> None:
        where = shutil.which("ovsdb-server", path=f"{os.environ['PATH']}:/usr/sbin")
        assert where is not None, "ovsdb-server is not installed (Debian: apt-get install openvswitch-switch)"
        subprocess.run(["ovsdb-tool", "create", folder / "db", SCHEMA], check=True)
        self.socket = folder / "db.sock"
        self.unix = f"unix:{self.socket}"
        self.tcp = f"tcp:127.0.0.1:{free_port()}"
        remotes = [f"--remote=p{self.unix}", "--remote=ptcp:{2}:{1}".format(*self.tcp.split(":"))]
        places = [*remotes, f"--unixctl={folder / 'ctl'}", str(folder / "db")]
        command = ["setpriv", "--pdeathsig", "KILL", where, *places]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not self._listens():
            assert time.monotonic() < until and self.process.poll() is None
            time.sleep(0.01)

    def _listens(self) -> bool:
        """The socket is there a moment before that."""
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(str(self.socket))
        except OSError:
            return False
        return True

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(ovsdb, "ECHO_S", 0.5)
    one = Server(tmp_path)
    yield one
    one.process.kill()
    one.process.wait(20)


def bridges(api: Any) -> list[Any]:
    return rows(api, "Bridge")


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_what_a_server_that_hangs_said_before_is_not_believed(server: Server, kind: str) -> None:
    db = OvsDb(getattr(server, kind))
    assert await db.run(bridges) == []
    server.freeze()
    for _ in range(2):
        with pytest.raises(Unreachable, match="does not answer") as raised:
            await asyncio.wait_for(db.run(bridges), 5)
        assert raised.value.fix
    server.thaw()
    assert await asyncio.wait_for(db.run(bridges), 2) == []
    await db.close()


async def test_a_server_that_hangs_from_the_beginning(server: Server) -> None:
    server.freeze()
    db = OvsDb(server.unix)
    with pytest.raises(Unreachable):
        await asyncio.wait_for(db.run(bridges), 5)
    server.thaw()
    assert await asyncio.wait_for(db.run(bridges), 5) == []
    await db.close()


async def test_a_server_that_hangs_while_its_schema_is_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovsdb, "CALL_LIMIT_S", 0.5)
    monkeypatch.setattr(ovsdb, "echo", lambda _: None)  # it answered a moment ago
    server.freeze()
    db = OvsDb(server.unix)
    for _ in range(3):
        with pytest.raises(Unreachable, match="does not answer"):
            await asyncio.wait_for(db.run(bridges), 5)
    server.thaw()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await db.run(bridges) == []
                break
            except Unreachable:
                continue
    await db.close()


NIC = Nic(mac="52:54:00:00:00:01", plug=OVS, bridge="br-int", port_id="7d1c64c4-0000-4000-8000-000000000001")


def vsctl(server: Server, *words: str) -> None:
    subprocess.run(["ovs-vsctl", "--no-wait", f"--db={server.unix}", *words], check=True, timeout=20)


def plug(device: str) -> Callable[[Any], None]:
    return lambda api: add_port(api, device, NIC, {"iface-id": device})


@pytest.mark.parametrize("who", ["the caller", "the library"])
async def test_a_change_that_ovs_vswitchd_does_not_apply_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Only the database runs here: it takes the change, and nobody says that it is in force. Both ends of the
    library's queue have the same limit; either may notice first."""
    vsctl(server, "add-br", "br-int")
    db = OvsDb(server.unix, timeout_s=1)
    await db.run(bridges)
    if who == "the library":
        real = Connection.queue_txn

        def late(connection: Connection, txn: Any) -> None:
            real(connection, txn)
            time.sleep(2)

        monkeypatch.setattr(Connection, "queue_txn", late)
    for device in ("tap0", "tap1"):
        with pytest.raises(Unreachable, match="gave no answer within 1 s") as raised:
            await asyncio.wait_for(db.run(plug(device)), 20)
        assert "ovs-vswitchd" in raised.value.fix
    assert "br-int" in [row.name for row in await db.run(bridges)]  # questions are answered meanwhile
    await asyncio.wait_for(db.run(plug("tap0")), 20)  # it is in the database: nothing is left to be done,
    assert not await db.run(lambda api: forwards(api, "tap0"))  # and the switch is looked at for the rest
    vsctl(server, "set", "Open_vSwitch", ".", "cur_cfg=1000")  # as if it had come back, and caught up
    await asyncio.wait_for(db.run(plug("tap2")), 20)
    await db.close()


def swallow(api: Any) -> None:
    """No update reaches this copy any more, and nobody says so."""
    api.idl._Idl__parse_update = lambda *_: None


async def sees_in_the_end(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await look():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_a_port_whose_update_was_lost_is_seen_to_forward(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovsdb, "NOT_WIRED_S", 0.5)
    vsctl(server, "add-br", "br-int", "--", "add-port", "br-int", "tap0")
    db = OvsDb(server.unix)
    vif = OvsVif(db)
    nic = NIC.model_copy(update={"device": "tap0"})
    assert not await vif.wired(nic)
    first = await db.run(lambda api: api)
    swallow(first)
    vsctl(server, "set", "Interface", "tap0", "ofport=1")
    await sees_in_the_end(lambda: vif.wired(nic))
    second = await db.run(lambda api: api)
    assert second is not first
    assert await vif.wired(nic) and await db.run(lambda api: api) is second
    await db.close()


async def test_a_port_that_does_not_forward_is_asked_for_again_from_time_to_time_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovsdb, "NOT_WIRED_S", 0.5)
    vsctl(server, "add-br", "br-int", "--", "add-port", "br-int", "tap0")
    db, copies, began = OvsDb(server.unix), list[Any](), time.monotonic()
    while time.monotonic() - began < 1.2:
        assert not await db.forwards("tap0")
        api = await db.run(lambda api: api)
        if api not in copies:
            copies.append(api)
    assert len(copies) == 3
    await db.close()


async def test_a_copy_that_may_be_out_of_step_is_not_believed(server: Server) -> None:
    db = OvsDb(server.unix)
    first = await db.run(lambda api: api)

    def fails(*_: object) -> None:
        raise ValueError("an update that the library does not understand")

    first.idl._Idl__parse_update = fails
    vsctl(server, "add-br", "br-int")
    await sees_in_the_end(lambda: db.run(lambda api: bool(bridges(api))))
    assert await db.run(lambda api: api) is not first
    await db.close()


async def test_an_old_copy_is_made_anew(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovsdb, "COPY_S", 0.5)
    db = OvsDb(server.unix)
    swallow(await db.run(lambda api: api))
    vsctl(server, "add-br", "br-int")
    await sees_in_the_end(lambda: db.run(lambda api: bool(bridges(api))))
    await db.close()


async def test_a_library_whose_thread_has_ended_is_not_believed(server: Server) -> None:
    db = OvsDb(server.unix)
    first = await db.run(lambda api: api)
    first.ovsdb_connection.stop(5)
    assert await asyncio.wait_for(db.run(lambda api: api), 5) is not first
    await db.close()


async def test_a_server_that_ends_is_said_to(server: Server) -> None:
    db = OvsDb(server.unix)
    await db.run(bridges)
    server.process.kill()
    with pytest.raises(Unreachable):
        await asyncio.wait_for(db.run(bridges), 5)
    await db.close()
