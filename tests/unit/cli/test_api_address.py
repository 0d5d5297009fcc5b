"""Where the commands find the API, and which token they send to whom."""

from __future__ import annotations

import os
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sterna.cli import api_address
from sterna.cli.api_address import DEFAULT_API, ApiAddress, find_apis
from sterna.cli.exits import Exit
from sterna.cli.main import app
from sterna.domain.errors import BadRequest

LAB = '{"controller_url": "http://127.0.0.1:5/", "controller_token": "of-the-lab"}'


def find_api(given: str | None) -> ApiAddress:
    """The only one."""
    (found,) = find_apis([given] if given else None)
    return found


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of settings."""
    for name in ("STERNA_API", "STERNA_TOKEN", "STERNA_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    own = tmp_path / "config" / "sterna"
    own.mkdir(parents=True)
    return own


@pytest.fixture
def here(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder two below `tmp_path`, and no lab in it."""
    here = tmp_path / "x" / "y"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    return here


def private(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_by_default_it_is_the_unix_socket(here: Path) -> None:
    assert find_api(None) == ApiAddress(DEFAULT_API)


def test_a_lab_is_found_in_this_very_folder_only(here: Path) -> None:
    for folder in (here.parent.parent, here.parent):  # anybody may have made them
        private(folder / ".lab" / "lab.json", LAB)
    assert find_api(None) == ApiAddress(DEFAULT_API)
    private(here / ".lab" / "lab.json", LAB)
    assert find_api(None) == ApiAddress("http://127.0.0.1:5", "of-the-lab")


def test_a_lab_that_may_be_somebody_elses_is_none(here: Path) -> None:
    record = private(here / ".lab" / "lab.json", '{"controller_url": "http://127.0.0.1:5/"}')
    assert find_api(None) == ApiAddress("http://127.0.0.1:5")
    record.chmod(0o666)
    assert find_api(None) == ApiAddress(DEFAULT_API)
    record.chmod(0o644)
    os.chown(record, 65534, -1)
    assert find_api(None) == ApiAddress(DEFAULT_API)
    record.unlink()
    record.symlink_to(private(here.parent / "lab.json", LAB))
    assert find_api(None) == ApiAddress(DEFAULT_API)
    record.unlink()
    for text in ("not json", '{"controller_url": "file:///x"}', '{"controller_url": ["x"]}', "[]"):
        private(record, text)
        assert find_api(None) == ApiAddress(DEFAULT_API)


def test_the_order(here: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "cli.toml").write_text('api = "https://mine:8774/"\nca_file = "/etc/ca.pem"')
    assert find_api(None) == ApiAddress("https://mine:8774", None, "/etc/ca.pem")
    private(here / ".lab" / "lab.json", LAB)
    assert find_api(None).api == "http://127.0.0.1:5"
    monkeypatch.setenv("STERNA_API", "http://env")
    monkeypatch.setenv("STERNA_CA_FILE", "/env.pem")
    assert (
        find_api(None) == ApiAddress("http://env", None, "/env.pem")
        and find_api("http://given").api == "http://given"
    )


def test_a_token_is_in_the_environment_or_in_a_file_of_ones_own(
    here: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private(own / "token", "of-the-file\n")
    assert find_api("http://x").token == "of-the-file"
    assert find_api(None).token is None  # the kernel says who asks there
    monkeypatch.setenv("STERNA_TOKEN", "of-the-environment")
    assert find_api("http://x").token == find_api(None).token == "of-the-environment"
    private(here / ".lab" / "lab.json", LAB)
    assert find_api(None).token == "of-the-lab"  # no other one is sent there


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_token_that_others_can_read_is_refused_with_what_mends_it(here: Path, own: Path, mode: int) -> None:
    path = private(own / "token", "of-the-file")
    path.chmod(mode)
    with pytest.raises(BadRequest) as caught:
        find_api("http://x")
    assert caught.value.fix == f"chmod 600 {path}" and "of-the-file" not in caught.value.message
    told = CliRunner().invoke(app, ["hosts", "--api", "http://127.0.0.1:9"])
    assert told.exit_code == Exit.USAGE and f"fix: chmod 600 {path}" in told.stderr.replace("\n", "")
    path.chmod(0o600)
    lab = private(here / ".lab" / "lab.json", LAB)
    lab.chmod(0o644)
    with pytest.raises(BadRequest, match=r"lab\.json"):
        find_api(None)


@pytest.mark.parametrize("text", ["", "two words", "two\nlines", "\u00e9", "x" * 5000])
def test_what_is_no_token_is_not_sent(here: Path, own: Path, text: str) -> None:
    private(own / "token", text)
    with pytest.raises(BadRequest, match="not contain a valid token"):
        find_api("http://x")


@pytest.mark.parametrize("which", ["cli.toml", "token", "lab.json", "ca.pem"])
def test_a_file_whose_disk_does_not_answer_is_named_and_not_taken_for_missing(
    own: Path, here: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the file, another API or another user might be meant."""
    held, api = threading.Event(), "https://127.0.0.1:9"
    private(own / "cli.toml", f'api = "{api}"\nca_file = "{own / "ca.pem"}"')
    private(own / "token", "mine")
    usual = os.open, ssl.create_default_context

    def hangs(path: Path | str, *more: Any, **named: Any) -> int:
        if Path(path).name == which:
            held.wait(30)
        return usual[0](path, *more, **named)

    def hanging(cafile: str) -> ssl.SSLContext:
        held.wait(30)
        return usual[1](cafile=cafile)

    monkeypatch.setattr(api_address, "FILES_S", 0.1)
    monkeypatch.setattr(os, "open", hangs)
    monkeypatch.setattr(ssl, "create_default_context", hanging)
    try:
        said = CliRunner().invoke(app, ["hosts"])
    finally:
        held.set()
    assert said.exit_code == Exit.UNREACHABLE
    assert f"{which} cannot be read" in " ".join(said.stderr.split()) and "fix:" in said.stderr
