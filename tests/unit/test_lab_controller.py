"""The controller of a lab knows the lab's token, and the commands find it there."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sterna.cli.api_address import ApiAddress, find_apis
from sterna.lab.lab import Lab
from sterna.lab.namespaces import Namespaces
from sterna.lab.record import LabRecord, Process, load_record


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """One without hosts, whose controller runs beside the test."""
    started: list[subprocess.Popen[bytes]] = []

    def detach(_: Namespaces, argv: list[str], log: Path, **options: Any) -> None:
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as file:
            started.append(subprocess.Popen(argv, stderr=file, **options))

    monkeypatch.setattr(Namespaces, "detach", detach)
    monkeypatch.setattr("sterna.lab.controllers.NATS_URL", "nats://127.0.0.1:9")
    state = tmp_path / ".lab"
    state.mkdir()
    yield Lab(state, LabRecord(outer=Process(pid=os.getpid(), started=0, boot="")))
    for process in started:
        process.kill()
        process.wait()


def test_a_lab_s_controller_knows_its_token(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = lab.start_controller()
    lab.wait_ready()
    assert httpx2.get(f"{url}/v1/hosts", **lab.api_access, timeout=60, trust_env=False).status_code == 200
    assert httpx2.get(f"{url}/v1/hosts", timeout=60, trust_env=False).status_code == 401
    monkeypatch.delenv("STERNA_API", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_apis() == (ApiAddress(url, lab.controller_token),)


def test_the_token_stays_and_is_not_for_others(lab: Lab) -> None:
    lab.start_controller()
    token = lab.controller_token
    lab.start_controller(2)
    known = load_record(lab.state_dir)
    assert known is not None and known.controller_token == token == lab.controller_token
    assert stat.S_IMODE((lab.state_dir / "lab.json").stat().st_mode) == 0o600
    assert token not in (lab.state_dir / "controller.toml").read_text()
