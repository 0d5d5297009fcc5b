"""The agent's folder is its own: journals, locks and settings of tests are nobody else's to read or write."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from sterna.adapters.files.state_dir import LEAST_BYTES, StateDir
from sterna.adapters.files.storage import FileStorage
from sterna.adapters.sql.journal import SqlJournal
from sterna.agent.faults import FaultFile
from sterna.bootstrap.state_folder import alone_in
from sterna.domain.errors import Permanent, Temporary
from sterna.domain.files import Created


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_state_dir_is_the_agents_alone(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        with alone_in(tmp_path / "new" / "state"):
            assert mode(tmp_path / "new" / "state") == 0o700
            assert mode(tmp_path / "new" / "state" / "agent.lock") == 0o600
    finally:
        os.umask(old)


def test_an_existing_one_is_tightened_and_that_is_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o755)
    for name in ("journal.db", "journal.db-wal"):
        (folder / name).write_text("")
        (folder / name).chmod(0o644)
    (folder / "elsewhere").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_text("")
    (tmp_path / "other").chmod(0o644)
    with alone_in(folder):
        assert mode(folder) == 0o700
        assert [mode(folder / n) for n in ("journal.db", "journal.db-wal", "agent.lock")] == [0o600] * 3
        assert mode(tmp_path / "other") == 0o644
    said = capsys.readouterr().out
    assert "state_dir" in said and "755" in said
    with alone_in(folder):
        pass
    assert capsys.readouterr().out == ""


async def test_a_vms_folder_can_be_entered_by_its_qemu_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        made = Created(directories=(str(tmp_path / "vm"),), files=())
        await FileStorage(tmp_path).reserve_targets(made, "m1")
    finally:
        os.umask(old)
    assert mode(tmp_path / "vm") == 0o755


async def test_a_fault_file_that_others_may_write_is_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('{"rules": [{"step": "P9", "moment": "before", "action": "permanent"}]}')
    path.chmod(0o666)
    await FaultFile(path).fault_hook("connect-volumes", "P9", "before")
    path.chmod(0o644)
    with pytest.raises(Permanent):
        await FaultFile(path).fault_hook("connect-volumes", "P9", "before")


async def test_a_folder_that_can_be_written_is_no_trouble_and_stays_as_it_was(tmp_path: Path) -> None:
    assert await StateDir(tmp_path).trouble() == ""
    assert os.listdir(tmp_path) == []


async def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_frsize, f_bavail, f_bfree = 1024, LEAST_BYTES // 1024 - 1, LEAST_BYTES // 1024 - 1

    monkeypatch.setattr(os, "statvfs", lambda _path: Full)
    assert f"{tmp_path} is full: 4095 KiB free" in await StateDir(tmp_path).trouble()


async def test_a_folder_that_is_gone_or_cannot_be_written_is_reported(tmp_path: Path) -> None:
    assert "cannot be written: No such file" in await StateDir(tmp_path / "gone").trouble()
    (tmp_path / ".writable").mkdir()  # as good as a read-only file system, for root as well
    assert "cannot be written: Is a directory" in await StateDir(tmp_path).trouble()


async def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_if_aborted = threading.Event()
    monkeypatch.setattr(os, "statvfs", lambda _path: raise_if_aborted.wait())
    try:
        assert "does not answer" in await StateDir(tmp_path, limit_s=0.05).trouble()
    finally:
        raise_if_aborted.set()


def test_a_journal_knows_whether_it_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqlJournal.at(path)
    journal.check_writable()
    (usual_ms,) = journal._db.execute("PRAGMA busy_timeout").fetchone()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Temporary, match="locked"):  # at once: an agent does nothing else while it waits
        journal.check_writable()
    other.execute("COMMIT")
    journal.check_writable()
    assert journal._db.execute("PRAGMA busy_timeout").fetchone()[0] == usual_ms != 0
    journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(Temporary, match="readonly"):
        journal.check_writable()
