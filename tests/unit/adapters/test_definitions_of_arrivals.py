"""The definition of a guest that is on its way here: libvirt gives it to nobody, its files have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from sterna.adapters.libvirt.definitions import definitions

STATUS = (
    "<domstatus state='paused'><monitor/><domain type='kvm'><name>tern</name><uuid>1</uuid></domain></domstatus>"
)
DEFINED = "<!-- by libvirt -->\n<domain type='kvm'><name>tern</name><title>next</title></domain>"
ARRIVING = [
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
]


class Domain:
    """As libvirt-python has it; its definition is refused while it arrives."""

    def __init__(self, state: tuple[int, int], *, persistent: bool = False) -> None:
        self._state, self._persistent = state, persistent

    def name(self) -> str:
        return "tern"

    def state(self) -> list[int]:
        return list(self._state)

    def isPersistent(self) -> bool:
        return self._persistent

    def isActive(self) -> bool:
        return True

    def XMLDesc(self, flags: int = 0) -> str:
        if self._state in ARRIVING:
            raise libvirt.libvirtError("cannot acquire state change lock")
        return "<domain><title>next</title></domain>" if flags else "<domain/>"


def of(domain: Any, tmp_path: Path) -> list[str]:
    return list(definitions(domain, tmp_path / "run", tmp_path / "etc"))


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for folder, text in (("run", STATUS), ("etc", DEFINED)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tern.xml").write_text(text)


@pytest.mark.parametrize("state", ARRIVING)
def test_of_a_guest_that_arrives(tmp_path: Path, state: tuple[int, int]) -> None:
    (live,) = of(Domain(state), tmp_path)
    assert live.startswith("<domain") and "<uuid>1</uuid>" in live
    live, persistent = of(Domain(state, persistent=True), tmp_path)
    assert "<uuid>1</uuid>" in live and "<title>next</title>" in persistent


@pytest.mark.parametrize(
    "first",
    [
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP),
    ],
)
def test_of_one_that_is_just_being_started(tmp_path: Path, first: tuple[int, int]) -> None:
    """It may be started to arrive: then whoever asks libvirt waits for all of the migration."""
    (tmp_path / "run/tern.xml").unlink()

    class Starting(Domain):
        looks = 0

        def state(self) -> list[int]:
            self.looks += 1
            if self.looks == 3:
                (tmp_path / "run/tern.xml").write_text(STATUS)
            return list(first if self.looks < 5 else ARRIVING[0])

        def XMLDesc(self, flags: int = 0) -> str:
            raise AssertionError("libvirt was asked")

    (live,) = of(Starting(first), tmp_path)
    assert "<uuid>1</uuid>" in live


def test_of_any_other_libvirt_is_asked(tmp_path: Path) -> None:
    running = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
    assert of(Domain(running), tmp_path) == ["<domain/>"]
    assert of(Domain(running, persistent=True), tmp_path)[1] == "<domain><title>next</title></domain>"


@pytest.mark.parametrize("text", [None, "", "<domstatus/>", "<domstatus><domain>"])
def test_where_the_files_do_not_say_libvirt_is_asked(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "run/tern.xml"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(libvirt.libvirtError):
        of(Domain(ARRIVING[0]), tmp_path)
