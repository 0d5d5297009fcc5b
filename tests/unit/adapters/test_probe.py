"""The probe of the stream's ports, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from sterna.adapters.libvirt.qemu import probe as module
from sterna.adapters.libvirt.qemu.probe import PlainProbe, stream_ports
from sterna.domain.errors import Permanent, Temporary
from sterna.kit.names import Numeric

from .conftest import NAME, Resolver


def conf(tmp_path: Path, first: int, last: int) -> Path:
    path = tmp_path / "qemu.conf"
    path.write_text(f"migration_port_min = {first}\nmigration_port_max = {last}\n")
    return path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def free_ports(count: int) -> int:
    """The first of so many in a row."""
    while True:
        first = free_port()
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError, OverflowError):
            for port in range(first, first + count):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_stream_that_would_arrive(tmp_path: Path, address: str) -> None:
    port = free_port()
    probe = PlainProbe(address, conf(tmp_path, port, port))
    assert await probe.expect() == port
    assert await probe.knock(address, port) is None
    assert await probe.expect() == port  # free again at once: QEMU comes next


async def test_nobody_listens(tmp_path: Path) -> None:
    port = free_port()
    found = await PlainProbe("127.0.0.1", conf(tmp_path, port, port)).knock("127.0.0.1", port)
    assert found is not None
    assert (found.code, f"port {port}" in found.message) == ("stream-blocked", True)
    assert f"TCP ports {port}-{port}" in found.fix


async def test_every_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Temporary, match=f"{port}-{port}, is taken"):
            await PlainProbe("127.0.0.1", conf(tmp_path, port, port)).expect()


async def test_a_stream_that_has_come_keeps_its_port(tmp_path: Path) -> None:
    """QEMU listens no more, and libvirt gives the port to nobody else."""
    with socket.socket() as qemu, socket.socket() as source:
        qemu.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        qemu.bind(("127.0.0.1", 0))
        qemu.listen()
        port = qemu.getsockname()[1]
        source.connect(("127.0.0.1", port))
        stream, _ = qemu.accept()
        qemu.close()
        probe = PlainProbe("127.0.0.1", conf(tmp_path, port, port))
        with stream, pytest.raises(Temporary, match=f"{port}-{port}, is taken"):
            await probe.expect()
    assert await probe.expect() == port


async def test_local_disks_need_a_port_of_their_own(tmp_path: Path) -> None:
    port = free_port()
    alone = PlainProbe("127.0.0.1", conf(tmp_path, port, port))
    assert await alone.expect() == port
    with pytest.raises(Temporary, match="fewer than 2 ports"):
        await alone.expect(2)
    assert await PlainProbe("127.0.0.1", conf(tmp_path, port, port + 20)).expect(2) >= port


async def test_ports_are_promised_to_one_migration(tmp_path: Path) -> None:
    """Until its QEMU listens; a plan is promised nothing."""
    port = free_port()
    probe = PlainProbe("127.0.0.1", conf(tmp_path, port, port))
    for migration in ("", "one", "one"):
        assert await probe.expect(promise_to=migration) == port
        assert await probe.knock("127.0.0.1", port) is None
    for other in ("two", ""):
        with pytest.raises(Temporary):
            await probe.expect(promise_to=other)


async def test_the_ports_that_libvirt_gives_to_another_migration_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives the lowest free ones, half a second before QEMU listens there; then QEMU would find them in use."""
    first = free_ports(6)
    bound: list[int] = []
    listen = module._listen

    def noted(address: Numeric, port: int) -> socket.socket:
        bound.append(port)
        return listen(address, port)

    monkeypatch.setattr(module, "_listen", noted)
    probe = PlainProbe("127.0.0.1", conf(tmp_path, first, first + 5))
    assert await probe.expect(2, promise_to="with a local disk") == first
    assert await probe.knock("127.0.0.1", first) is None
    assert await probe.expect() == first + 2
    assert await probe.expect(promise_to="another") == first + 3  # that plan's probe is still expected
    assert bound == [first, first + 2, first + 2, first + 3]


async def test_an_address_that_is_not_this_hosts_says_nothing(tmp_path: Path) -> None:
    assert await PlainProbe("192.0.2.1", conf(tmp_path, 49152, 49153)).expect() == 0


@pytest.mark.parametrize("text", ["", "migration_port_min = x", "migration_port_min = 5\nmigration_port_max = 4"])
def test_libvirts_own_range_where_the_settings_say_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "qemu.conf"
    path.write_text(text)
    assert stream_ports(path) == stream_ports(tmp_path / "none") == range(49152, 49216)


async def test_a_name_is_resolved_once(tmp_path: Path, resolver: Resolver) -> None:
    port = free_port()
    assert await PlainProbe(NAME, conf(tmp_path, port, port)).expect() == port
    assert resolver.asked == [NAME]


async def test_a_resolver_that_hangs_says_nothing_of_the_ports(tmp_path: Path, resolver: Resolver) -> None:
    """The event loop goes on meanwhile."""
    resolver.hangs()
    expecting = asyncio.create_task(PlainProbe(NAME, conf(tmp_path, 49152, 49153)).expect())
    await resolver.is_asked()
    assert await expecting == 0


async def test_a_name_that_nobody_knows_is_an_error_of_the_settings(tmp_path: Path, resolver: Resolver) -> None:
    resolver.refuses()
    with pytest.raises(Permanent, match=f"{NAME} cannot be resolved") as raised:
        await PlainProbe(NAME, conf(tmp_path, 49152, 49153)).expect()
    assert "[migration]" in raised.value.fix


async def test_who_takes_the_connection_and_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KNOCK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with asyncio.timeout(10):
            found = await PlainProbe("127.0.0.1", conf(tmp_path, port, port)).knock("127.0.0.1", port)
    assert found is not None and "no answer within 0.2 s" in found.message


async def test_who_is_expected_and_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EXPECT_S", 0.1)
    port = free_port()
    probe = PlainProbe("127.0.0.1", conf(tmp_path, port, port))
    assert await probe.expect() == port
    (waiting,) = probe._expecting
    async with asyncio.timeout(10):
        await waiting
    with socket.create_server(("127.0.0.1", port)):  # it is free again
        pass
