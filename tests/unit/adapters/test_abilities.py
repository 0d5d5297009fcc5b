"""What a host's QEMU is asked. Its schema is some 200 KB: it is not out when the next command is read."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from sterna.adapters.libvirt import abilities
from sterna.adapters.libvirt.qemu import schema
from sterna.domain.hosts import Abilities

NEW = abilities.Versions(10_001_000, 8_000_000)
ACL = 'cgroup_device_acl = [\n  "/dev/null", {more}\n  "/dev/zero"\n]\n'
SCHEMA = '[{"meta-type": "enum", "values": ["none", "zlib", "zstd"]}]'
"""The enum that tells; a QEMU without zstd lacks it."""


def emulator(folder: Path, *, says: str = SCHEMA, first: str = "") -> Path:
    """A QEMU that answers what it was asked, unless the next command is to quit; `first`: what it does before."""
    path = folder / "qemu"
    path.write_text(f"""#!{sys.executable}
import select, sys
print('{{"QMP": {{}}}}', flush=True)
{first}
for line in sys.stdin:
    if "capabilities" in line:
        print('{{"return": {{}}}}', flush=True)
    elif "schema" in line:
        if any("quit" in more for more in iter(lambda: sys.stdin.readline() if select.select(
                [sys.stdin], [], [], 0.2)[0] else "", "")):
            sys.exit()
        print('{{"return": {says}}}', flush=True)
""")
    path.chmod(0o755)
    return path


class Host:
    """With this QEMU. `zstd`: as its description says now."""

    def __init__(self, path: Path) -> None:
        self._schemas = schema.Schemas()
        self._told = etree.fromstring(
            f"<capabilities><guest><arch name='x86_64'><emulator>{path}</emulator></arch></guest></capabilities>"
        )

    async def read(self, settings: Abilities) -> Abilities:
        return await abilities.read(self._told, NEW, self._schemas, privileged=False, settings=settings)

    async def zstd(self) -> bool | None:
        return (await self.read(Abilities())).zstd

    async def once_known(self) -> bool | None:
        await self.zstd()
        await self._schemas.answered()
        return await self.zstd()


async def test_qemu_is_not_told_to_quit_before_it_has_answered(tmp_path: Path) -> None:
    assert await Host(emulator(tmp_path)).once_known() is True


async def test_a_qemu_without_zstd_is_known(tmp_path: Path) -> None:
    path = emulator(tmp_path, says='[{"meta-type": "enum", "values": ["none", "zlib"]}]')
    assert await Host(path).once_known() is False


async def test_a_qemu_that_gave_no_answer_is_asked_again(tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    fails = f"import os\nif not os.path.exists({once!r}):\n    open({once!r}, 'w')\n    sys.exit()"
    host = Host(emulator(tmp_path, first=fails))
    assert await host.once_known() is None  # and it is being asked again
    assert await host.once_known() is True


def hanging(folder: Path) -> tuple[Path, Path]:
    """A QEMU that says nothing, and a file with a dot for each time that it was started."""
    path, asked = folder / "qemu", folder / "asked"
    path.write_text(f"#!/bin/sh\nprintf . >> '{asked}'\nexec sleep 600\n")
    path.chmod(0o755)
    return path, asked


async def test_a_qemu_that_hangs_is_asked_once_whoever_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beacons leave after 4 s, and checks ask at the same time."""
    monkeypatch.setattr(schema, "_ASK_QEMU_S", 2.0)
    path, asked = hanging(tmp_path)
    host = Host(path)
    leaving = asyncio.create_task(host.zstd())
    assert list(await asyncio.gather(host.zstd(), host.zstd())) == [None, None]
    leaving.cancel()
    assert [await host.once_known(), await host.once_known()] == [None, None]
    assert asked.read_text() == "."


async def test_a_qemu_that_hung_once_is_asked_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host swapped for a moment: its agent runs for months."""
    monkeypatch.setattr(schema, "_ASK_QEMU_S", 1.0)
    once = str(tmp_path / "once")
    hangs = f"import os, time\nif not os.path.exists({once!r}):\n    open({once!r}, 'w')\n    time.sleep(600)"
    host = Host(emulator(tmp_path, first=hangs))
    assert await host.once_known() is None
    assert await host.once_known() is None, "not asked again at once"
    monkeypatch.setattr(schema, "_ASK_QEMU_S", 20.0)
    monkeypatch.setattr(schema, "_AGAIN_S", 0.0)
    assert await host.once_known() is True


async def test_a_host_is_described_before_its_qemu_has_answered(tmp_path: Path) -> None:
    path, _ = hanging(tmp_path)
    async with asyncio.timeout(5):
        assert await Host(path).zstd() is None


async def test_a_qemu_that_cannot_be_killed_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, asked = threading.Event(), []

    def waits_in_the_kernel(emulator: str) -> list[Any]:
        asked.append(emulator)
        goes_on.wait(20)
        return []

    monkeypatch.setattr(schema, "_ASK_QEMU_S", 0.05)
    monkeypatch.setattr(schema, "_schema", waits_in_the_kernel)
    host = Host(emulator(tmp_path))
    assert [await host.once_known(), await host.once_known()] == [None, None]
    goes_on.set()
    assert len(asked) == 1


async def test_a_host_without_an_emulator_says_nothing(tmp_path: Path) -> None:
    assert await Host(tmp_path / "none").once_known() is None


@pytest.mark.parametrize(
    ("versions", "conf", "opens"),
    [
        (NEW, "", True),
        (abilities.Versions(10_000_000, 9_000_000), "", False),
        (abilities.Versions(11_003_000, 7_002_000), "", False),
        (NEW, ACL.format(more='"/dev/kvm",'), False),
        (NEW, ACL.format(more='"/dev/userfaultfd",'), True),
        (NEW, "#" + ACL.format(more="").replace("\n", "\n#"), True),
    ],
)
def test_the_device_that_handles_page_faults(versions: abilities.Versions, conf: str, opens: bool) -> None:
    assert abilities.opens_device(versions, conf) is opens


@pytest.mark.parametrize(
    "conf, forced",
    [("migrate_tls_force = 1\n", True), ("# migrate_tls_force = 1\n", False), ("migrate_tls_force = 0\n", False)],
)
def test_a_libvirt_that_demands_tls_for_memory(tmp_path: Path, conf: str, forced: bool) -> None:
    (tmp_path / "qemu.conf").write_text(conf)
    assert abilities.tls_is_forced(tmp_path / "qemu.conf") is forced
    assert not abilities.tls_is_forced(tmp_path / "nothing")


async def test_then_its_operator_allows_nothing_unencrypted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host, allowed = Host(emulator(tmp_path)), Abilities(insecure=True)
    monkeypatch.setattr(abilities, "tls_is_forced", lambda: True)
    assert (await host.read(allowed)).insecure is False
    monkeypatch.setattr(abilities, "tls_is_forced", lambda: False)
    assert (await host.read(allowed)).insecure is True
