"""Hosts join and renew over the network: controllers, agents, commands and a nats-server as they are in service."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from nats.errors import Error as NatsError

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.pki_files import PkiFiles
from sterna.domain.trust.join_token import read
from tests.contract.guarded import Guarded, Voice, voice
from tests.contract.in_service import agent_settings, api, eventually, running, serving, sterna
from tests.rights import CONTROLLER, HOST1, HOST2
from tests.unit.adapters.identities import join as joined


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    guarded = Guarded(tmp_path)
    guarded.enrol(CONTROLLER)
    await guarded.start()
    yield guarded
    await guarded.end()


@pytest.fixture
async def url(guarded: Guarded) -> AsyncIterator[str]:
    """The API of a controller that has the CA."""
    async with serving(guarded) as url:
        yield url


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def answered(http: httpx2.AsyncClient) -> dict[str, Any]:
    """The one line of the log, with its answer, which is written behind the answer itself."""
    async with asyncio.timeout(60):
        while (line := (await http.get("/v1/log")).json()["lines"][0])["status"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return dict(line)


async def test_a_host_joins_with_one_command_and_its_agent_is_heard(guarded: Guarded, url: str) -> None:
    own, ca = guarded.folder / "own", guarded.folder / "ca"
    code, word, output = await sterna("host", "add", "host1", "--address", "127.0.0.1", "--ca", ca)
    assert code == 0 and "sterna agent join - --server https://" in output
    token = word.strip()
    code, _, output = await sterna("agent", "join", token, "--server", url, "--folder", own)
    assert code == 0, output
    assert f'server = "{url}"' in output
    files = {path.name: mode(path) for path in (own / "current").iterdir()}
    assert {"own.key", "own.crt", "ca.crt"} <= files.keys() and set(files.values()) == {0o600}
    assert mode(own) == mode((own / "current").resolve()) == 0o700

    code, _, output = await sterna("agent", "join", token, "--server", url, "--folder", guarded.folder / "thief")
    assert code == 4 and "used already, by another key" in output
    guarded.reload()
    async with running("agent", agent_settings(guarded, own, url)), api(guarded, url) as http:
        (host,) = await eventually(http, "/v1/hosts", "hosts")
        assert (host["name"], host["state"]) == ("host1", "degraded")
        line = await answered(http)
        guarded.authority.remove(HOST1)
        async with asyncio.timeout(60):  # within some seconds, though the bus still lets it speak
            while (hosts := (await http.get("/v1/hosts")).json())["hosts"]:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        assert hosts["insecure"] is None
        (enrolled,) = (await http.get("/v1/enrolments")).json()["hosts"]
        assert (enrolled["name"], enrolled["state"]) == ("host1", "removed")
    assert (line["actor"], line["action"], line["target"], line["status"]) == ("agent:host1", "join", "host1", 200)


async def test_a_token_of_another_ca_or_of_yesterday(guarded: Guarded, url: str) -> None:
    own = guarded.folder / "own"
    token = guarded.authority.invite(HOST1, [])
    other = token.model_copy(update={"fingerprint": "ab" * 32})
    code, _, output = await sterna("agent", "join", other.word, "--server", url, "--folder", own)
    assert code == 2 and "nothing was sent" in output and token.fingerprint in output
    assert not own.exists()
    earlier = datetime.now(UTC) - timedelta(minutes=16)
    old = Authority.open(guarded.folder / "ca", lambda: earlier).invite(HOST1, [])
    code, _, output = await sterna("agent", "join", old.word, "--server", url, "--folder", own)
    assert code == 4 and "expired" in output and "sterna host add host1" in output
    assert not (own / "current").exists()
    assert read(old.word).fingerprint == guarded.authority.fingerprint


async def test_an_agent_renews_its_certificate_by_itself_until_its_host_is_removed(
    guarded: Guarded, url: str
) -> None:
    before = datetime.now(UTC) - timedelta(days=61)
    earlier = Authority.open(guarded.folder / "ca", lambda: before)
    own, pki = joined(earlier, HOST1, guarded.folder / "own"), guarded.folder / "pki"
    PkiFiles(guarded.folder / "own").write(pki, None)
    guarded.reload()
    config, (_, until) = agent_settings(guarded, guarded.folder / "own", url), own.validity()
    async with running("agent", config), api(guarded, url) as http:
        await eventually(http, "/v1/log", "lines")
        line = await answered(http)
        assert (line["actor"], line["action"], line["status"]) == ("agent:host1", "join", 200)
        async with asyncio.timeout(60):
            while own.validity()[1] == until:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        async with asyncio.timeout(60):  # what libvirt and QEMU have follows
            while (pki / "qemu/client-cert.pem").read_bytes() != own.certificate_file.read_bytes():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert own.validity()[1] > datetime.now(UTC) + timedelta(days=89)

    own = joined(earlier, HOST1, guarded.folder / "again")
    guarded.authority.remove(HOST1)
    config, log = agent_settings(guarded, guarded.folder / "again", url), config.with_suffix(".log")
    async with running("agent", config), asyncio.timeout(120):
        while "is not renewed and in use yet" not in log.read_text():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    assert "host1 was removed" in log.read_text()
    assert OwnFiles(guarded.folder / "again").validity() == own.validity()


async def on_the_bus(guarded: Guarded, own: OwnFiles, stack: AsyncExitStack) -> Voice:
    """With this certificate, as soon as the bus knows it."""
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError, NatsError):
                return await stack.enter_async_context(voice(guarded, own))
            await asyncio.sleep(0.1)


async def test_a_removed_host_is_shut_out_everywhere(guarded: Guarded) -> None:
    """Nothing is done but `sterna host remove`. libvirtd is away, and will read its list when it starts."""
    assert guarded.process is not None
    beside = {"config_file": str(guarded.config), "listen": f"127.0.0.1:{guarded.port}"}
    beside["folder"] = str(guarded.server_files.certificate_file.parents[1])
    lines = [f"{key} = {json.dumps(value)}" for key, value in beside.items()]
    lines.append(f"reload = {json.dumps(['kill', '-HUP', str(guarded.process.pid)])}")
    pki, ca = guarded.folder / "pki", guarded.folder / "ca"
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(guarded, "\n".join(["[bus_server]", *lines, ""])))
        http = await stack.enter_async_context(api(guarded, url))
        one, two = (joined(guarded.authority, who, guarded.folder / who.name) for who in (HOST1, HOST2))
        PkiFiles(guarded.folder / HOST1.name).write(pki, None)
        await stack.enter_async_context(running("agent", agent_settings(guarded, guarded.folder / HOST1.name, url)))
        host1, host2 = await on_the_bus(guarded, one, stack), await on_the_bus(guarded, two, stack)
        await eventually(http, "/v1/hosts", "hosts")
        assert not (pki / "CA/cacrl.pem").exists()
        code, _, output = await sterna("host", "remove", "host2", "--ca", ca)
        assert code == 0 and "sends that list to every agent" in output
        asked = two.renewal().model_dump()
        assert (await http.post("/v1/renewals", json=asked)).status_code == 409
        async with asyncio.timeout(60):
            while not host2.client.is_closed:  # noqa: ASYNC110 - another process closes it
                await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            while (await http.get("/v1/enrolments")).json()["hosts"][0]["knows_revoked"] is not True:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert (pki / "CA/cacrl.pem").read_bytes() == (pki / "qemu/ca-crl.pem").read_bytes()
        assert not host1.client.is_closed and await host1.publishes("sterna.event.host.host1")
