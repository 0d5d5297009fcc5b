"""Parts of a host that hang: a keeper, a killed command, a file system. Whoever asked them is answered."""

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

from sterna.adapters.files import storage
from sterna.adapters.libvirt.qemu import recovery
from sterna.adapters.libvirt.xml import recovery_monitor
from sterna.adapters.volumes import shared_file
from sterna.domain.errors import Permanent, Temporary, Unreachable
from sterna.domain.model import Disk, DiskKind
from sterna.kit import command, mounts

from .conftest import NAME, Resolver


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (recovery, recovery_monitor):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    for limit in ("CONNECT_S", "ANSWER_S", "_SLACK_S"):
        monkeypatch.setattr(recovery, limit, 0.1)
    (tmp_path / "sterna-vm.sock").touch()
    return tmp_path


async def test_a_keeper_that_hangs_is_as_good_as_none(folder: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with await asyncio.start_unix_server(silent, folder / "sterna-vm.held"):
        assert await asyncio.wait_for(recovery._ask_keeper("vm", "migrate-pause"), 5) is None


async def test_a_keeper_that_never_says_that_it_holds_the_monitor_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "python"
    program.write_text(f"#!/bin/sh\necho $$ > {folder}/pid\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(recovery, "_SLACK_S", 2.0)
    with pytest.raises(Unreachable, match="does not open"):
        await asyncio.wait_for(recovery.hold_monitor("vm"), 20)


async def test_the_source_is_waited_for_at_an_address_that_is_resolved_once(
    folder: Path, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU is told the number: it would resolve the name in the thread that serves its guest."""
    uris = []

    async def keeper(uuid: str, command: str, **arguments: str) -> str:
        uris.append(arguments["uri"])
        return ""

    monkeypatch.setattr(recovery, "_ask_keeper", keeper)
    uri = await recovery.listen_again("vm", NAME)
    assert uri.startswith(f"tcp:{NAME}:")
    assert uris == [uri.replace(NAME, "127.0.0.1")]
    assert resolver.asked == [NAME]


async def test_a_resolver_that_hangs_keeps_nothing_else_from_the_event_loop(
    folder: Path, resolver: Resolver
) -> None:
    resolver.hangs()
    listening = asyncio.create_task(recovery.listen_again("vm", NAME))
    await resolver.is_asked()
    with pytest.raises(Unreachable, match=f"{NAME} cannot be resolved"):
        await listening
    assert resolver.asked == [NAME]


async def test_a_name_that_is_not_resolved_is_no_port_that_is_taken(folder: Path, resolver: Resolver) -> None:
    resolver.refuses()
    with pytest.raises(Permanent, match=f"{NAME} cannot be resolved") as raised:
        await recovery.listen_again("vm", NAME)
    assert "more_addresses" in raised.value.fix
    assert resolver.asked == [NAME]


async def test_a_killed_command_that_waits_in_the_kernel_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "KILLED_S", 0.1)
    monkeypatch.setattr(asyncio.subprocess.Process, "kill", lambda self: None)  # as good as killed
    began = time.monotonic()
    with pytest.raises(Temporary, match="no answer"):
        await command.run(["sleep", "8"], limit_s=0.1)
    assert time.monotonic() - began < 6


async def test_a_file_system_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "ANSWER_S", 0.1)
    held = threading.Event()
    with pytest.raises(Temporary, match=r"^/srv/dead/a: the file system does not answer"):
        await asyncio.wait_for(mounts.on_disk(held.wait, "/srv/dead/a"), 5)
    with pytest.raises(Temporary, match=r"^/srv/dead/a: the file system does not answer"):
        await asyncio.wait_for(storage._in_words(held.wait, "cannot make", "/srv/dead/a"), 5)
    held.set()


async def test_a_shared_disk_whose_opening_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_file, "_IMAGE_INFO_S", 0.1)
    held = threading.Event()
    monkeypatch.setattr(shared_file, "_look", lambda *_: held.wait())
    disk = Disk(target="vda", kind=DiskKind.FILE, path="/srv/dead/disk", format="raw")
    with pytest.raises(Temporary, match="/srv/dead/disk: the file system does not answer: no answer"):
        await asyncio.wait_for(shared_file.SharedFileVolumes().connect(disk), 5)
    held.set()
