"""`sterna token` and `sterna log`, and what those are told who may not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sterna.cli.exits import Exit
from sterna.cli.main import app
from sterna.domain.access import UserRole

from ..api.clients import TOKENS
from .served import Served, served

Sterna = Callable[..., Result]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Served]:
    with served() as one:
        yield one


@pytest.fixture
def sterna(fleet: Served, monkeypatch: pytest.MonkeyPatch) -> Sterna:
    monkeypatch.setenv("STERNA_API", fleet.api)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str, code: int = 0, token: str = TOKENS[UserRole.ADMIN]) -> Result:
        monkeypatch.setenv("STERNA_TOKEN", token)
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return invoke


def test_a_token_from_its_making_to_its_removal(sterna: Sterna) -> None:
    made = sterna("token", "create", "ci", "--role", "viewer", "--days", "1")
    token = made.stdout.strip()
    assert re.fullmatch(r"sterna_[0-9a-f]{12}_[\w-]{43}", token), "nothing else is on stdout"
    assert "ci (viewer), valid until" in made.stderr
    sterna("hosts", token=token)
    listed = sterna("token", "list")
    assert re.search(r"^ci +viewer +20\d\d-.* token:admin *$", listed.stdout, re.M) and token not in listed.stdout
    assert json.loads(sterna("token", "list", "--json").stdout)["tokens"][0]["name"] == "ci"
    assert "removed ci (viewer)" in sterna("token", "remove", "ci").stdout
    assert "was removed" in sterna("hosts", token=token, code=Exit.DENIED).stderr
    sterna("token", "remove", "ci", code=Exit.NOT_FOUND)


def test_who_may_not_is_told_which_role_is_needed(sterna: Sterna) -> None:
    stderr = sterna("token", "list", token=TOKENS[UserRole.OPERATOR], code=Exit.DENIED).stderr
    assert "tokens needs the role admin; token:operator has the role operator" in stderr
    assert "fix: ask an administrator" in stderr
    stderr = sterna("hosts", token="wrong", code=Exit.DENIED).stderr
    assert "is unknown, or was removed" in stderr and "sterna token create" in stderr and "wrong" not in stderr


def test_the_log_shows_who_asked_for_what(sterna: Sterna) -> None:
    sterna("host", "maintenance", "b", token=TOKENS[UserRole.OPERATOR])
    sterna("host", "maintenance", "b", "--off", token=TOKENS[UserRole.OPERATOR])
    sterna("host", "declare-alive", "c", token=TOKENS[UserRole.OPERATOR], code=Exit.DENIED)
    line = r"^20\d\d-\S+ +token:operator +operator +127\.0\.0\.1 +"
    shown = sterna("log", "--actor", "token:operator").stdout
    assert re.search(line + r"maintenance +b +200 +\{\"maintenance\": false", shown, re.M)
    assert re.search(line + r"declare-alive +c +403", shown, re.M)
    newest = json.loads(sterna("log", "--limit", "1", "--json").stdout)
    assert [x["target"] for x in newest["lines"]] == ["c"]
    more = sterna("log", "--limit", "1")
    assert f"--cursor {newest['next_cursor']}" in more.stderr
    assert "declare-alive" not in sterna("log", "--action", "maintenance", "--target", "b").stdout
    sterna("log", "--action", "dance", code=Exit.REFUSED)
    sterna("log", token=TOKENS[UserRole.OPERATOR], code=Exit.DENIED)


def test_a_migration_says_who_asked_for_it(sterna: Sterna) -> None:
    migration = json.loads(sterna("migrate", "web1", "--to", "b", "--json").stdout)
    assert migration["requested_by"] == "token:admin"
    shown = json.loads(sterna("show", migration["id"], "--json").stdout)
    assert shown["id"] == migration["id"]


def test_a_socket_that_one_may_not_open_is_told_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", denied)
    result = CliRunner().invoke(app, ["hosts", "--api", f"unix:{tmp_path}/api.sock"])
    assert result.exit_code == Exit.UNREACHABLE
    assert "usermod -aG sterna" in " ".join(result.stderr.split())
