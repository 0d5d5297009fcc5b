"""Controllers, agents and commands as processes, as in service: with a CA, and a nats-server that knows it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from sterna.kit.digests import digest_of
from tests.contract.guarded import Guarded

ADMIN = {"Authorization": "Bearer of-this-test"}
SERVED_AT = "127.0.0.2"
"""Nobody has named it to the CA: the controller has its certificate made out to where it listens."""


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as s:
        s.bind((address, 0))
        return int(s.getsockname()[1])


async def sterna(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """A command: its exit code, and what it says on standard output and standard error."""
    command = (sys.executable, "-m", "sterna", *map(str, arguments))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=pipe, env={**os.environ, **environment}
    )
    try:
        async with asyncio.timeout(120):
            out, err = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None and "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def running(what: str, settings: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A controller or an agent, which ends well."""
    log = settings.with_suffix(".log")
    with log.open("wb") as output:
        command = (sys.executable, "-m", "sterna", what, "--config", str(settings))
        process = await asyncio.create_subprocess_exec(*command, stderr=output)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert "Traceback" not in log.read_text()


@asynccontextmanager
async def serving(guarded: Guarded, more: str = "") -> AsyncIterator[str]:
    """The URL of the API of a controller that has the CA. `more`: of its settings."""
    port = free_port(SERVED_AT)
    settings = guarded.folder / "controller.toml"
    settings.write_text(
        f'database = "sqlite:///{guarded.folder}/controller.db"\nlisten = "{SERVED_AT}:{port}"\n'
        f'[bus]\nurl = "{guarded.url}"\n[identity]\nenrol = "sterna"\nfolder = "{guarded.folder}/controller-c1"\n'
        f'[access]\nsocket = ""\nca_folder = "{guarded.folder}/ca"\n'
        f'[[access.tokens]]\nname = "test"\nrole = "admin"\nsha256 = "{digest_of("of-this-test")}"\n{more}'
    )
    async with running("controller", settings) as process:
        url = f"https://{SERVED_AT}:{port}"
        async with asyncio.timeout(120), api(guarded, url) as http:
            while not await serves(http):
                assert process.returncode is None, settings.with_suffix(".log").read_text()
                await asyncio.sleep(0.05)
        yield url


def api(guarded: Guarded, url: str) -> httpx2.AsyncClient:
    """As a person's program, which knows the CA and the address."""
    known = ssl.create_default_context(cafile=guarded.folder / "ca" / "ca.crt")
    return httpx2.AsyncClient(base_url=url, verify=known, trust_env=False, headers=ADMIN, timeout=30)


async def serves(http: httpx2.AsyncClient) -> bool:
    try:
        return (await http.get("/v1/version")).status_code == 200
    except httpx2.ConnectError:
        return False


def agent_settings(guarded: Guarded, own: Path, url: str = "", more: str = "") -> Path:
    """Of an agent whose libvirtd is away. `url`: of the API, where its certificate is renewed; nobody renews it
    without. `more`: settings."""
    file = guarded.folder / "agent.toml"
    file.write_text(
        f'host = "host1"\nstate_dir = "{guarded.folder}/state"\n'
        'libvirt_uri = "qemu+unix:///system?socket=/proc/none"\n'
        f'[migration]\naddress = "127.0.0.1"\n[network]\novsdb = ""\n[bus]\nurl = "{guarded.url}"\n'
        f'[identity]\nenrol = "sterna"\nfolder = "{own}"\n' + (f'server = "{url}"\n' if url else "") + more
    )
    return file


async def eventually(http: httpx2.AsyncClient, path: str, wanted: str) -> list[dict[str, Any]]:
    """What the API lists there, once it lists something."""
    async with asyncio.timeout(120):
        while not (found := (await http.get(path)).json()[wanted]):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    return list(found)
