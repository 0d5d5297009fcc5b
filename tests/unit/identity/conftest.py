"""The commands as typed, over a CA in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sterna import __main__  # noqa: F401 - its commands join those of the CLI
from sterna.cli.main import app

from .commands import Run


@pytest.fixture
def sterna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("STERNA_CA", str(tmp_path / "ca"))
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: object, code: int = 0, typed: str | None = None) -> Result:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=typed)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def ca(sterna: Run) -> Run:
    """With a CA."""
    sterna("ca", "init")
    return sterna
