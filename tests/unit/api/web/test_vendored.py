"""What comes from npm is what npm has, with its licence, and is named on the page of licences."""

from __future__ import annotations

import json
import re
from hashlib import sha256

import pytest

from sterna.api.web.assets import ADDRESSES, FOLDER
from tests.unit.api.web.browser import Browser
from tests.unit.licences_page import is_accepted, vendored

VENDOR = FOLDER / "vendor"


def test_each_file_is_what_it_was() -> None:
    listed = {one["name"]: one["sha256"] for package in vendored() for one in package["files"]}
    there = {p.name: sha256(p.read_bytes()).hexdigest() for p in VENDOR.iterdir() if p.name != "vendor.json"}
    assert there == listed


def test_each_package_has_a_version_a_licence_and_its_text() -> None:
    for package in vendored():
        assert is_accepted(package["licence"]) and package["integrity"].startswith("sha512-")
        (text,) = (one["name"] for one in package["files"] if one["name"].endswith(".LICENSE"))
        words = (VENDOR / text).read_text(encoding="utf-8")
        assert {"0BSD": "with or without fee", "MIT": "without restriction"}[package["licence"]] in " ".join(
            words.split()
        )
    assert json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8")) == vendored()


@pytest.mark.parametrize("name", sorted(ADDRESSES))
async def test_a_file_is_served_to_anybody_and_kept_until_it_changes(stranger: Browser, name: str) -> None:
    answer = await stranger.http.get(ADDRESSES[name])
    (file,) = FOLDER.rglob(name)
    assert answer.status_code == 200 and answer.content == file.read_bytes()
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert answer.headers["content-type"].partition(";")[0] == kinds[file.suffix]


def test_nothing_is_loaded_from_elsewhere() -> None:
    own = [
        one for one in FOLDER.parent.rglob("*") if one.suffix in (".html", ".css", ".js") and one.parent != VENDOR
    ]
    assert len(own) > 5
    for path in own:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""[:"'(]//|@import""", text), path
