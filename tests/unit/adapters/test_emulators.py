"""libvirt runs what is named to it as an emulator: nothing that another host names and libvirt itself does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from sterna.adapters.libvirt import queries
from sterna.adapters.libvirt.emulators import is_known, of_definition
from sterna.adapters.libvirt.inventory import LibvirtInventory
from sterna.adapters.libvirt.session import host
from sterna.domain.errors import Permanent
from sterna.domain.model import GuestState, Vm

CPU = "<cpu mode='custom'><model>qemu64</model></cpu>"
DEFINITION = "<domain type='kvm'><devices><emulator>{}</emulator></devices></domain>"


class Libvirt:
    """It names one QEMU, and runs whatever it is asked about."""

    def __init__(self, qemu: Path) -> None:
        self.capabilities = (
            "<capabilities><guest><os_type>hvm</os_type><arch name='x86_64'>"
            f"<emulator>{qemu}</emulator><machine>pc</machine><domain type='kvm'/></arch></guest></capabilities>"
        )
        self.run = list[str]()

    def getCapabilities(self) -> str:
        return self.capabilities

    def getVersion(self) -> int:
        return 10_000_000

    def compareHypervisorCPU(self, emulator: str, *_: Any) -> None:
        self.run.append(emulator)

    def domainXMLToNative(self, _: str, xml: str, __: int) -> None:
        self.run.append(of_definition(xml))


@pytest.fixture
def qemu(tmp_path: Path) -> Path:
    """QEMU; `kvm` is another name for it, and `evil` is executable, too."""
    for name in ("qemu", "evil"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "kvm").symlink_to("qemu")
    return tmp_path / "qemu"


@pytest.fixture
def conn(qemu: Path) -> Libvirt:
    return Libvirt(qemu)


@pytest.fixture
async def here(conn: Libvirt, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LibvirtInventory]:
    monkeypatch.setattr(host, "EventHub", Mock())

    async def ask(_: Any, act: Callable[[Any], Any]) -> Any:
        return act(conn)

    monkeypatch.setattr(LibvirtInventory, "_ask", ask)
    one = LibvirtInventory("test:///default")
    yield one
    one.close()


def vm(emulator: Path | str) -> Vm:
    facts: dict[str, Any] = {"state": GuestState.RUNNING, "memory_bytes": 1 << 26, "vcpus": 1, "virt_type": "kvm"}
    return Vm(uuid="u", name="n", emulator=str(emulator), cpu_xml=CPU, **facts)


@pytest.mark.parametrize("name", ["qemu", "kvm"])
async def test_libvirts_own_emulator_by_any_of_its_names(
    name: str, qemu: Path, conn: Libvirt, here: LibvirtInventory
) -> None:
    emulator = qemu.parent / name
    assert await here.compare_cpu(vm(emulator), CPU) == []
    assert await here.check_definition(DEFINITION.format(emulator)) == []
    assert conn.run == [str(emulator)] * 2


async def test_another_program_is_not_run(qemu: Path, conn: Libvirt, here: LibvirtInventory) -> None:
    evil = qemu.parent / "evil"
    assert await here.compare_cpu(vm(evil), CPU) == []
    (refusal,) = await here.check_definition(DEFINITION.format(evil))
    assert refusal.code == "emulator-missing"
    hidden = f"{qemu}<!-- -->/../evil"
    assert [r.code for r in await here.check_definition(DEFINITION.format(hidden))] == ["emulator-missing"]
    assert conn.run == []


def test_nor_when_it_is_asked_who_may_come(qemu: Path, conn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_names_taken", lambda *_: [])
    assert queries.refusals_of(conn, vm(qemu).model_copy(update={"machine": "pc"}), str(qemu)) == []
    evil = str(qemu.parent / "evil")
    found = queries.refusals_of(conn, vm(evil).model_copy(update={"machine": "pc"}), evil)
    assert [r.code for r in found] == ["emulator-missing"]
    assert conn.run == [str(qemu)]


async def test_a_definition_that_names_none_gets_libvirts_own(conn: Libvirt, here: LibvirtInventory) -> None:
    assert await here.check_definition("<domain><devices/></domain>") == []
    assert conn.run == [""]


def test_what_libvirt_names(qemu: Path, conn: Libvirt) -> None:
    known = [is_known(str(name), str(target), conn.capabilities) for name, target in (
        ("", ""), (qemu, qemu), (qemu.parent / "kvm", qemu), (qemu.parent / "evil", qemu.parent / "evil"),
    )]  # fmt: skip
    assert known == [True, True, True, False]


def test_a_definition_names_one_emulator() -> None:
    with pytest.raises(Permanent):
        of_definition("<domain><devices><emulator>/a</emulator><emulator>/b</emulator></devices></domain>")
