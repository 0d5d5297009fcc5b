"""The agent's folder is its own: journals, locks and settings of tests are nobody else's to read or write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sterna import bootstrap
from sterna.adapters.native.storage import FileStorage
from sterna.agent.faults import FaultFile
from sterna.domain.errors import Permanent
from sterna.ports.storage import Created


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_state_dir_is_the_agents_alone(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        with bootstrap.alone_in(tmp_path / "new" / "state"):
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
    with bootstrap.alone_in(folder):
        assert mode(folder) == 0o700
        assert [mode(folder / n) for n in ("journal.db", "journal.db-wal", "agent.lock")] == [0o600] * 3
        assert mode(tmp_path / "other") == 0o644
    said = capsys.readouterr().out
    assert "state_dir" in said and "755" in said
    with bootstrap.alone_in(folder):
        pass
    assert capsys.readouterr().out == ""


async def test_a_vms_folder_can_be_entered_by_its_qemu_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        made = Created(directories=(str(tmp_path / "vm"),), files=())
        await FileStorage(tmp_path).create_targets((), made)
    finally:
        os.umask(old)
    assert mode(tmp_path / "vm") == 0o755


async def test_a_fault_file_that_others_may_write_is_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('{"rules": [{"step": "P9", "moment": "before", "action": "permanent"}]}')
    path.chmod(0o666)
    await FaultFile(path).strike("connect-volumes", "P9", "before")
    path.chmod(0o644)
    with pytest.raises(Permanent):
        await FaultFile(path).strike("connect-volumes", "P9", "before")
