"""`sterna --help`: every command has its place in a section, and its whole summary."""

from __future__ import annotations

from typer import Typer
from typer.main import get_command
from typer.testing import CliRunner

from sterna import __main__ as program
from sterna.cli.main import app
from sterna.cli.sections import SECTIONS, Sections


def _commands() -> set[str]:
    program._mount_lab()
    return set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_command_is_listed_once() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(listed) == _commands()


def test_the_help_shows_them_by_section_in_80_columns() -> None:
    _commands()
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout
    titles = [line.removesuffix(":") for line in text.splitlines() if line.removesuffix(":") in SECTIONS]
    assert titles == list(SECTIONS)
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.split("Migrate a VM:")[1]
    rolling = " ".join(text.split("rolling ")[1].split("bring-back")[0].split())
    assert (
        rolling == "Maintain hosts wave by wave: drain them, have them upgraded or rebooted, and open them again."
    )


def test_a_command_without_a_section_is_listed_last() -> None:
    some = Typer(cls=Sections, rich_markup_mode=None)
    for name in ("abort", "another"):
        some.command(name=name)(lambda: None)
    text = CliRunner().invoke(some, ["--help"]).stdout
    assert text.index("Migrate a VM:") < text.index("abort") < text.index("Commands:") < text.index("another")
