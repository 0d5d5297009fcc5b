"""What the shell offers at a Tab."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from sterna import __main__  # noqa: F401 - its commands join those of the CLI
from sterna.cli import completion
from sterna.cli.main import app
from tests.unit.cli.reading import ID

from .served import Served

Tab = Callable[..., list[str]]


@pytest.fixture
def tab(fleet: Served, monkeypatch: pytest.MonkeyPatch) -> Tab:
    """`sterna WORD... <Tab>` in bash: the last word is the one that is completed."""
    monkeypatch.setenv("STERNA_API", fleet.api)
    monkeypatch.setenv("STERNA_TOKEN", fleet.token)

    def pressed(*words: str) -> list[str]:
        line = " ".join(("sterna", *words))
        bash = {"_STERNA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        answer = CliRunner().invoke(app, prog_name="sterna", env=bash)
        assert answer.stderr == ""
        return answer.stdout.split()

    return pressed


@pytest.mark.parametrize("words", [("migrate",), ("plan",), ("place",), ("vm", "show"), ("migrations", "--vm")])
def test_names_of_vms(tab: Tab, words: tuple[str, ...]) -> None:
    assert tab(*words, "we") == ["web1"]


@pytest.mark.parametrize(
    "words",
    [
        ("migrate", "web1", "--to"),
        ("host", "maintenance"),
        ("host", "declare-dead"),
        ("drain",),
        ("doctor",),
        ("rolling",),
        ("rebalance",),
        ("bring-back",),
        ("vms", "--host"),
        ("audit", "--host"),
        ("queue", "--host"),
    ],
)
def test_names_of_hosts(tab: Tab, words: tuple[str, ...]) -> None:
    assert tab(*words, '""') == ["a", "b", "c"]
    assert tab(*words, "b") == ["b"]


@pytest.mark.parametrize("command", ["show", "abort", "tune", "post-copy"])
def test_ids_of_migrations(tab: Tab, fleet: Served, command: str) -> None:
    assert CliRunner().invoke(app, ["migrate", "web1", "--to", "b", "--id", ID]).exit_code == 0
    assert tab(command, "333") == [ID]
    assert tab(command, "4") == []


def test_an_api_that_is_typed_is_the_one_that_is_asked(tab: Tab, fleet: Served, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("STERNA_API", "http://127.0.0.1:9")
    assert tab("migrate", "--api", fleet.api, "we") == ["web1"]


def test_nothing_is_offered_that_a_shell_would_carry_out(tab: Tab, fleet: Served) -> None:
    for number, name in enumerate(("web$(reboot)", "web;reboot", "web`x`", "web 2", "-web"), start=5):
        fleet.a.add_vm(name, number)
    assert tab("migrate", "web") == ["web1"]


@pytest.mark.parametrize("api", ["http://127.0.0.1:9", "nonsense", "unix:/none"])
def test_without_a_controller_nothing_is_offered_or_said(tab: Tab, monkeypatch, api: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("STERNA_API", api)
    assert tab("migrate", "web") == []


def test_a_controller_that_is_slow_is_not_waited_for(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "LIMIT_S", 0.05)
    monkeypatch.setattr(completion, "find_apis", lambda given: time.sleep(5))
    began = time.monotonic()
    assert tab("migrate", "web") == []
    assert time.monotonic() - began < 4
