"""`sterna agent doctor`, as typed on a host without an agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = """
host = "me"
state_dir = "{folder}"
instances_dir = "{folder}"
libvirt_uri = "qemu+unix:///system?socket={folder}/none"
[bus]
url = "nats://127.0.0.1:1"
[migration]
address = "192.0.2.1"
[network]
ovsdb = "unix:{folder}/none"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(SETTINGS.format(folder=tmp_path))
    return file


def typed(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sterna", "agent", "doctor", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_host_without_anything(settings: Path) -> None:
    done = typed("--config", settings, "--json")
    assert done.returncode == 11, done.stderr
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert {one["host"] for one in found.values()} == {"me"}
    wrong = {check for check, one in found.items() if one["level"] == "wrong"}
    assert wrong >= {"bus", "libvirt", "open-vswitch"} and all(found[check]["fix"] for check in wrong)
    assert found["address"]["level"] == "warning" and found["instances-dir"]["level"] in ("ok", "warning")
    assert "agent" not in found  # what libvirt cannot say is one line


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    done = typed("--config", tmp_path / "none.toml")
    assert done.returncode == 2 and "there is no settings file" in done.stderr and done.stdout == ""
