"""`sterna agent` as a process, without libvirt: it ends when told to, whatever hangs in it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from sterna.domain.errors import SternaError
from sterna.kit.clock import SystemClock
from sterna.rpc.client import RpcClient
from tests.contract.conftest import NatsWorld

ROOT = Path(__file__).parents[2]
HANGS = """
import asyncio, signal, threading
from sterna.bootstrap import agent
from sterna.agent import daemon
from sterna.kit import loop
from sterna.kit.mounts import on_disk
from sterna.__main__ import run

async def on_a_dead_file_system():
    await on_disk(threading.Event().wait, "/", limit_s=600)

async def whatever_it_is_told():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def hang(self, request):
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # it starts still
        await asyncio.sleep(0.01)
    print("under way", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await {what}()

daemon.Agent._describe_host = hang
agent.STOPPING_S = loop.ENDING_S = 0.3
run()
"""
"""An agent whose answer to `describe_host` has no end, nor has its clean-up."""

SILENT = """
import threading
from sterna.bootstrap import agent, process
from sterna.__main__ import run

def hang(*args, **named):
    threading.Event().wait()

process.SLOW_S = 0.2
agent.{what} = hang
run()
"""
"""An agent whose disk answers nothing when it starts."""

ANOTHER = """
from sterna.agent import duplicate_name
from sterna.__main__ import run
from tests.unit.test_agent_process import OTHER

async def start(self):
    for boot, uuid in ((self._boot, "ours"), ("0", "theirs")):
        await self._heard("host.a", {"boot": boot, "host": OTHER | {"host_uuid": uuid}})

duplicate_name.OtherAgents.start = start
run()
"""
"""An agent that hears another host under its name."""
OTHER = {
    "name": "a",
    "address": "10.9.9.9",
    "libvirt_version": 0,
    "qemu_version": 0,
    "memory_total_bytes": 0,
    "memory_free_bytes": 0,
    "cpus": 0,
}


@pytest.fixture
async def nats() -> AsyncIterator[NatsWorld]:
    world = NatsWorld()
    await world.start()
    yield world
    await world.end()


@pytest.mark.parametrize("what", ["on_a_dead_file_system", "whatever_it_is_told"])
async def test_clean_up_that_hangs_keeps_it_for_a_moment_only(nats: NatsWorld, tmp_path: Path, what: str) -> None:
    config = tmp_path / "agent.toml"
    settings = f'host = "a"\nstate_dir = "{tmp_path}/state"\n[migration]\naddress = "127.0.0.1"\n'
    config.write_text(f'{settings}[bus]\nurl = "{nats.url}"\n')
    command = [sys.executable, "-c", HANGS.format(what=what), "agent", "--config", str(config)]
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=log)
    client = RpcClient(await nats.bus("a test"), "a test", SystemClock())
    try:
        asking = asyncio.create_task(asked(client))
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"under way\n"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        asking.cancel()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    expected = (tmp_path / "log").read_bytes()
    assert b"work in progress did not stop in time" in expected
    assert (b"exiting although threads still hang" in expected) is (what == "whatever_it_is_told")
    assert b"Traceback" not in expected


@pytest.mark.parametrize(("what", "named"), [("alone_in", "state"), ("SqlJournal.at", "state/journal.db")])
def test_a_disk_that_hangs_when_it_starts_is_told_and_ended_by_sigterm(
    tmp_path: Path, what: str, named: str
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'host = "a"\nstate_dir = "{tmp_path}/state"\n[migration]\naddress = "127.0.0.1"\n')
    command = [sys.executable, "-c", SILENT.format(what=what), "agent", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    ended = threading.Timer(60, process.kill)
    ended.start()
    try:
        expected = f"{tmp_path}/{named} does not answer yet; waiting".encode()
        assert any(expected in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    finally:
        ended.cancel()
        process.kill()
        process.communicate()


def test_one_that_hears_another_host_under_its_name_ends(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    settings = f'host = "a"\nstate_dir = "{tmp_path}/state"\n[migration]\naddress = "127.0.0.1"\n'
    config.write_text(settings + '[bus]\nurl = "nats://127.0.0.1:1"\n')
    command = [sys.executable, "-c", ANOTHER, "agent", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    assert "another host already answers as a on this bus: the one at 10.9.9.9" in done.stderr


async def asked(client: RpcClient) -> None:
    """Ask until there is somebody who answers, with whatever."""
    while True:
        with suppress(SternaError):
            await client.call("a", "describe_host", {})
        await asyncio.sleep(0.1)
