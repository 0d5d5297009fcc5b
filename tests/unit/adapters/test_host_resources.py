"""What this host has, as its kernel shows it: sockets of this test, files, addresses."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.host import open_files, resources
from sterna.domain.references import Form, Thing

NOBODYS = "192.0.2.231"
"""An address of the range for documentation."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


def test_a_port_is_taken_as_long_as_somebody_listens(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert resources.bindable("127.0.0.1", port) == "port"
    assert resources.bindable("0.0.0.0", port) == "port"
    assert resources.bindable("127.0.0.1", port, udp=True) == ""
    assert resources.reaches("127.0.0.1", port)
    listener.close()
    assert resources.bindable("127.0.0.1", port) == ""
    assert not resources.reaches("127.0.0.1", port)


def test_two_looks_at_a_port_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many guests are judged at once, each in threads of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    bound, go, found = threading.Event(), threading.Event(), []

    class Slow(socket.socket):
        def bind(self, where: Any, /) -> None:
            super().bind(where)
            bound.set()
            assert go.wait(10)

    def look() -> None:
        found.append(resources.bindable("127.0.0.1", port, udp=True))

    monkeypatch.setattr(socket, "socket", Slow)
    looks = [threading.Thread(target=look), threading.Thread(target=look)]
    looks[0].start()
    assert bound.wait(10)
    looks[1].start()
    looks[1].join(0.2)
    go.set()
    for each in looks:
        each.join(10)
    assert found == ["", ""]


def test_an_address_that_is_not_here() -> None:
    assert resources.bindable(NOBODYS) == "address"
    assert resources.bindable("no.such.host.invalid") == "address"
    assert resources.bindable("127.0.0.1") == ""
    assert resources.bindable("") == ""


def test_looking_at_a_port_leaves_nothing_there() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    for _ in range(2):
        assert resources.bindable("127.0.0.1", port) == ""


def test_a_socket_without_a_listener_is_not_a_server(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)
        assert not resources.listening(path)
        one.listen()
        assert resources.listening(path)
    assert not resources.listening(path)


def test_what_a_path_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe.in")
    seen = resources.thing(str(tmp_path / "link"), digest=True)
    assert (seen.form, seen.size, bool(seen.digest)) == (Form.FILE, 7, True)
    assert resources.thing(str(tmp_path / "file")).digest is None
    assert resources.thing(str(tmp_path)).form is Form.FOLDER
    assert resources.thing(str(tmp_path / "pipe")).form is Form.PIPE
    assert resources.thing("/dev/null").form is Form.DEVICE
    assert resources.thing(str(tmp_path / "nothing")) == Thing()
    assert not resources.thing(str(tmp_path / "no" / "folder")).folder


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    before = resources.thing(str(file), digest=True).digest
    file.write_text("another")
    assert resources.thing(str(file), digest=True).digest != before


def test_how_a_program_has_a_file_open(tmp_path: Path) -> None:
    (tmp_path / "read").write_text("")
    names = ("written", "read", "both", "twice")
    with (
        open(tmp_path / "written", "w"),
        open(tmp_path / "read"),
        open(tmp_path / "both", "w+"),
        open(tmp_path / "twice", "w"),
        open(tmp_path / "twice"),
    ):
        modes = [open_files.access(str(tmp_path / name), os.getpid()) for name in names]
    assert modes == [os.O_WRONLY, os.O_RDONLY, os.O_RDWR, os.O_RDWR]
    assert open_files.access(str(tmp_path / "written"), os.getpid()) is None
    assert open_files.access(str(tmp_path / "nothing"), os.getpid()) is None
    assert open_files.access(str(tmp_path / "written"), 2**22 + 1) is None  # no such process


def test_a_file_that_a_program_still_writes_under_a_name_that_another_one_has(tmp_path: Path) -> None:
    with open(tmp_path / "disk", "w+"):
        (tmp_path / "new").write_text("another")
        (tmp_path / "new").rename(tmp_path / "disk")
        assert open_files.access(str(tmp_path / "disk"), os.getpid()) == os.O_RDWR
        (tmp_path / "disk").unlink()
        assert open_files.access(str(tmp_path / "disk"), os.getpid()) == os.O_RDWR


@pytest.mark.parametrize("how", ["moved over", "moved away", "written anew"])
def test_a_file_that_another_one_has_taken_the_place_of(tmp_path: Path, how: str) -> None:
    disk, new = tmp_path / "disk", tmp_path / "new"
    with open(disk, "w+"):
        assert not open_files.is_another(str(disk), os.getpid())
        (tmp_path / "link").symlink_to(disk)
        assert not open_files.is_another(str(tmp_path / "link"), os.getpid())
        new.write_text("another")
        if how == "moved over":
            new.rename(disk)
        elif how == "moved away":
            disk.rename(tmp_path / "old")
            new.rename(disk)
        else:
            disk.write_text("another")  # the same file, with other content
        replaced = how != "written anew"
        assert open_files.is_another(str(disk), os.getpid()) is replaced
        assert open_files.is_another(str(tmp_path / "link"), os.getpid()) is replaced
        disk.unlink()
        assert not open_files.is_another(str(disk), os.getpid())  # nothing took its place
    assert not open_files.is_another(str(tmp_path / "link"), 2**22 + 1)  # no such process


def test_nothing_is_asked_of_another_file_or_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be on a file system that does not answer: the one that was asked for would be blamed."""
    (tmp_path / "dead").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    asked, stat = [], os.stat

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            where = str(given[0])
            if "/proc/" in where and "/fd/" in where:
                where = os.readlink(where)
            asked.extend([where] if where.startswith(str(tmp_path / "dead")) else [])
            return real(*given, **named)

        return call

    with (
        open(tmp_path / "dead" / "disk", "w+"),
        open(tmp_path / "log", "w"),
        socket.socket(socket.AF_UNIX) as other,
        socket.socket(socket.AF_UNIX) as wanted,
    ):
        for one, where in ((other, tmp_path / "dead" / "other"), (wanted, tmp_path / "link" / "wanted")):
            one.bind(str(where))
            one.listen()
        monkeypatch.setattr(os, "stat", watched(stat))
        monkeypatch.setattr(os, "lstat", watched(os.lstat))
        assert open_files.access(str(tmp_path / "log"), os.getpid()) == os.O_WRONLY
        assert open_files.access(str(tmp_path / "real"), os.getpid()) is None
        assert resources.listening(str(tmp_path / "real" / "wanted"))
        assert resources.listening(str(tmp_path / "link" / "wanted"))
        assert not resources.listening(str(tmp_path / "real" / "none"))
    assert asked == []


def test_this_hosts_own_addresses_and_cpus() -> None:
    assert "127.0.0.1" in resources.addresses_in("127.0.0.0/8")
    assert resources.network_of("127.0.0.1") == ""
    assert resources.network_of(NOBODYS) == ""
    assert len(resources.cpus()) == os.sysconf("SC_NPROCESSORS_ONLN")
    assert 0 in resources.nodes()
    assert resources.free_pages(4, frozenset()) is None
