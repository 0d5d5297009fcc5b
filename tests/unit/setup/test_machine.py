"""systemd, as systemctl answers for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.domain.errors import BadRequest, Permanent
from sterna.setup import machine
from sterna.setup.command import needing_libvirt
from sterna.setup.machine import Systemd, Unit, checked_by

SYSTEMCTL = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in
"cat --no-pager there") echo "[Service]"; echo "User=nobody"; echo "# a comment"; echo "User=me" ;;
"is-enabled there") echo enabled ;;
"is-active there") echo inactive; exit 3 ;;
"enable there" | "restart there" | daemon-reload) ;;
*) echo "no such unit" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(machine, "SYSTEMD", tmp_path)
    return tmp_path / "calls"


def test_a_unit_is_looked_at(calls: Path) -> None:
    found = Systemd().look("there")
    assert (found.there, found.enabled, found.active, found.user, found.dynamic) == (True, True, False, "me", False)
    assert Systemd().look("none") == Unit() and Unit().user == "root"
    assert Unit(text="DynamicUser = yes\n").dynamic and not Unit(text="DynamicUser=no").dynamic


def test_a_unit_is_enabled_and_started(calls: Path) -> None:
    Systemd().enable("there")
    Systemd().restart("there")
    Systemd().read_again()
    assert calls.read_text().splitlines() == ["enable there", "restart there", "daemon-reload"]
    with pytest.raises(Permanent, match="no such unit") as caught:
        Systemd().restart("none")
    assert "journalctl -u none" in caught.value.fix


def test_systemd_is_there_where_it_has_booted_the_machine(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Systemd().present()
    monkeypatch.setattr(machine, "SYSTEMD", calls / "none")
    assert not Systemd().present()


def test_what_a_program_says_against_a_file() -> None:
    assert checked_by(["/bin/sh", "-c", "echo bad >&2; exit 1"]) == "bad"
    assert checked_by(["/bin/true"]) == ""


def test_without_the_bindings_to_libvirt_the_package_is_named() -> None:
    with pytest.raises(BadRequest) as caught, needing_libvirt():
        raise ModuleNotFoundError("No module named 'libvirt'", name="libvirt")
    assert "sterna-agent" in caught.value.fix
    with pytest.raises(ModuleNotFoundError), needing_libvirt():
        raise ModuleNotFoundError("No module named 'other'", name="other")
