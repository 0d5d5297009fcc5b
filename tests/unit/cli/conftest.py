"""A served API, and the commands as typed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from sterna.cli.main import app

from .served import Served, served


@pytest.fixture
def fleet() -> Iterator[Served]:
    with served() as one:
        yield one


@pytest.fixture
def sterna(fleet: Served, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("STERNA_API", fleet.api)
    monkeypatch.setenv("STERNA_TOKEN", fleet.token)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str, code: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=input)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert "Traceback" not in result.output
        return result

    return invoke
