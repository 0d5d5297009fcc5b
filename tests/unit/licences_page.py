"""docs/reference/licences.md: the packages that an installation has, and their licences, from sbom.cdx.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.unit.markdown import MADE, cell

ROOT = Path(__file__).parents[2]
SBOM, LOCK = ROOT / "sbom.cdx.json", ROOT / "requirements-run.lock"

VENDOR = ROOT / "src/sterna/api/web/static/vendor/vendor.json"

ACCEPTED = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "LGPL-2.0-or-later",
    "LGPL-3.0-only",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "PSF-2.0",
}
"""What Sterna, under Apache-2.0, may be installed with: a library under LGPL or MPL is loaded, and not changed."""
READ_BY_US: Mapping[str, tuple[str, str]] = {
    "fixtures": ("Apache-2.0 OR BSD-3-Clause", 'its metadata say "Apache-2.0 or BSD"'),
    "Jinja2": ("BSD-3-Clause", 'its metadata say "BSD License"'),
    "libvirt-python": ("LGPL-2.0-or-later", "its metadata do not name it by its identifier"),
    "netaddr": ("BSD-3-Clause", 'its metadata say "BSD License"'),
    "qemu.qmp": ("LGPL-2.0-or-later", "its file legacy.py alone is under GPL-2.0-only: Sterna does not load it"),
    "sortedcontainers": ("Apache-2.0", 'its metadata say "Apache 2.0"'),
}
"""Where metadata do not say it in one identifier: what the package's own files say, and why it is here."""


def components() -> list[tuple[str, str, str]]:
    """Name, version and licence of each package, by name; '' where its metadata name none."""
    listed = json.loads(SBOM.read_text(encoding="utf-8"))["components"]
    found = [(one["name"], one["version"], _licence(one)) for one in listed]
    return sorted(found, key=lambda one: one[0].lower())


def _licence(component: Mapping[str, Any]) -> str:
    if component["name"] in READ_BY_US:
        return READ_BY_US[component["name"]][0]
    names = {_name(entry) for entry in component.get("licenses", ())} - {""}
    return " AND ".join(sorted(names))


def _name(entry: Mapping[str, Any]) -> str:
    """'' for a classifier: those that say more than the identifiers beside them are in READ_BY_US."""
    name = str(entry.get("expression") or entry["license"].get("id") or entry["license"].get("name"))
    return "" if name.startswith("License :: ") else name


def is_accepted(licence: str) -> bool:
    """May Sterna be installed with it? Of `A OR B` one is enough."""
    return any(all(part in ACCEPTED for part in one.split(" AND ")) for one in licence.split(" OR "))


def locked() -> dict[str, tuple[str, bool]]:
    """Each package of the lock by its normal name: its version, and whether every installation has it."""
    lines = re.findall(r"^([\w.-]+)==([^\s;\\]+)( ;)?", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return {normal(name): (version, not marker) for name, version, marker in lines}


def normal(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def page() -> str:
    """The page."""
    lines = [
        "# Licences",
        "",
        MADE,
        "",
        *_INTRODUCTION,
        "",
        "| Package | Version | Licence | |",
        "|---|---|---|---|",
    ]
    for name, version, licence in components():
        note = READ_BY_US.get(name, ("", ""))[1]
        lines.append(f"| {cell(name)} | {version} | {cell(licence)} | {cell(note)} |")
    lines += ["", "## In the pages of the web UI", "", *_PAGES, "", "| Package | Version | Licence | Files |"]
    lines.append("|---|---|---|---|")
    for one in vendored():
        files = ", ".join(f"`{file['name']}`" for file in one["files"])
        lines.append(f"| {cell(one['name'])} | {one['version']} | {cell(one['licence'])} | {files} |")
    return "\n".join(lines) + "\n"


def vendored() -> list[dict[str, Any]]:
    """The npm packages of which files are part of the source."""
    found: list[dict[str, Any]] = json.loads(VENDOR.read_text(encoding="utf-8"))
    return found


_PAGES = """
These files of npm packages are part of Sterna's source, unchanged, with the texts of their licences.
`src/sterna/api/web/static/vendor/vendor.json` has the hash of each, and that of the package it is from. A test
compares them.
""".strip().splitlines()

_INTRODUCTION = """
Sterna is licensed under Apache-2.0. This page lists the Python packages of an installation, including both
extras, with the licences in their metadata. `sbom.cdx.json` contains the same for programs (CycloneDX), with the
dependencies. The hashes of their files are in `requirements-run.lock`. `make sbom` writes the list again after a
change of the lock. The tests compare the two, and fail for a licence that has not been reviewed.

Debian's packages (QEMU, libvirt, Open vSwitch, nats-server, PostgreSQL) are separate programs, and not listed.
""".strip().splitlines()
