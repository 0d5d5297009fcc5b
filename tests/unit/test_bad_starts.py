"""What keeps a process from starting is said in one sentence with a fix, and nothing secret is said."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from sterna.adapters.stderr import log_to_stderr
from sterna.bootstrap.agent import run_agent
from sterna.bootstrap.process import bus_tls
from sterna.bootstrap.state_folder import alone_in
from sterna.config.bus import BusTls
from sterna.domain.errors import BadRequest


def test_a_state_dir_that_is_a_file(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'host = "a"\nstate_dir = "{config}"\n[migration]\naddress = "127.0.0.1"\n')
    with pytest.raises(BadRequest, match="state_dir") as caught:
        run_agent(config)
    assert caught.value.fix


def test_a_state_dir_nobody_can_make() -> None:
    with pytest.raises(BadRequest, match="/proc/no/such"), alone_in(Path("/proc/no/such")):
        pass


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"none\.pem") as caught:
        bus_tls(BusTls(ca_file=tmp_path / "none.pem"))
    assert "bus.tls" in caught.value.fix


def refused(tmp_path: Path, text: str, *more: str) -> str:
    """What the controller says before it gives up: one sentence and a fix, no traceback."""
    config = tmp_path / "controller.toml"
    config.write_text(f'{text}\n[bus]\nurl = "nats://127.0.0.1:9"\n')
    command = [sys.executable, "-m", "sterna", "controller", "--config", str(config), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (1, 2)
    assert "\n  fix: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "this is a bug" not in done.stderr
    return done.stderr


def test_databases_that_cannot_be_had(tmp_path: Path) -> None:
    assert "/proc/no" in refused(tmp_path, 'database = "sqlite:////proc/no/c.db"')
    assert "s3cret" not in refused(tmp_path, 'database = "nosuch://me:s3cret@10.0.0.1/x"')


def test_an_address_that_is_taken_and_a_socket_that_is_none(tmp_path: Path) -> None:
    database = f'database = "sqlite:///{tmp_path}/c.db"'
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = f'{database}\nlisten = "{address}"\naccess.socket = ""'
        assert address in refused(tmp_path, text)
    assert "--fd 777" in refused(tmp_path, database, "--fd", "777")


def test_a_traceback_in_the_log_shows_no_variables(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    password = "-".join(("s3cret", "in", "a", "frame"))
    try:
        raise RuntimeError(f"login failed, {len(password)} letters")
    except RuntimeError:
        structlog.get_logger("t").exception("failed")
    said = capsys.readouterr().err
    assert "RuntimeError: login failed" in said
    assert password not in said


def test_logs_as_json_are_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is in them: a name with a line break, a traceback."""
    log_to_stderr("info", "json")
    log = structlog.get_logger()
    log.info("status", vm="two\nlines", migration="m1")
    log.debug("not asked for")
    try:
        raise ValueError("x\ny")
    except ValueError:
        log.exception("failed")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("status", "info"), ("failed", "error")]
    assert lines[0]["vm"] == "two\nlines" and lines[0]["timestamp"].endswith("Z")
    assert "ValueError: x" in lines[1]["exception"]
