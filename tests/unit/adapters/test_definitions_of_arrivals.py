"""The definition of a guest that is on its way here, or that another call holds: libvirt gives it to nobody, its
files have it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import libvirt
import pytest

from sterna.adapters.libvirt import definitions as module
from sterna.adapters.libvirt.definitions import Patience, definitions

STATUS = (
    "<domstatus state='paused'><monitor/><domain type='kvm'><name>tern</name><uuid>1</uuid></domain></domstatus>"
)
DEFINED = "<!-- by libvirt -->\n<domain type='kvm'><name>tern</name><uuid>1</uuid><title>next</title></domain>"
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

    def UUIDString(self) -> str:
        return "1"

    def controlInfo(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0]

    def isPersistent(self) -> bool:
        return self._persistent

    def isActive(self) -> bool:
        return True

    def XMLDesc(self, flags: int = 0) -> str:
        if self._state in ARRIVING:
            raise libvirt.libvirtError("cannot acquire state change lock")
        return "<domain><title>next</title></domain>" if flags else "<domain/>"


class Held(Domain):
    """Its QEMU hangs, and another call waits for it."""

    def controlInfo(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, 7000]

    def XMLDesc(self, flags: int = 0) -> str:
        raise AssertionError("libvirt was asked, and answers after 30 s")


class Busy(Domain):
    """It was taken in the moment before it was asked."""

    def XMLDesc(self, flags: int = 0) -> str:
        error = libvirt.libvirtError("cannot acquire state change lock")
        error.err = (
            libvirt.VIR_ERR_OPERATION_TIMEOUT,
            libvirt.VIR_FROM_QEMU,
            str(error),
            2,
            None,
            None,
            None,
            0,
            0,
        )
        raise error


class Reading:
    """One pass over domains, with files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._patience, self._folders = Patience(), (folder / "run", folder / "etc")

    def of(self, domain: Any) -> list[str]:
        return list(definitions(domain, self._patience, *self._folders))


def of(domain: Any, tmp_path: Path) -> list[str]:
    return Reading(tmp_path).of(domain)


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


RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)


@pytest.mark.parametrize("kind", [Held, Busy])
def test_of_one_that_another_call_holds(
    kind: type[Domain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both definitions: each may name a file that the other does not."""
    monkeypatch.setattr(module, "HELD_S", 0.1)
    (live,) = of(kind(RUNNING), tmp_path)
    assert "<uuid>1</uuid>" in live
    live, persistent = of(kind(RUNNING, persistent=True), tmp_path)
    assert "<title>" not in live and "<title>next</title>" in persistent


@pytest.mark.parametrize("missing", ["run", "etc"])
def test_where_only_one_of_its_files_says_something_nothing_is_known(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes half of its files for all of them removes one that it uses."""
    (tmp_path / missing / "tern.xml").unlink()
    with pytest.raises(libvirt.libvirtError):
        of(Busy(RUNNING, persistent=True), tmp_path)


@pytest.mark.parametrize(("folder", "text"), [("run", STATUS), ("etc", DEFINED)])
def test_files_of_another_guest_of_that_name_are_not_taken(folder: str, text: str, tmp_path: Path) -> None:
    (tmp_path / folder / "tern.xml").write_text(text.replace("<uuid>1<", "<uuid>2<"))
    with pytest.raises(libvirt.libvirtError):
        of(Busy(RUNNING, persistent=True), tmp_path)


def test_one_that_is_let_go_is_asked(tmp_path: Path) -> None:
    class LetGo(Domain):
        looks = 0

        def controlInfo(self) -> list[int]:
            self.looks += 1
            return [libvirt.VIR_DOMAIN_CONTROL_OCCUPIED if self.looks < 3 else libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0]

    assert of(LetGo(RUNNING), tmp_path) == ["<domain/>"]


def test_many_that_are_held_are_waited_for_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_S", 0.2)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) * 0.05)
    reading = Reading(tmp_path)
    assert len([reading.of(Held(RUNNING)) for _ in range(5)]) == 5
    assert sum(pauses) <= 0.2


def test_many_that_are_just_being_started_are_waited_for_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 s for each would be minutes for all of a host that starts."""
    (tmp_path / "run/tern.xml").unlink()
    looks: list[float] = []
    monkeypatch.setattr(time, "sleep", looks.append)
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    starting = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
    reading = Reading(tmp_path)
    assert [reading.of(Domain(starting)) for _ in range(5)] == [["<domain/>"]] * 5
    assert len(looks) <= module.STARTS_S


def test_libvirtds_own_notes_are_left_out(tmp_path: Path) -> None:
    """They name objects of QEMU by paths that look like files: no other guest may be refused one of that name."""
    private = "<privateData><qom name='/machine/peripheral/virtio-disk0/virtio-backend'/></privateData>"
    devices = f"<devices><disk type='file'>{private}<source file='/srv/a.img'/></disk></devices></domain>"
    (tmp_path / "run/tern.xml").write_text(STATUS.replace("</domain>", devices))
    (text,) = of(Domain(ARRIVING[0]), tmp_path)
    assert "/srv/a.img" in text and "/machine/" not in text
