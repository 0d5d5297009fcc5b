"""The list of what an installation has is that of the lock, and every licence in it was looked at."""

from __future__ import annotations

import ast
import re

import pytest

from tests.parsing import parse
from tests.unit.licences_page import LOCK, READ_BY_US, ROOT, SBOM, components, is_accepted, locked, normal


def test_it_lists_what_is_locked() -> None:
    listed = {normal(name): version for name, version, _ in components()}
    pinned = locked()
    assert len(pinned) > 50
    assert {n: v for n, v in listed.items() if pinned.get(n, ("", False))[0] != v} == {}, "run `make sbom`"
    assert {n for n, (_, always) in pinned.items() if always} - listed.keys() == set(), "run `make sbom`"


def test_what_runs_is_what_is_tested() -> None:
    """The versions are those of the lock that the tests use, by the same hashes."""
    whole, part = ((ROOT / name).read_text(encoding="utf-8") for name in ("requirements.lock", LOCK.name))
    pins = re.compile(r"^([\w.-]+==\S+)[^#]*?((?:\s+--hash=\S+(?: \\)?)+)", re.MULTILINE)
    tested = {pin: set(re.findall(r"sha256:\w+", hashes)) for pin, hashes in pins.findall(whole)}
    runs = {pin: set(re.findall(r"sha256:\w+", hashes)) for pin, hashes in pins.findall(part)}
    assert len(runs) == len(locked()) and {pin for pin, found in runs.items() if tested.get(pin) != found} == set()


def test_every_licence_was_looked_at() -> None:
    assert [(name, licence) for name, _, licence in components() if not is_accepted(licence)] == []


@pytest.mark.parametrize(
    ("licence", "accepted"),
    [
        ("MIT", True),
        ("", False),
        ("GPL-2.0-only", False),
        ("GPL-2.0-or-later OR Apache-2.0", True),
        ("GPL-2.0-only AND MIT", False),
        ("MIT AND MPL-2.0", True),
    ],
)
def test_what_is_accepted(licence: str, accepted: bool) -> None:
    assert is_accepted(licence) is accepted


def test_what_was_read_by_hand_is_still_there() -> None:
    assert set(READ_BY_US) <= {name for name, _, _ in components()}


def test_nothing_under_gpl_is_loaded() -> None:
    """`qemu.qmp.legacy` is."""
    loaded = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                loaded |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                loaded |= {f"{node.module}.{name.name}" for name in node.names}
    assert any(name.startswith("qemu.qmp.") for name in loaded)
    assert not {name for name in loaded if name.startswith("qemu.qmp.legacy")}


def test_it_names_no_place() -> None:
    text = SBOM.read_text(encoding="utf-8")
    assert "://" not in text.replace('"$schema": "http://cyclonedx.org/schema/', "") and "/work" not in text
