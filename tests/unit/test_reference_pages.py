"""The pages of docs/reference that are made from the code say what the code says now."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sterna.cli.exits import Exit
from sterna.config import AgentSettings, ControllerSettings
from sterna.domain.refusals import CATALOGUE
from sterna.domain.status import ALLOWED, FINAL, Status
from tests.unit.reference_pages import REFERENCE, cli, rest, settings
from tests.unit.refusals_page import refusals

ROOT = REFERENCE.parents[1]
MAKE = (
    "import json; from tests.unit.reference_pages import pages; "
    "print(json.dumps({str(path): text for path, text in pages().items()}))"
)


def made_now() -> dict[Path, str]:
    """By a process of its own, as `make reference` does: what other tests import changes descriptions of fields."""
    said = subprocess.run([sys.executable, "-c", MAKE], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {Path(path): text for path, text in json.loads(said).items()}


PAGES = made_now()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_is_up_to_date(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == PAGES[page], "run `make reference`"


def test_every_command_has_its_options() -> None:
    page = cli()
    assert "## sterna host declare-dead" in page
    assert "## sterna lab vm create" in page
    assert "| `--finish-within` `TIME` |" in page
    assert "| `--on`, `--off` |" in page


def test_every_operation_has_its_answers() -> None:
    page = rest()
    assert "### POST /v1/migrations/{id}/tune" in page
    assert "Request body: [TuneIn](#tunein)" in page
    assert "### Problem" in page


def test_every_setting_says_what_it_is() -> None:
    for model in (AgentSettings, ControllerSettings):
        rows = [line for line in settings(model).splitlines() if line.startswith("| `")]
        assert rows
        empty = [row.split("|")[1].strip() for row in rows if not row.split("|")[-2].strip()]
        assert empty == []


def test_every_refusal_has_a_row() -> None:
    rows = [line.strip("| ").split(" | ") for line in refusals().splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == list(CATALOGUE)
    assert {len(row) for row in rows} == {4}
    assert all(all(row) for row in rows)


CODES = re.compile(r"`([a-z]+(?:-[a-z0-9]+)+)`")


@pytest.mark.parametrize("page", sorted(REFERENCE.parent.rglob("*.md")), ids=lambda page: page.name)
def test_a_column_of_codes_has_codes_of_the_catalogue(page: Path) -> None:
    unknown, place = set(), None
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 3:
            place = None
        elif place is None:
            place = next((n for n, cell in enumerate(cells) if cell.startswith("Code")), -1)
        elif place > 0:
            unknown |= {code for code in CODES.findall(cells[place]) if code not in CATALOGUE}
    assert unknown == set()


def _rows(name: str) -> list[list[str]]:
    lines = (REFERENCE / name).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_every_status_is_explained() -> None:
    rows = {row[0].strip("`"): row for row in _rows("statuses.md") if len(row) == 4}
    for status in Status:
        assert rows[status][1:3] == ["yes" if status in FINAL else "no", status.owner]
    picture = (REFERENCE / "statuses.svg").read_text(encoding="utf-8")
    assert [status for status in Status if f">{status}</text>" not in picture] == []


def test_every_transition_is_explained() -> None:
    every = {f"`{status}`" for status in Status}
    explained = {
        (old, new)
        for row in _rows("statuses.md")
        if len(row) == 3
        for old in (every if row[0] == "any status that is not final" else row[0].split(", "))
        for new in row[1].split(", ")
        if new in every
    }
    assert {(f"`{old}`", f"`{new}`") for old, new in ALLOWED} <= explained


def test_every_exit_code_is_explained() -> None:
    assert {row[0] for row in _rows("exit-codes.md")} >= {str(int(code)) for code in Exit}
