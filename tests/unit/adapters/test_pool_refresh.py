"""A storage pool that is being refreshed: reading all definitions ends, and all other questions are answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import libvirt
import pytest

from sterna.adapters.libvirt.inventory import LibvirtInventory
from sterna.adapters.libvirt.session import connection, host
from sterna.domain.errors import Unreachable

UUID = "6f0a3c3e-0000-4000-8000-000000000001"
XML = (
    f"<domain type='kvm'><name>tern</name><uuid>{UUID}</uuid><devices><disk type='volume' device='disk'>"
    "<source pool='slow' volume='tern.img'/><target dev='vda'/></disk></devices></domain>"
)


class Guest:
    """One that is off, with a disk in the pool."""

    def name(self) -> str:
        return "tern"

    def UUIDString(self) -> str:
        return UUID

    def state(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN]

    def info(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_SHUTOFF, 1 << 16, 1 << 16, 1, 0]

    def isActive(self) -> bool:
        return False

    def isPersistent(self) -> bool:
        return True

    def controlInfo(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0]

    def XMLDesc(self, _flags: int = 0) -> str:
        return XML

    def listAllSnapshots(self) -> list[Any]:
        return []

    def hasManagedSaveImage(self) -> bool:
        return False


class Libvirtd:
    """Answers about the pool once its refresh is over."""

    def __init__(self) -> None:
        self.asked, self.over = threading.Event(), threading.Event()

    def isAlive(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing."""

    def listAllDomains(self, _flags: int = 0) -> list[Guest]:
        return [Guest()]

    def storagePoolLookupByName(self, _name: str) -> Any:
        self.asked.set()
        assert self.over.wait(30)
        volume = Mock(**{"path.return_value": "/pool/tern.img"})
        return Mock(**{"storageVolLookupByName.return_value": volume})


@pytest.fixture
def libvirtd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Libvirtd]:
    one = Libvirtd()
    monkeypatch.setattr(host, "EventHub", Mock())
    monkeypatch.setattr(connection, "open_connection", lambda _uri: one)
    monkeypatch.setattr(connection, "CALL_LIMIT_S", 0.3)
    yield one
    one.over.set()


async def test_a_pool_that_is_being_refreshed(libvirtd: Libvirtd) -> None:
    inventory = LibvirtInventory("test:///")
    async with asyncio.timeout(10):
        for _ in range(3):
            with pytest.raises(Unreachable, match="does not answer"):
                await inventory.claims()
        assert libvirtd.asked.is_set()
        libvirtd.over.set()
        assert "/pool/tern.img" in [claim.path for claim in await inventory.claims()]
    inventory.close()


async def test_other_questions_do_not_wait_for_it(libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CALL_LIMIT_S", 30)
    inventory = LibvirtInventory("test:///")
    async with asyncio.timeout(10):
        reading = asyncio.ensure_future(inventory.claims())
        while not libvirtd.asked.is_set():  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0.01)
        assert [vm.name for vm in await inventory.vms()] == ["tern"]
        assert not reading.done()
        libvirtd.over.set()
        await reading
    inventory.close()
