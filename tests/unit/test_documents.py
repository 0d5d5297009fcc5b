"""The documents: every link leads somewhere, every page is in the navigation, every page that code names exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.pages import PAGES, ROOT

LINK = re.compile(r"\]\(\s*<?([^()<>\s]+)>?(?:\s+[\"'][^\"']*[\"'])?\s*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +#+)?$", re.MULTILINE)
NAMED = re.compile(r"\bdocs/[\w./-]+\.(?:md|json|svg|puml)\b")
SOURCE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)`")
MODULE = re.compile(r"`((?:[a-z0-9_]+/)*[a-z0-9_]+\.py)`")
NAME = re.compile(r"`([A-Z]\w*[a-z]\w*)(?:\.\w+)?`")
NAMING = (
    "src/**/*.py",
    "tests/**/*.py",
    "tests/**/*.md",
    "bench/*.py",
    "scripts/*",
    "Makefile",
    "*.md",
    "*.toml",
    "docs/**/*.md",
)


class Link(NamedTuple):
    """Where a page leads to."""

    page: Path
    target: str


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links_of(page: Path) -> Iterator[Link]:
    """The links of a page that stay in the repository."""
    for found in LINK.finditer(CODE.sub("`code`", prose(page))):
        target = found[1] or found[2]
        if "://" not in target and not target.startswith("mailto:"):
            yield Link(page, target)


def slug(heading: str) -> str:
    """The anchor of a heading, as the site and GitHub make it."""
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def anchors_of(page: Path) -> list[str]:
    """Every anchor of a page. Those that the site or GitHub would write otherwise, or number, are left out."""
    slugs = [slug(heading) for heading in HEADING.findall(prose(page))]
    return [one for one in slugs if slugs.count(one) == 1 and "--" not in one]


def trouble_with(link: Link) -> str:
    """What is wrong with a link; '' for nothing."""
    path, _, anchor = link.target.partition("#")
    page = (link.page.parent / path).resolve() if path else link.page
    if not page.is_relative_to(ROOT) or not page.exists():
        return f"{link.target}: there is no such file"
    if anchor and (page.suffix != ".md" or anchor not in anchors_of(page)):
        return f"{link.target}: no heading of {page.relative_to(ROOT)} has this anchor"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [trouble for link in links_of(page) if (trouble := trouble_with(link))] == []


def test_a_wrong_link_is_found(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    assert trouble_with(Link(page, "docs/no-such-page.md"))
    assert trouble_with(Link(page, "CONTRIBUTING.md#no-such-heading"))
    assert trouble_with(Link(page, "#no-such-heading"))
    assert trouble_with(Link(page, "../outside.md"))
    assert not trouble_with(Link(page, "CONTRIBUTING.md"))
    text = "# One\n[a](x.md) `[b](y.md)` [c](z.md#w 'no') [d](<v.md> \"t\")\n```\n[e](u.md)\n```\n[f]: t.md\n"
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    assert [link.target for link in links_of(tmp_path / "page.md")] == [
        "x.md",
        "z.md#w",
        "v.md",
        "t.md",
    ]


def test_anchors_are_those_of_the_site(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# The `make chaos` run\n## Twice\n## Twice\n```\n# not one\n```\n## A - b\n", encoding="utf-8")
    assert anchors_of(page) == ["the-make-chaos-run"]


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^\s+- (?:.+: )?([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    there = sorted(page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md"))
    assert sorted(listed) == there


def test_every_document_that_is_named_exists() -> None:
    files = sorted({path for pattern in NAMING for path in ROOT.glob(pattern) if path.is_file()})
    assert len(files) > 500
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in NAMED.findall(path.read_text(encoding="utf-8", errors="ignore"))
        if not (ROOT / name).exists() and "no-such-page" not in name
    }
    assert missing == set()


def test_every_source_file_that_a_document_names_exists() -> None:
    files = [
        f"/{path.relative_to(ROOT)}"
        for folder in ("src", "tests", "bench", "scripts")
        for path in (ROOT / folder).rglob("*.py")
    ]
    missing = {
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        if page.name != "CHANGELOG.md"  # it tells of what was
        for name in SOURCE.findall(page.read_text(encoding="utf-8"))
        if not any(path.endswith(f"/{name}") for path in files)
    }
    assert missing == set()


def test_every_source_file_that_the_code_names_exists() -> None:
    files = [path for folder in ("src", "tests", "bench") for path in (ROOT / folder).rglob("*.py")]
    there = [f"/{path.relative_to(ROOT)}" for path in files]
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in MODULE.findall(path.read_text(encoding="utf-8"))
        if not any(one.endswith(f"/{name}") for one in there)
    }
    assert missing == set()


def test_every_name_of_the_code_that_contributors_read_exists() -> None:
    files = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    words = {word for path in files for word in re.findall(r"\b[A-Z]\w+", path.read_text(encoding="utf-8"))}
    pages = (ROOT / "docs/contributing").glob("*.md")
    assert {name for page in pages for name in NAME.findall(page.read_text(encoding="utf-8"))} - words == set()
