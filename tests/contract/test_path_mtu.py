"""Packets of full size between two network namespaces: a switch between them takes all of them, or drops them
silently."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPECT = """
import asyncio
from sterna.adapters.libvirt.qemu.probe import PlainProbe
async def expect():
    print(await PlainProbe("10.77.0.2").expect(), flush=True)
    await asyncio.sleep(12)
asyncio.run(expect())
"""
SEND = """
import asyncio, sys
from sterna.adapters.host.frames import TcpPath
sent = asyncio.run(TcpPath().send("10.77.0.2", int(sys.argv[1])))
print(sent.frames, sent.segment)
"""
pytestmark = pytest.mark.lab


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str, str]]:
    """Namespaces: two hosts with MTU 9000, and a switch between them. Packets go one by one (no offloading)."""
    one, other, switch = names = tuple(f"mtu{kind}{os.getpid()}" for kind in ("a", "b", "s"))
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", switch, "link", "add", "sw0", "type", "bridge")
        ip("-n", switch, "link", "set", "sw0", "up")
        for name, number in ((one, 1), (other, 2)):
            ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}")
            ip("-n", name, "link", "set", f"port{number}", "netns", switch)
            ip("-n", switch, "link", "set", f"port{number}", "master", "sw0", "up", "mtu", "9000")
            ip("-n", name, "link", "set", "eth0", "up", "mtu", "9000")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            for where, device in ((name, "eth0"), (switch, f"port{number}")):
                off = ["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off"]
                subprocess.run(["ip", "netns", "exec", where, *off], check=True, capture_output=True, timeout=20)
        yield one, other, switch
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)


def inside(host: str, program: str, *words: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", host, sys.executable, "-c", program, *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("mtu", "seen"), [("9000", "passed 8948"), ("1500", "lost 8948")])
def test_a_switch_that_drops_them(hosts: tuple[str, str, str], mtu: str, seen: str) -> None:
    one, other, switch = hosts
    ip("-n", switch, "link", "set", "port2", "mtu", mtu)
    with inside(other, EXPECT) as expecting:
        assert expecting.stdout is not None
        port = expecting.stdout.readline().strip()
        with inside(one, SEND, port) as sending:
            said, _ = sending.communicate(timeout=30)
        expecting.kill()
    assert said.strip() == seen
