"""Files that another host or a definition names: what is opened, what is not, and what is read of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.files import file_lock, media, sharing_tokens, usage
from sterna.adapters.files.storage import FileStorage
from sterna.adapters.files.targets import against_backing
from sterna.adapters.host import resources
from sterna.adapters.volumes.shared_file import SharedFileVolumes
from sterna.domain.model import Disk, DiskKind
from sterna.kit import contents
from sterna.kit.opening import WrongKind, opened

KINDS = ("pipe", "device", "socket", "link to pipe", "link to device")


@pytest.fixture(params=KINDS)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """What is no file. The device is one that every user may open."""
    path, kind = tmp_path / "odd", request.param
    there = path if "link" not in kind else tmp_path / "there"
    with socket.socket(socket.AF_UNIX) as one:
        if "pipe" in kind:
            os.mkfifo(there)
        elif kind == "socket":
            one.bind(str(path))
        else:
            there = Path("/dev/zero")
        if there != path:
            path.symlink_to(there)
        yield path


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but files is opened, by whatever name: a look (O_PATH) opens nothing."""
    real, opened_things = os.open, []

    def watched(path: Any, flags: int, *more: Any, **named: Any) -> int:
        fd = real(path, flags, *more, **named)
        mode = os.fstat(fd).st_mode
        if not flags & os.O_PATH and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            opened_things.append(path)
        return fd

    monkeypatch.setattr(os, "open", watched)
    yield
    assert not opened_things


def disk(path: Path, **more: Any) -> Disk:
    return Disk.model_validate({"target": "vda", "kind": DiskKind.FILE, "path": str(path), "local": False} | more)


def _examined(path: Path) -> bool:
    return not usage.examine(disk(path, format="qcow2")).against


def _can_be_a_base(path: Path) -> bool:
    of = disk(path.parent / "x", format="qcow2", backing_path=str(path), backing_format="raw", backing_shared=True)
    return not against_backing(of)


async def _readable(path: Path) -> bool:
    return await FileStorage(path.parent).readable(str(path))


async def _shared(path: Path) -> bool:
    return not await SharedFileVolumes().check(disk(path), "host1")


USES: dict[str, Callable[[Path], Any]] = {
    "a medium's digest": lambda path: media.digest(str(path)),
    "a reference's digest": lambda path: resources.thing(str(path), digest=True).digest,
    "a lock of another host": lambda path: file_lock.is_held(str(path), file_lock.FIRST_PLACE),
    "a lock of a process here": lambda path: usage.locked([str(path)]),
    "an image's header": _examined,
    "a base": _can_be_a_base,
    "a file that P8 made": _readable,
    "a shared file": _shared,
}


@pytest.mark.parametrize("use", USES)
async def test_what_is_no_file_is_not_opened_and_holds_nothing_up(use: str, odd: Path, untouched: None) -> None:
    def look() -> Any:
        found = USES[use](odd)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    async with asyncio.timeout(20):
        assert not await asyncio.to_thread(look)


def test_a_token_that_is_no_file_is_none(odd: Path, untouched: None) -> None:
    """Whoever shares the folder may put there what they like, under the name of a token."""
    beside = odd.parent / "disk.qcow2"
    odd.rename(odd.parent / ".sterna-t")
    assert not sharing_tokens.sight(str(beside), "t").seen
    with pytest.raises(WrongKind):
        sharing_tokens.leave(str(beside), "t")


def test_a_token_with_other_bytes_is_none(tmp_path: Path) -> None:
    (tmp_path / ".sterna-t").write_bytes(b"\xff\xfe" * 1000)
    assert not sharing_tokens.sight(str(tmp_path / "disk"), "t").seen


def test_a_backing_file_that_is_a_device_is_not_opened(tmp_path: Path, untouched: None) -> None:
    """An image's header comes from whoever made the image."""
    image, name = tmp_path / "top.qcow2", b"/dev/zero"
    header = struct.pack(">4sIQI", b"QFI\xfb", 2, 72, len(name)).ljust(72, b"\0")
    image.write_bytes(header + name)
    found = usage.examine(disk(image, format="qcow2"))
    assert [refusal.code for refusal in found.against] == ["disk-chain-unknown"]


@pytest.fixture
def qemu_img(tmp_path: Path) -> Path:
    """One that says that it was run."""
    program = tmp_path / "qemu-img"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\nexit 1\n")
    program.chmod(0o755)
    return program


async def test_qemu_img_is_not_asked_about_images_for_which_it_opens_other_files(
    tmp_path: Path, qemu_img: Path
) -> None:
    """A VMDK's descriptor may name any file of the host, and so may the header of a qcow2 without data."""
    vmdk, qcow2 = tmp_path / "disk.vmdk", tmp_path / "disk.qcow2"
    vmdk.write_text('# Disk DescriptorFile\nRW 1 FLAT "/dev/zero" 0\n')
    qcow2.write_bytes(struct.pack(">4sI16xQ40xQ", b"QFI\xfb", 3, 1 << 20, 1 << 2))
    volumes = SharedFileVolumes(qemu_img=str(qemu_img))
    assert await volumes.check(disk(vmdk, format="vmdk", capacity_bytes=512), "host1") == []
    assert await volumes.check(disk(qcow2, format="qcow2", capacity_bytes=1 << 20), "host1") == []
    (another,) = await volumes.check(disk(qcow2, format="qcow2", capacity_bytes=2 << 20), "host1")
    assert "an image of 1048576 bytes here" in another.message
    assert not (tmp_path / "was-run").exists()
    assert await volumes.check(disk(qcow2, format="raw", capacity_bytes=1 << 20), "host1")
    assert (tmp_path / "was-run").exists()


def test_what_takes_the_place_of_a_file_after_the_look_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "file", os.fstat
    path.write_bytes(b"content")

    def swapped(fd: int) -> os.stat_result:
        seen = real(fd)
        if not path.is_symlink():
            path.unlink()
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to(tmp_path / "pipe")
        return seen

    monkeypatch.setattr(os, "fstat", swapped)
    with opened(path) as fd:
        assert os.read(fd, 100) == b"content"


def test_a_link_is_followed_only_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with opened(tmp_path / "link") as fd:
        assert os.read(fd, 100) == b"content"
    with pytest.raises(WrongKind, match="symbolic links"), opened(tmp_path / "link", links=False):
        pass
    with pytest.raises(IsADirectoryError), opened(tmp_path):
        pass


def test_a_file_that_never_ends_is_read_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "endless"
    path.write_bytes(b"content")
    read: list[int] = []

    def endless(fd: int, length: int) -> bytes:
        read.append(length)
        return b"x" * length

    monkeypatch.setattr(os, "read", endless)
    assert media.digest(str(path)) == hashlib.sha256(b"x" * 7).hexdigest()
    assert read == [7]


def test_one_that_is_shorter_than_it_says_has_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"content")
    monkeypatch.setattr(os, "read", lambda fd, length: b"")
    assert media.digest(str(path)) is None


@pytest.mark.parametrize("path", ["/proc/kmsg", "/proc/self/mem", "/proc/sys/kernel/hostname"])
def test_what_the_kernel_calls_a_file_is_not_opened(path: str) -> None:
    """To read the kernel's messages takes them from the program that logs them."""
    with pytest.raises(WrongKind, match="the kernel's own"), opened(path):
        pass
    assert media.digest(path) is None


def test_a_file_longer_than_any_medium_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(os, "read", lambda fd, length: pytest.fail("it is read"))
    assert media.digest(str(path)) is None


def test_it_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slow"
    path.write_bytes(b"content")
    monkeypatch.setattr(contents, "_LONGEST_S", 0.0)
    with pytest.raises(TimeoutError):
        contents.file_digest(str(path), most_bytes=100)


def test_a_turn_that_does_not_come_is_not_waited_for_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are being read hang, on a file system that does not answer."""
    path = tmp_path / "waits"
    path.write_bytes(b"content")
    nothing_free = threading.BoundedSemaphore(1)
    assert nothing_free.acquire(timeout=1)
    monkeypatch.setattr(contents, "_turns", {(path.stat().st_dev, False): nothing_free})
    monkeypatch.setattr(contents, "_LONGEST_S", 0.2)
    with pytest.raises(TimeoutError, match="not read within"):
        contents.file_digest(str(path), most_bytes=100)


def test_large_files_are_read_in_turn_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones do not wait for them."""
    monkeypatch.setattr(contents, "_SMALL_BYTES", 4)
    monkeypatch.setattr(contents, "_turns", {})
    real, go_on, under_way, reading = os.read, threading.Event(), [], threading.Semaphore(0)

    def slow(fd: int, length: int) -> bytes:
        if os.fstat(fd).st_size > 4 and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            under_way.append(os.readlink(f"/proc/self/fd/{fd}"))
            reading.release()
            assert go_on.wait(10)
        return real(fd, length)

    monkeypatch.setattr(os, "read", slow)
    names = ["a", "b", "c", "c", "c"]
    for name in {*names, "tiny"}:
        (tmp_path / name).write_bytes(name.encode() * (1 if name == "tiny" else 10))
    threads = [threading.Thread(target=media.digest, args=[str(tmp_path / name)]) for name in names]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert reading.acquire(timeout=10)
    assert media.digest(str(tmp_path / "tiny")) is not None
    assert len(under_way) == 2
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert media.digest(str(tmp_path / "c")) is not None and len(under_way) <= 4
