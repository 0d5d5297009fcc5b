"""A NIC is taken from a running guest: its kernel has to let go of it, and may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from sterna.adapters.libvirt import devices
from sterna.adapters.libvirt.devices import LibvirtDevices
from sterna.domain.errors import Temporary, Unreachable
from sterna.domain.model import Nic
from sterna.domain.plugs import HOSTDEV

T = TypeVar("T")
MAC = "52:54:00:00:00:01"
NIC = Nic(mac=MAC, plug=HOSTDEV)
HAS_IT = f"<domain><devices><interface type='hostdev'><mac address='{MAC}'/></interface></devices></domain>"
WITHOUT = "<domain><devices/></domain>"
NEVER = 10**9


class Guest:
    """Connection and domain in one: it lets go before that look at its definition; the first is made before it is
    asked."""

    def __init__(self, lets_go_at: int) -> None:
        self.lets_go_at, self.looks, self.asked = lets_go_at, 0, 0

    def lookupByUUIDString(self, _uuid: str) -> Guest:
        return self

    def isActive(self) -> bool:
        return True

    def XMLDesc(self, _flags: int) -> str:
        self.looks += 1
        return WITHOUT if self.looks >= self.lets_go_at else HAS_IT

    def detachDeviceFlags(self, _xml: str, _flags: int) -> None:
        self.asked += 1


class Host(LibvirtDevices):
    """Its libvirtd answers at once, but to the call that `hangs` and those after it."""

    def __init__(self, guest: Guest, hangs: int = NEVER) -> None:
        self._guest, self._calls, self._hangs = guest, 0, hangs
        self.error: Exception | None = None

    async def _ask_of(self, uuid: str, act: Callable[[Any], T]) -> T:
        self._calls += 1
        if self._calls >= self._hangs:
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
        return act(self._guest)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_LETS_GO_S", 0.3)
    monkeypatch.setattr(devices, "_LOOK_EVERY_S", 0.01)


@pytest.mark.parametrize("lets_go_at", [1, 2, 6])
async def test_it_is_over_when_the_guest_has_let_go(lets_go_at: int) -> None:
    guest = Guest(lets_go_at)
    await Host(guest).detach_nic("u", NIC)
    assert guest.looks == lets_go_at
    assert guest.asked == (lets_go_at > 1)  # one that is not there is not asked for


async def test_a_guest_that_does_not_let_go_is_said_with_what_would_help() -> None:
    guest = Guest(NEVER)
    with pytest.raises(Temporary, match=f"does not release NIC {MAC}") as caught:
        await asyncio.wait_for(Host(guest).detach_nic("u", NIC), 10)
    assert "hot-plug" in caught.value.fix
    assert guest.looks > 2
    assert guest.asked == 1


async def test_the_clock_counts_and_not_the_looks_one_of_which_may_hang() -> None:
    with pytest.raises(Temporary, match="does not release"):
        await asyncio.wait_for(Host(Guest(NEVER), hangs=3).detach_nic("u", NIC), 10)


async def test_a_request_that_libvirt_does_not_answer_is_not_taken_for_the_guests_fault() -> None:
    with pytest.raises(Temporary, match="libvirt does not say") as caught:
        await asyncio.wait_for(Host(Guest(NEVER), hangs=1).detach_nic("u", NIC), 10)
    assert "QEMU hangs" in caught.value.fix


async def test_what_libvirt_says_meanwhile_is_not_taken_for_the_guests_fault() -> None:
    host = Host(Guest(NEVER), hangs=3)
    host.error = Unreachable("libvirtd is away")
    with pytest.raises(Unreachable, match="libvirtd is away"):
        await asyncio.wait_for(host.detach_nic("u", NIC), 10)


class Pools:
    """A host whose network `fast` gives virtual functions, and a guest that has lost its own."""

    def __init__(self, standby: str) -> None:
        self.attached: list[str] = []
        self._definition = (
            f"<domain><devices>{standby}<interface type='network'><mac address='{MAC}'/>"
            "<source network='fast'/><address slot='7'/></interface></devices></domain>"
        )
        self._running = f"<domain><devices>{standby}</devices></domain>"

    def lookupByUUIDString(self, _uuid: str) -> Pools:
        return self

    def isActive(self) -> bool:
        return True

    isPersistent = isActive

    def XMLDesc(self, flags: int) -> str:
        return self._definition if flags else self._running

    def attachDeviceFlags(self, xml: str, _flags: int) -> None:
        self.attached.append(xml)

    def networkLookupByName(self, name: str) -> Network:
        return Network("hostdev" if name == "fast" else "bridge")


class Network:
    def __init__(self, mode: str) -> None:
        self._mode = mode

    def XMLDesc(self) -> str:
        return f"<network><forward mode='{self._mode}'/></network>"


@pytest.mark.parametrize(
    "standby",
    ["", f"<interface type='network'><mac address='{MAC}'/><source network='office'/></interface>"],
)
async def test_a_function_of_a_libvirt_network_is_given_by_its_network(standby: str) -> None:
    guest: Any = Pools(standby)
    await Host(guest).attach_nic("u", NIC.model_copy(update={"pci": "0000:5e:10.3"}))
    (attached,) = guest.attached
    assert 'type="network"' in attached and "fast" in attached and 'slot="7"' in attached
