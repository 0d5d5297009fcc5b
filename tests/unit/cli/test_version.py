"""`sterna --version`."""

from __future__ import annotations

from importlib.metadata import version

from typer.testing import CliRunner

from sterna.cli.main import app


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"sterna {version('sterna')}\n")
