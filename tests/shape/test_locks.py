"""The lock files: whole, in step with pyproject.toml and with each other, and without the address of an index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOGETHER = (
    "requirements.lock",
    "requirements-docs.lock",
    "requirements-browser.lock",
    "requirements-run.lock",
    "requirements-build.lock",
)
"""They go into one environment, or stand for parts of it."""
LOCKS = (*TOGETHER, "requirements-sbom.lock")
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)(?:\s*;[^\\]*)?\s*\\$")


def normal(name: str) -> str:
    """A package's name, as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, set[str]]:
    """The versions of each package; several where markers choose."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        if match := PIN.match(line):
            found.setdefault(normal(match[1]), set()).add(match[2])
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|index-url|find-links|file:", text)
    for line in text.splitlines():
        assert not line or line.startswith(("#", "    #", "    --hash=sha256:")) or PIN.match(line), line


def test_the_locks_are_in_step_with_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    wanted = {"requirements.lock": [*project["project"]["dependencies"], *groups["dev"]]}
    for name in ("docs", "browser", "build", "sbom"):
        wanted[f"requirements-{name}.lock"] = groups[name]
    extras = project["project"]["optional-dependencies"].values()
    wanted["requirements-run.lock"] = [
        *project["project"]["dependencies"],
        *(line for one in extras for line in one),
    ]
    for lock, lines in wanted.items():
        names = {normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines}
        assert names - pins(lock).keys() == set(), f"{lock}: run `make lock`"


@pytest.mark.parametrize("lock", TOGETHER[1:])
def test_packages_of_two_locks_have_the_same_version(lock: str) -> None:
    one, other = pins(TOGETHER[0]), pins(lock)
    assert {name for name in one.keys() & other.keys() if not other[name] <= one[name]} == set()


def test_an_installation_has_nothing_that_the_tests_have_not() -> None:
    assert pins("requirements-run.lock").keys() - pins("requirements.lock").keys() == set()
