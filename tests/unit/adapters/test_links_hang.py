"""A kernel that swallows the answer to netlink holds up one call, and only to its limit."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from sterna.adapters.vif import links
from sterna.adapters.vif.plugs import Plugs
from sterna.domain.errors import Unreachable
from sterna.domain.model import Nic
from sterna.domain.plugs import BRIDGE, MACVTAP

MAC = "52:54:00:00:00:01"
TAP = Nic(mac=MAC, plug=BRIDGE, bridge="br0", device="tap1", port_id="port-1")
ON_PARENT = Nic(mac=MAC, plug=MACVTAP, parent="eth0", mode="bridge", device="macvtap0")

CALLS: dict[str, Callable[[Plugs], Awaitable[object]]] = {
    "describe": lambda vif: vif.describe(TAP),
    "check": lambda vif: vif.check(TAP),
    "plug": lambda vif: vif.plug(TAP, vm_uuid="vm-1", device="tap1"),
    "make_way": lambda vif: vif.make_way(TAP),
    "wired": lambda vif: vif.wired(TAP),
    "announce": lambda vif: vif.announce(TAP),
    "unplug": lambda vif: vif.unplug(TAP),
    "made_ahead": lambda vif: vif.made_ahead(),
    "describe a macvtap": lambda vif: vif.describe(ON_PARENT),
    "check a macvtap": lambda vif: vif.check(ON_PARENT),
    "wired, a macvtap": lambda vif: vif.wired(ON_PARENT),
    "announce a macvtap": lambda vif: vif.announce(ON_PARENT),
    "unplug a macvtap": lambda vif: vif.unplug(ON_PARENT),
}


class EmptyKernel:
    """It answers the first `swallowed` questions never, and has no device."""

    def __init__(self, swallowed: int) -> None:
        self.swallowed, self.held = swallowed, threading.Event()

    def __enter__(self) -> "EmptyKernel":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def link_lookup(self, **_: Any) -> list[int]:
        return self._answer()

    def get_links(self, *_: int) -> list[int]:
        return self._answer()

    def _answer(self) -> list[int]:
        if self.swallowed:
            self.swallowed -= 1
            self.held.wait(30)
        return []


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmptyKernel]:
    kernel = EmptyKernel(swallowed=1)
    monkeypatch.setattr(links, "IPRoute", lambda: kernel)
    monkeypatch.setattr(links, "CALL_LIMIT_S", 0.1, raising=False)
    yield kernel
    kernel.held.set()


@pytest.mark.parametrize("name", CALLS)
async def test_a_swallowed_answer(name: str, kernel: EmptyKernel) -> None:
    vif = Plugs(ovsdb="")
    async with asyncio.timeout(5):
        with pytest.raises(Unreachable, match="the kernel does not answer") as said:
            await CALLS[name](vif)
        assert said.value.fix
        assert await vif.describe(TAP) is None
        assert await vif.made_ahead() == []
    await vif.close()
