"""What the programs that Sterna starts see of its environment: no password."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sterna
from sterna.adapters.libvirt.qemu import schema
from sterna.kit.command import run
from sterna.kit.environment import clean_environment
from tests.parsing import parse

SOURCE = Path(sterna.__file__).parent
STARTS = {"asyncio.create_subprocess_exec", "subprocess.run", "subprocess.Popen"}
SECRETS = {
    "STERNA_OPENSTACK__PASSWORD": "sesame",
    "STERNA_TOKEN": "sesame",
    "OS_PASSWORD": "sesame",
    "CREDENTIALS_DIRECTORY": "/run/credentials/sterna-agent.service",
}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


async def test_a_command_sees_no_secret_and_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/var/lib/sterna")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    done = await run(["env"], limit_s=10, env={"TGT_IPC_SOCKET": "/run/tgtd.socket"})
    seen = dict(line.split("=", 1) for line in done.out.splitlines())
    assert "sesame" not in done.out and not seen.keys() & {*SECRETS, "LANG", "LANGUAGE"}
    assert seen["HOME"] == "/var/lib/sterna" and seen["LC_ALL"] == "C.UTF-8" and seen["PATH"]
    assert seen["TGT_IPC_SOCKET"] == "/run/tgtd.socket"


def test_nor_does_a_qemu_that_is_asked_what_it_can(tmp_path: Path) -> None:
    emulator = tmp_path / "qemu"
    emulator.write_text(f"#!/bin/sh\nread asked\nenv > {tmp_path}/seen\n")
    emulator.chmod(0o755)
    with pytest.raises(ValueError, match="ended without"):
        schema._schema(str(emulator))
    assert "sesame" not in (tmp_path / "seen").read_text()


def test_without_a_path_there_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    assert "/usr/sbin" in clean_environment()["PATH"].split(":")


def test_every_program_is_started_with_an_environment_of_its_own() -> None:
    """Only the lab's, which is for tests, inherit it."""
    without = []
    for file in sorted(SOURCE.rglob("*.py")):
        if "lab" in file.relative_to(SOURCE).parts:
            continue
        for node in ast.walk(parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in STARTS:
                without += [str(file)] if not any(word.arg == "env" for word in node.keywords) else []
    assert without == []
