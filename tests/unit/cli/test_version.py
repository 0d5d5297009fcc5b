"""`sterna --version`."""

from __future__ import annotations

from importlib.metadata import version

from typer.testing import CliRunner

from sterna.cli.main import app
from tests.unit.cli.reading import document

from .served import Served


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"sterna {version('sterna')}\n")


def test_the_versions_of_a_fleet(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    own = version("sterna")
    fleet.run(_reported(fleet, "b", "0.0.9"))
    found = document(sterna("version", "--fleet", "--json", "--api", f"{fleet.api},http://127.0.0.1:9"))
    assert found["command"] == own
    assert [one["version"] for one in found["controllers"]] == [own, None]
    assert [one["host"] for one in found["agents"]] == ["a", "b", "c"]
    assert found["agents"][1]["version"] == "0.0.9"
    shown = sterna("version", "--fleet")
    assert f"controller  {fleet.api}" in shown.stdout
    assert "versions are in use" in shown.stderr


async def _reported(fleet: Served, host: str, said: str) -> None:
    fleet.controller.registry._described[host].version = said


def test_without_a_fleet_nobody_is_asked(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("STERNA_API", "http://127.0.0.1:9")
    assert CliRunner().invoke(app, ["version"]).stdout == f"sterna {version('sterna')}\n"
    assert CliRunner().invoke(app, ["version", "--fleet"]).exit_code == 6
