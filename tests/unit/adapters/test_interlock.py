"""The interlock against a QEMU's monitor that keeps count of nodes and descriptors."""

from __future__ import annotations

import itertools
from typing import Any

import libvirt
import pytest

from sterna.adapters.libvirt.qemu import interlock
from sterna.adapters.libvirt.qemu.monitor import Refused


class Monitor:
    """QEMU's side: one set of descriptors, one node. `lost` is the command whose connection breaks, once."""

    def __init__(self) -> None:
        self.node = False
        self.descriptors: set[int] = set()
        self.lost = ""
        self._numbers = itertools.count(20)

    def ask(self, domain: Any, command: str, *, descriptor: int | None = None, **arguments: Any) -> Any:
        if command == self.lost and "fd" in arguments:
            self.lost = ""
            raise libvirt.libvirtError("the connection was reset")
        match command:
            case "query-named-block-nodes":
                return [{"node-name": interlock.NODE}] if self.node else []
            case "add-fd":
                self.descriptors.add(number := next(self._numbers))
                return {"fd": number}
            case "blockdev-add":
                self.node = True
            case "blockdev-del":
                if not self.node:
                    raise Refused("there is no such node")
                self.node = False
            case "remove-fd":
                if not self.descriptors:
                    raise Refused("there is no such set")
                self.descriptors -= {arguments["fd"]} if "fd" in arguments else set(self.descriptors)
        return {}


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Monitor:
    qemu = Monitor()
    monkeypatch.setattr(interlock, "ask", qemu.ask)
    return qemu


def test_it_leaves_qemu_no_descriptor_to_write_through(monitor: Monitor) -> None:
    for _ in range(2):
        interlock.engage(None)
        assert monitor.node and len(monitor.descriptors) == 1  # the one for reading
    interlock.release(None)
    assert not monitor.node and not monitor.descriptors


def test_one_that_was_left_half_set_is_set_as_a_whole(monitor: Monitor) -> None:
    monitor.lost = "remove-fd"  # libvirtd is restarted, or the agent killed, between the last two commands
    with pytest.raises(libvirt.libvirtError):
        interlock.engage(None)
    assert len(monitor.descriptors) == 2
    interlock.engage(None)
    assert monitor.node and len(monitor.descriptors) == 1
