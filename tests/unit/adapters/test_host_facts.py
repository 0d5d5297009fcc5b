"""A guest whose lock libvirt cannot get holds up neither its host's facts nor a look at where a guest is."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from sterna.adapters.libvirt import abilities, inventory
from sterna.adapters.libvirt.inventory import LibvirtInventory
from sterna.adapters.libvirt.session import connection
from sterna.domain.errors import NotFound
from sterna.domain.hosts import Abilities, HostFacts
from sterna.kit.bounded import Bounded
from sterna.kit.threads import MOST_STUCK, in_thread

FACTS = HostFacts(
    name="a", host_uuid="u", address="10.0.0.1", libvirt_version=1, qemu_version=1, memory_total_bytes=2,
    memory_free_bytes=1, cpus=1, cpu_model="", initiator=None, instances_dir="/i", disk_free_bytes=None,
)  # fmt: skip


class Libvirtd:
    """One connection; looking a guest up takes as long as another job of its."""

    def __init__(self) -> None:
        self.locked, self.asked = threading.Event(), threading.Event()

    def isAlive(self) -> bool:
        return True

    def lookupByUUIDString(self, uuid: str) -> Any:
        self.asked.set()
        assert self.locked.wait(20)
        raise NotFound(uuid)

    lookupByName = lookupByUUIDString

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LibvirtInventory, Libvirtd]]:
    """A host whose libvirtd answers nothing about guests before it is let."""
    libvirtd = Libvirtd()

    async def able(*_: object, **__: object) -> Abilities:
        return Abilities()

    monkeypatch.setattr(connection, "open_connection", lambda uri: libvirtd)
    monkeypatch.setattr(abilities, "read", able)
    monkeypatch.setattr(LibvirtInventory, "_host_facts", lambda self, conn: (FACTS, "<capabilities/>"))
    hub = Mock(**{"seen_running.return_value": False})
    monkeypatch.setattr("sterna.adapters.libvirt.session.host.EventHub", lambda uri: hub)
    one = LibvirtInventory()
    yield one, libvirtd
    libvirtd.locked.set()
    one.close()


async def test_facts_do_not_wait_for_a_guests_lock(host: tuple[LibvirtInventory, Libvirtd]) -> None:
    inventory_, libvirtd = host
    looking = asyncio.create_task(inventory_.observe("0000-1"))
    try:
        assert await in_thread(lambda: libvirtd.asked.wait(5))
        assert (await asyncio.wait_for(inventory_.host(), 5)).name == "a"
        assert not looking.done()
    finally:
        libvirtd.locked.set()
        await asyncio.gather(looking, return_exceptions=True)


async def test_a_look_does_not_wait_for_a_description(
    host: tuple[LibvirtInventory, Libvirtd], monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory_, libvirtd = host
    monkeypatch.setattr(inventory, "observe", lambda conn, uuid, seen_running: uuid)
    describing = asyncio.create_task(inventory_.vm("0000-1"))
    try:
        assert await in_thread(lambda: libvirtd.asked.wait(5))
        assert str(await asyncio.wait_for(inventory_.observe("0000-2"), 5)) == "0000-2"
        assert not describing.done()
    finally:
        libvirtd.locked.set()
        await asyncio.gather(describing, return_exceptions=True)


def test_a_file_system_that_does_not_answer_does_not_keep_a_host_from_being_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, hanging = threading.Event(), []

    def statvfs(_path: str) -> Any:
        hanging.append(threading.current_thread())
        assert held.wait(20)
        raise OSError("stale file handle")

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(inventory, "_ROOM_S", 0.01, raising=False)
    monkeypatch.setattr(inventory, "_ROOM", Bounded("test"), raising=False)
    timer = threading.Timer(10, held.set)
    timer.start()
    assert [inventory._free_bytes("/nfs") for _ in range(MOST_STUCK + 2)] == [None] * (MOST_STUCK + 2)
    timer.cancel()
    assert not held.is_set()
    assert len(hanging) == MOST_STUCK, "threads pile up"
    held.set()
    for thread in hanging:
        thread.join(5)
