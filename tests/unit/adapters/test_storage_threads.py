"""No look at a file system on the event loop: a dead NFS server must hold up one thread, not the agent."""

import asyncio
import builtins
import contextlib
import errno
import fcntl
import gc
import os
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.files import hold, reach, storage
from sterna.adapters.files.storage import FileStorage
from sterna.adapters.files.usage import Place, Reach, users_of
from sterna.adapters.libvirt import shared_folders
from sterna.adapters.volumes.shared_file import SharedFileVolumes
from sterna.controller.intents.migrate_vm import CHECK_LONGEST_S
from sterna.domain.claims import Claim
from sterna.domain.errors import StorageSilent, Temporary
from sterna.domain.files import Created
from sterna.domain.model import Disk, DiskKind
from sterna.kit import mounts, threads

MIB = 1 << 20
CALLS = ("stat", "lstat", "open", "access", "statvfs", "listdir", "scandir", "mkdir", "unlink", "rmdir", "chmod")


class Watch:
    """Which calls on files below a folder ran in the loop's thread."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.loop = str(folder), threading.get_ident()
        self.on_loop: list[str] = []
        self.elsewhere = 0
        self.opened: set[int] = set()
        for name in CALLS:
            patch.setattr(os, name, self.watched(name, getattr(os, name)))
        patch.setattr(builtins, "open", self.watched("open", builtins.open))
        patch.setattr(os, "close", self.closing(os.close))

    def note(self, name: str, what: object) -> None:
        if threading.get_ident() == self.loop:
            self.on_loop.append(f"{name} {what}")
        else:
            self.elsewhere += 1

    def watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            below = named.get("dir_fd") is not None or str(given[0] if given else "").startswith(self.folder)
            if below:
                self.note(name, given[0])
            answer = real(*given, **named)
            if below and isinstance(answer, int) and name == "open":
                self.opened.add(answer)
            return answer

        return call

    def closing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def close(fd: int) -> None:
            if fd in self.opened:
                self.opened.discard(fd)
                self.note("close", fd)
            real(fd)

        return close


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "instances").mkdir()
    return tmp_path / "instances"


@pytest.fixture
def watch(tmp_path: Path, root: Path) -> Iterator[Watch]:
    (root / "shared.qcow2").write_bytes(b"content")
    (root / "uuid-here").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        yield Watch(tmp_path, patch)


def disk(path: Path | str, **more: object) -> Disk:
    facts: dict[str, object] = {"target": "vda", "kind": DiskKind.FILE, "path": str(path), "format": "raw"}
    facts |= {"capacity_bytes": 64 * MIB, "allocation_bytes": MIB, "local": True}
    return Disk.model_validate(facts | more)


async def held(files: FileStorage, path: str) -> None:
    async with files.held(path) as place:
        assert place is not None


async def held_in_vain(files: FileStorage, path: str) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with files.held(path):
            raise ZeroDivisionError


async def copies(files: FileStorage, root: Path) -> None:
    wanted = disk(root / "vm" / "disk"), disk(root / "vm" / "carried", carried=True)
    created = await files.plan_targets("vm", wanted)
    await files.create_targets(wanted, created)
    await files.create_targets(wanted[:1], created)
    await files.write(created.files[1], 0, b"piece")
    await files.remove(created)


LOOKS: dict[str, Callable[[FileStorage, Path], Any]] = {
    "check_targets": lambda files, root: files.check_targets((disk(root / "vm" / "disk"),)),
    "check_sources": lambda files, root: files.check_sources((disk(root / "shared.qcow2"),)),
    "copies": copies,
    "remove": lambda files, root: files.remove(Created(directories=(str(root / "uuid-here"),))),
    "directories_of": lambda files, root: files.directories_of("uuid-here"),
    "is_empty": lambda files, root: files.is_empty(str(root / "uuid-here")),
    "leave_token": lambda files, root: files.leave_token(str(root / "shared.qcow2"), "t1"),
    "sees_token": lambda files, root: files.sees_token(str(root / "shared.qcow2"), "t1"),
    "drop_token": lambda files, root: files.drop_token(str(root / "shared.qcow2"), "t1"),
    "tokens": lambda files, root: files.tokens(str(root / "shared.qcow2")),
    "sweep_tokens": lambda files, root: files.sweep_tokens(str(root / "shared.qcow2"), "t", frozenset()),
    "held": lambda files, root: held(files, str(root / "shared.qcow2")),
    "held in vain": lambda files, root: held_in_vain(files, str(root / "shared.qcow2")),
    "digest": lambda files, root: files.digest(str(root / "shared.qcow2")),
    "read": lambda files, root: files.read(str(root / "shared.qcow2"), 0, 4),
    "named_by": lambda files, root: files.named_by("shared.qcow2", "t1", (claim(root),)),
    "examine": lambda files, root: files.examine(disk(root / "shared.qcow2")),
    "identity": lambda files, root: files.identity(str(root / "shared.qcow2")),
    "used_by": lambda files, root: files.used_by((str(root / "shared.qcow2"),), (claim(root),), locks=True),
    "owner_of": lambda files, root: files.owner_of(str(root / "shared.qcow2")),
    "readable": lambda files, root: files.readable(str(root / "shared.qcow2")),
    "a shared disk": lambda files, root: SharedFileVolumes().check(disk(root / "shared.qcow2", local=False)),
}


def claim(root: Path) -> Claim:
    return Claim(path=str(root / "shared.qcow2"), owner="another VM")


@pytest.mark.parametrize("name", LOOKS)
async def test_files_are_looked_at_in_threads(name: str, watch: Watch, root: Path) -> None:
    await LOOKS[name](FileStorage(root), root)
    assert watch.on_loop == []
    assert watch.elsewhere


def is_free(path: Path) -> bool:
    """Does nobody hold any part of the file?"""
    with open(path, "rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


async def test_a_lock_is_given_up_in_a_thread_when_its_task_is_cancelled(watch: Watch, root: Path) -> None:
    path, inside = root / "shared.qcow2", asyncio.Event()

    async def hold_it() -> None:
        async with FileStorage(root).held(str(path)):
            assert not is_free(path)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold_it())
    await asyncio.wait_for(inside.wait(), 5)
    watch.on_loop.clear()  # by `is_free`
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert watch.on_loop == []
    assert is_free(path)


async def test_nor_does_a_lock_stay_that_is_taken_after_its_task_was_cancelled(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers late."""
    path, asked, answer, real = root / "shared.qcow2", threading.Event(), threading.Event(), hold._open
    path.write_bytes(b"content")
    opened = []

    def late(path: str) -> int | None:
        asked.set()
        assert answer.wait(10)
        opened.append(real(path))
        return opened[-1]

    async def hold_it() -> None:
        async with FileStorage(root).held(str(path)):
            raise AssertionError("never reached")

    monkeypatch.setattr(hold, "_open", late)
    task = asyncio.create_task(hold_it())
    assert await asyncio.to_thread(asked.wait, 5)
    task.cancel()
    for _ in range(10):  # the task comes to its end, or to where it waits for the thread
        await asyncio.sleep(0)
    answer.set()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert opened != [None]
    assert is_free(path)


async def test_a_server_that_does_not_take_the_lock_back_holds_up_nobody(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, answer, real = root / "shared.qcow2", threading.Event(), os.close
    path.write_bytes(b"content")
    in_time = []

    def hang(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(path):
            in_time.append(answer.wait(10))
        real(fd)

    monkeypatch.setattr(storage, "_GIVE_UP_S", 0.1, raising=False)
    monkeypatch.setattr(os, "close", hang)
    before = set(threading.enumerate())
    async with asyncio.timeout(5):
        await held(FileStorage(root), str(path))
    assert not answer.is_set()
    answer.set()
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join, 5)
    assert in_time == [True]
    assert is_free(path)


@pytest.fixture
async def none_left() -> AsyncIterator[None]:
    """No thread is left alone, before and afterwards."""
    for moment in ("before", "afterwards"):
        async with asyncio.timeout(10):
            while threads._Alone.left:  # noqa: ASYNC110 - a thread's end tells nobody
                await asyncio.sleep(0.01)
        if moment == "before":
            yield


async def test_a_lock_is_given_up_though_as_many_threads_hang_as_may(
    none_left: None, watch: Watch, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the loop's thread, nor by the garbage collector there."""
    path, held_up = root / "shared.qcow2", threading.Event()
    closed: list[str] = []
    real = os.close

    def closing(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(path):
            closed.append(threading.current_thread().name)
        real(fd)

    monkeypatch.setattr(threads, "MOST_LEFT", 1)
    async with asyncio.timeout(20):
        async with FileStorage(root).held(str(path)) as place:
            assert place is not None
            monkeypatch.setattr(os, "close", closing)
            with pytest.raises(Temporary, match="no answer"):
                await mounts.on_disk(held_up.wait, str(path), limit_s=0.05)
            with pytest.raises(Temporary, match="hang already"):
                await mounts.on_disk(held_up.wait, str(path), limit_s=0.05)
        gc.collect()
        assert closed == ["sterna-unlock"]
        assert watch.on_loop == []
        assert is_free(path)
    held_up.set()


@pytest.mark.parametrize("body", [None, ZeroDivisionError])
async def test_what_goes_wrong_in_giving_up_is_not_the_holders_business(
    root: Path, monkeypatch: pytest.MonkeyPatch, body: type[Exception] | None
) -> None:
    path, tried = root / "shared.qcow2", []
    path.write_bytes(b"content")

    def fails(lock: hold.Lock) -> None:
        tried.append(lock)
        raise OSError(errno.EIO, "the server lost it")

    monkeypatch.setattr(hold.Lock, "give_up", fails)
    with pytest.raises(body) if body else contextlib.nullcontext():
        async with FileStorage(root).held(str(path)) as place:
            assert place is not None
            if body:
                raise body
    assert len(tried) == 1
    tried[0]._held.close()


class Dead:
    """A file system whose server does not answer, and one beside it that lives."""

    def __init__(self, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        self.answers, self._patch = threading.Event(), patch
        self.dead, self.healthy = str(tmp_path / "dead mount"), str(tmp_path / "healthy")
        (tmp_path / "dead mount").mkdir()
        (tmp_path / "healthy").mkdir()
        self._table = tmp_path / "mountinfo"
        self.mounted(("0:50", self.dead), ("0:51", self.healthy))
        patch.setattr(mounts, "_MOUNTS", self._table)
        patch.setattr(mounts, "_leads_to", {})
        for name in ("stat", "lstat"):
            patch.setattr(os, name, self.hanging(getattr(os, name)))

    def mounted(self, *mounts: tuple[str, str]) -> None:
        """These devices, at these points."""
        table = "21 1 8:1 / / rw - ext4 /dev/sda rw\n"
        for device, point in mounts:
            escaped = point.replace(" ", "\\040")
            table += f"50 21 {device} / {escaped} rw - nfs4 server:/ rw\n"
        self._table.write_text(table)

    @contextlib.contextmanager
    def soon_given_up(self) -> Iterator[None]:
        with self._patch.context() as patch:
            patch.setattr(mounts, "ANSWER_S", 0.05)
            patch.setattr(storage, "LOOK_S", 0.05)
            patch.setattr(reach, "LOOK_S", 0.05)
            yield

    def hanging(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if str(given[0]).startswith(self.dead):
                assert self.answers.wait(20)
            return real(*given, **named)

        return call


@pytest.fixture
def dead(none_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dead]:
    one = Dead(tmp_path, monkeypatch)
    yield one
    one.answers.set()


async def test_a_dead_file_system_refuses_itself_and_no_other(
    dead: Dead, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    files = FileStorage(root)
    (Path(dead.healthy) / "disk").touch()
    for words in ("no answer", "no answer", "hang already", "hang already"):
        why = f"{dead.dead}/disk: the file system does not answer: .*{words}"
        with pytest.raises(Temporary, match=why), dead.soon_given_up():
            await files.owner_of(f"{dead.dead}/disk")
    assert await files.owner_of(f"{dead.healthy}/disk") is not None
    assert await files.is_empty(str(root / "vm")) is False
    with pytest.raises(Temporary, match="hang already"):
        await SharedFileVolumes().check(disk(f"{dead.dead}/disk", local=False))


ASKED_IN_CHECKS: dict[str, Callable[[FileStorage, str], Any]] = {
    "check_targets": lambda files, path: files.check_targets((disk(path),)),
    "check_sources": lambda files, path: files.check_sources((disk(path),)),
    "plan_targets": lambda files, path: files.plan_targets("vm", (disk(path),)),
    "directories_of": lambda files, path: files.directories_of("vm"),
    "is_empty": lambda files, path: files.is_empty(path),
    "leave_token": lambda files, path: files.leave_token(path, "t1"),
    "sight": lambda files, path: files.sight(path, "t1"),
    "tokens": lambda files, path: files.tokens(path),
    "sweep_tokens": lambda files, path: files.sweep_tokens(path, "t", frozenset()),
    "held": held,
    "examine": lambda files, path: files.examine(disk(path, format="qcow2")),
    "identity": lambda files, path: files.identity(path),
    "used_by": lambda files, path: files.used_by((path,), (), locks=True),
    "owner_of": lambda files, path: files.owner_of(path),
    "readable": lambda files, path: files.readable(path),
    "taken_for_local": lambda files, path: shared_folders.taken_for_local((path,), Path("/none")),
}


@pytest.mark.parametrize("name", ASKED_IN_CHECKS)
async def test_a_look_ends_before_whoever_waits_for_the_check_leaves(
    name: str, dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a change is another one, and is not reached here."""
    path = f"{dead.dead}/instances/disk"
    for module in (storage, reach, shared_folders):
        monkeypatch.setattr(module, "LOOK_S", 0.05, raising=False)
    with pytest.raises(StorageSilent, match=dead.dead) as silent:
        async with asyncio.timeout(5):
            await ASKED_IN_CHECKS[name](FileStorage(f"{dead.dead}/instances"), path)
    assert silent.value.fix
    assert mounts.LOOK_S + storage._DROP_S + reach.LOOK_S * len(reach._LANES) < CHECK_LONGEST_S


async def test_many_looks_in_a_row_at_a_dead_file_system_take_little_longer_than_one(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something hangs there already: an audit asks about each path of each VM."""
    monkeypatch.setattr(storage, "LOOK_S", 0.2)
    monkeypatch.setattr(mounts, "HURRY_S", 0.01)
    files = FileStorage(dead.healthy)
    for limit in ("0.2", "0.01", "0.01"):
        with pytest.raises(StorageSilent, match=f"no answer within {limit} s"):
            await files.tokens(f"{dead.dead}/disk")
    dead.answers.set()
    async with asyncio.timeout(10):
        while threads._Alone.left:  # noqa: ASYNC110 - a thread's end tells nobody
            await asyncio.sleep(0.01)
    dead.answers.clear()
    with pytest.raises(StorageSilent, match=r"no answer within 0\.2 s"):
        await files.tokens(f"{dead.dead}/disk")


def others(path: str | Path, **more: Any) -> Claim:
    return Claim(path=str(path), owner="another VM", **more)


async def test_nor_does_one_that_somebody_elses_file_is_on(
    dead: Dead, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often that is asked for, and whatever else of that VM's answers."""
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    files, wanted = FileStorage(root), str(root / "disk")
    (root / "disk").touch()
    claims = tuple(others(f"{dead.dead}/{name}") for name in ("a", "b", "disk"))
    with dead.soon_given_up():
        for _ in range(3):
            assert await files.used_by((wanted,), claims) == {}
        assert await files.used_by((wanted,), (*claims, others(wanted))) == {wanted: ("another VM",)}
    assert await files.owner_of(wanted) is not None


async def test_before_a_removal_it_counts_unless_it_was_seen_to_lead_elsewhere(dead: Dead, root: Path) -> None:
    """A link on it, or an image, may lead to the file."""
    files, wanted, there = FileStorage(root), str(root / "disk"), f"{dead.dead}/iso"
    (root / "disk").touch()
    with dead.soon_given_up():
        found = await files.used_by((wanted,), (others(there),), perhaps=True)
    assert found == {wanted: (f"perhaps another VM: {there} does not answer",)}
    dead.answers.set()
    assert await files.used_by((wanted,), (others(there),)) == {}
    dead.answers.clear()
    with dead.soon_given_up():
        assert await files.used_by((wanted,), (others(there),), perhaps=True) == {}
        as_an_image = (others(there, image=True, format="qcow2"),)
        assert await files.used_by((wanted,), as_an_image, perhaps=True)


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A soft mount of a server that does not answer: the kernel gives up, with an error."""
    folder = tmp_path / "soft"
    folder.mkdir()
    for name in ("stat", "lstat", "open"):
        real = getattr(os, name)

        def call(path: Any, *given: Any, _real: Callable[..., Any] = real, **named: Any) -> Any:
            if str(path).startswith(f"{folder}/"):
                raise OSError(errno.EIO, "Input/output error")
            return _real(path, *given, **named)

        monkeypatch.setattr(os, name, call)
    return str(folder)


async def test_an_error_of_a_file_system_is_not_taken_for_a_path_to_nothing(failing: str, root: Path) -> None:
    files, wanted = FileStorage(root), str(root / "disk")
    (root / "disk").touch()
    await files.leave_token(wanted, "t1")
    claims = (others(f"{failing}/disk"), others(f"{failing}/link"))
    says = [f"perhaps another VM: {claim.path} does not answer" for claim in claims]
    assert list((await files.used_by((wanted,), claims, perhaps=True))[wanted]) == says
    assert list(await files.named_by("disk", "t1", claims, perhaps=True)) == says
    for look in (files.sight(f"{failing}/disk", "t1"), files.identity(f"{failing}/disk")):
        with pytest.raises(StorageSilent, match=r"Input/output error"):
            await look
    with pytest.raises(StorageSilent, match=r"Input/output error"):
        await files.used_by((f"{failing}/disk",), ())


async def test_what_the_last_look_found_still_counts(dead: Dead, root: Path) -> None:
    files, wanted, link = FileStorage(root), str(root / "disk"), f"{dead.dead}/link"
    dead.answers.set()
    (root / "disk").touch()
    os.symlink(wanted, link)
    assert await files.used_by((wanted,), (others(link),)) == {wanted: ("another VM",)}
    dead.answers.clear()
    with dead.soon_given_up():
        assert await files.used_by((wanted,), (others(link),)) == {wanted: ("another VM",)}


async def test_on_the_files_own_file_system_it_counts_for_a_check_too(dead: Dead, root: Path) -> None:
    """A hard link, perhaps."""
    beside, silent = f"{dead.healthy}/disk", others(f"{dead.dead}/other")
    (Path(dead.healthy) / "disk").touch()
    dead.mounted(("0:51", dead.dead), ("0:51", dead.healthy))
    with dead.soon_given_up():
        found = await FileStorage(root).used_by((beside,), (silent, others(f"{dead.healthy}/other")))
        assert found == {beside: (f"perhaps another VM: {silent.path} does not answer",)}


async def test_one_link_to_a_dead_file_system_hides_no_other_claim_beside_it(dead: Dead, root: Path) -> None:
    """Nobody knows where it leads before it was followed once."""
    wanted = str(root / "disk")
    (root / "disk").touch()
    (root / "hard").hardlink_to(wanted)
    names = [f"{n:02}" for n in range(20)]
    for name in names[:10]:
        (root / name).symlink_to(f"{dead.dead}/{name}")
    claims = tuple(others(root / name) for name in names)
    with dead.soon_given_up():
        assert await FileStorage(root).used_by((wanted,), claims) == {}
        mine = Claim(path=str(root / "hard"), owner="a third one")
        assert await FileStorage(root).used_by((wanted,), (*claims, mine)) == {wanted: ("a third one",)}


async def test_nor_does_one_that_only_an_images_header_names(
    dead: Dead, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base of another VM's image: nobody could tell before."""
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    files, image, wanted = FileStorage(root), root / "top.qcow2", str(root / "disk")
    base = f"{dead.dead}/base".encode()
    image.write_bytes(struct.pack(">4sIQI", b"QFI\xfb", 2, 72, len(base)).ljust(72, b"\0") + base)
    claims = (others(image, image=True, format="qcow2"),)
    (root / "disk").touch()
    with dead.soon_given_up():
        for _ in range(4):
            assert await files.used_by((wanted,), claims) == {}
        assert await files.used_by((str(image),), claims) == {str(image): ("another VM",)}
        found = await files.used_by((wanted,), claims, perhaps=True)
        assert found == {wanted: (f"perhaps another VM: {dead.dead}/base does not answer",)}
    assert await files.owner_of(str(image)) is not None
    dead.answers.set()
    async with asyncio.timeout(10):
        while threads._Alone.left:  # noqa: ASYNC110 - a thread's end tells nobody
            await asyncio.sleep(0.01)
    assert await files.used_by((wanted,), claims, perhaps=True) == {}


async def test_whoever_names_a_file_beside_a_token_is_found_past_a_dead_file_system(dead: Dead, root: Path) -> None:
    files, disk = FileStorage(root), str(root / "disk")
    (root / "disk").touch()
    await files.leave_token(disk, "t1")
    gone, namesake = others(f"{dead.dead}/iso"), others(f"{dead.dead}/disk")
    mine = Claim(path=disk, owner="mine")
    with dead.soon_given_up():
        assert await files.named_by("disk", "t1", (gone, namesake, mine)) == ("mine",)
        unknown = f"perhaps another VM: {gone.path} does not answer"
        assert await files.named_by("disk", "t1", (gone,), perhaps=True) == (unknown,)
    dead.answers.set()
    assert await files.named_by("disk", "t1", (gone, namesake), perhaps=True) == ()
    dead.answers.clear()
    with dead.soon_given_up():
        found = await files.named_by("disk", "t1", (gone, namesake), perhaps=True)
    assert found == (f"perhaps another VM: {namesake.path} does not answer",)


def test_a_folder_that_does_not_answer_may_be_shared_with_all_that_is_mounted_below_it() -> None:
    dead, healthy = mounts.Mount("0:50", "/srv", "nfs4"), mounts.Mount("0:51", "/srv/vms", "ext4")
    reached = [Reach(others(path), (), silent=path, mount=dead, before=()) for path in ("/srv/", "/srv/vm", "/")]
    file = Place("/srv/vms/disk", "/srv/vms/disk", "51:1", folder=False)
    assert users_of(file, healthy, reached, perhaps=False) == ("perhaps another VM: /srv/ does not answer",)


@pytest.mark.parametrize("asked", ["link/disk", "link/vm/disk", "file"])
async def test_one_behind_a_symbolic_link_is_known_once_it_was_followed(
    asked: str, dead: Dead, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MOST_LEFT", 2)
    files = FileStorage(root)
    (Path(dead.healthy) / "link").symlink_to(dead.dead)
    (Path(dead.healthy) / "file").symlink_to(f"{dead.dead}/disk")
    dead.answers.set()
    for name in ("link", "file"):
        await files.owner_of(f"{dead.healthy}/{name}")
    dead.answers.clear()
    for words in ("no answer", "no answer", "hang already"):
        with pytest.raises(Temporary, match=words), dead.soon_given_up():
            await files.owner_of(f"{dead.healthy}/{asked}")
    assert await files.owner_of(dead.healthy) is not None
    assert await files.owner_of(f"{dead.healthy}/disk") is None


def test_where_a_path_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda rw\n"
        "22 21 0:30 / /srv/a\\040b rw shared:1 - nfs4 server:/x rw\n"
        "23 21 0:31 / /srv rw - nfs4 server:/hidden rw\n"
        "24 21 0:32 / /srv rw - nfs4 server:/seen rw\n"
    )
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mountinfo")
    devices = {
        "/": "8:1",
        "/srv": "0:32",
        "/srvx": "8:1",
        "/srv/c/d": "0:32",
        "/srv/a b/c": "0:30",
        "/srv/../e": "8:1",
    }
    assert {path: mounts.mount_of(path).device for path in devices} == devices
    (tmp_path / "mountinfo").unlink()
    assert mounts.mount_of("/srv") == mounts.NOWHERE
