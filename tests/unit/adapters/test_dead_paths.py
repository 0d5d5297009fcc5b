"""A VM's definition names a path on a file system that does not answer, or a host that nobody resolves.

The check that looks there fails, with the name; what else this host's libvirt is asked is answered meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import libvirt
import pytest

from sterna.adapters.host import looks
from sterna.adapters.libvirt import abilities, claims, inventory, resources
from sterna.adapters.libvirt.inventory import LibvirtInventory
from sterna.adapters.libvirt.qemu import certificates, schema
from sterna.adapters.libvirt.qemu.certificates import Certificates
from sterna.adapters.libvirt.session import connection, host
from sterna.domain.errors import Temporary
from sterna.domain.model import Vm
from sterna.domain.references import Form, Kind, Reference
from sterna.kit.threads import MOST_STUCK

NODE = """<node><domain type='test' id='1'><name>web</name><uuid>00000000-0000-0000-0000-000000000001</uuid>
<memory>65536</memory><os><type>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd></os>
<devices/></domain></node>"""
SOON_S = 10.0


class Silence:
    """What hangs when it is asked of `names`, until it is let go."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked, self.ends = names, threading.Event(), threading.Event()

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if str(given[0]).startswith(self.names):
                self.asked.set()
                assert self.ends.wait(60)
            return real(*given, **named)

        return call


@pytest.fixture
def silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    one = Silence(str(tmp_path / "dead"), "nobody.invalid")
    for name in ("stat", "lstat", "access"):
        monkeypatch.setattr(os, name, one.around(getattr(os, name)))
    monkeypatch.setattr(socket, "getaddrinfo", one.around(socket.getaddrinfo))
    yield one
    one.ends.set()


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LibvirtInventory]:
    """A host with one VM: its kernel is on a dead file system, its initial RAM disk is not."""
    monkeypatch.setattr(host, "EventHub", Mock())  # the test driver has no keep-alives
    monkeypatch.setattr(connection, "open_connection", libvirt.open)
    monkeypatch.setattr(inventory, "refusals_of", lambda *_: [])
    (tmp_path / "initrd").write_text("initrd")
    node = NODE.format(kernel=tmp_path / "dead" / "kernel", initrd=tmp_path / "initrd")
    (tmp_path / "node.xml").write_text(node)
    one = LibvirtInventory(f"test://{tmp_path}/node.xml")
    yield one
    one.close()


def vm(*references: Reference) -> Vm:
    facts: dict[str, Any] = {
        "name": "db",
        "state": "running",
        "memory_bytes": 1 << 26,
        "vcpus": 1,
        "references": references,
    }
    return Vm(uuid="00000000-0000-0000-0000-000000000002", **facts)


def names(kind: Kind, name: str, **more: Any) -> Reference:
    return Reference(kind=kind, name=name, where="it", **more)


async def meanwhile(silence: Silence, here: LibvirtInventory, hanging: asyncio.Task[Any]) -> None:
    """libvirt answers about the host and about its VMs."""
    async with asyncio.timeout(SOON_S):
        while not silence.asked.is_set():  # noqa: ASYNC110 - a thread tells nobody
            await asyncio.sleep(0.01)
        assert [each.name for each in await here.vms()] == ["web"]
        assert len(await here.claims()) == 2
        assert await here.check_incoming(vm()) == []
    assert not hanging.done()


@pytest.mark.parametrize("kind", [Kind.OUTPUT, Kind.FILE, Kind.DEVICE, Kind.ARGUMENT])
async def test_a_dead_path_fails_the_check_that_looks_at_it_with_its_name(
    kind: Kind, silence: Silence, here: LibvirtInventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = vm(names(kind, str(tmp_path / "dead" / "file")), names(Kind.FILE, str(tmp_path / "initrd")))
    checking = asyncio.create_task(here.check_incoming(wanted))
    await meanwhile(silence, here, checking)
    checking.cancel()
    monkeypatch.setattr(looks, "LOOK_S", 0.5)
    failed = await asyncio.gather(
        *(here.check_incoming(wanted) for _ in range(MOST_STUCK + 2)), return_exceptions=True
    )
    for error in failed:
        assert isinstance(error, Temporary)
        assert error.message.startswith(f"{tmp_path}/dead/file: the file system does not answer")
    async with asyncio.timeout(SOON_S):
        assert [each.name for each in await here.vms()] == ["web"]


async def test_an_emulator_on_a_dead_file_system(
    silence: Silence, here: LibvirtInventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = str(tmp_path / "dead" / "qemu")
    wanted = vm().model_copy(update={"emulator": emulator})
    checking = asyncio.create_task(here.check_incoming(wanted))
    await meanwhile(silence, here, checking)
    checking.cancel()
    monkeypatch.setattr(looks, "LOOK_S", 0.5)
    with pytest.raises(Temporary, match=f"{emulator}: the file system does not answer"):
        await here.check_incoming(wanted)


@pytest.mark.parametrize("kind", [Kind.ADDRESS, Kind.PEER])
async def test_a_name_that_is_not_resolved_fails_the_check_that_asks_for_it(
    kind: Kind, silence: Silence, here: LibvirtInventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = vm(names(kind, "nobody.invalid", port=7))
    checking = asyncio.create_task(here.check_incoming(wanted))
    await meanwhile(silence, here, checking)
    checking.cancel()
    monkeypatch.setattr(looks, "LOOK_S", 0.5)
    with pytest.raises(Temporary, match=r"it: looking for nobody\.invalid: no answer"):
        await here.check_incoming(wanted)
    if kind is Kind.ADDRESS:
        with pytest.raises(Temporary, match=r"it: looking for nobody\.invalid: no answer"):
            await here.listens_for(wanted)


async def test_a_dead_path_on_the_source_is_said_to_the_destination(
    silence: Silence, here: LibvirtInventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else of the VM is told: a rollback that asks for its autostart needs nothing of a file."""
    reading = asyncio.create_task(here.vm("web"))
    await meanwhile(silence, here, reading)
    reading.cancel()
    monkeypatch.setattr(looks, "LOOK_S", 2.0)
    async with asyncio.timeout(SOON_S):
        found = await here.vm("web")
    dead, alive = found.references
    assert dead.silent and dead.thing is None
    assert not alive.silent and alive.thing is not None and alive.thing.form is Form.FILE
    refused = await here.check_incoming(vm(*found.references))
    assert [refusal.code for refusal in refused] == ["path-silent"]
    assert str(tmp_path / "dead" / "kernel") in refused[0].message


async def test_the_emulators_file_system_is_not_asked_on_the_event_loop(
    silence: Silence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_LOOK_S", 0.05)
    async with asyncio.timeout(SOON_S):
        assert await schema.Schemas().has_zstd(str(tmp_path / "dead" / "qemu")) is None


async def test_nor_is_that_of_the_certificates(
    silence: Silence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Certificates(folder=tmp_path / "dead" / "pki", verify=True)
    monkeypatch.setattr(certificates, "of_migration", lambda: told)
    monkeypatch.setattr(abilities, "_LOOK_S", 0.05)
    async with asyncio.timeout(SOON_S):
        assert await abilities._has_certificates() is False
    assert silence.asked.is_set()


@pytest.mark.parametrize("what", ["claims", "check_incoming"])
async def test_a_pass_over_all_definitions_holds_up_no_list(
    what: str, here: LibvirtInventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for guests that are being started, or that another call holds."""
    began, ends = threading.Event(), threading.Event()

    def slow(*_: Any) -> Iterator[str]:
        began.set()
        assert ends.wait(60)
        yield "<domain/>"

    for module in (claims, resources):
        monkeypatch.setattr(module, "definitions", slow)
    asked = here.claims() if what == "claims" else here.check_incoming(vm(names(Kind.SOCKET, "/run/x.sock")))
    asking = asyncio.create_task(asked)
    try:
        assert await asyncio.to_thread(began.wait, SOON_S)
        async with asyncio.timeout(SOON_S):
            assert [each.name for each in await here.vms()] == ["web"]
    finally:
        ends.set()
    await asking
