from __future__ import annotations

import re
from xml.etree import ElementTree

from sterna.domain.diagram_svg import BESIDE, BETWEEN, MARGIN, draw_svg, wrapped
from sterna.domain.errors import Permanent
from sterna.domain.journal import Role
from sterna.domain.timeline import build_timeline

from .journals import MIGRATION, Book, good_destination, good_source

NS = {"svg": "http://www.w3.org/2000/svg"}


def drawn(*books: Book, **names: str) -> ElementTree.Element:
    entries = [entry for book in books for entry in book.entries]
    migration = MIGRATION.model_copy(update=names)
    return ElementTree.fromstring(draw_svg(migration, build_timeline(migration, entries)))


def texts(picture: ElementTree.Element) -> list[str]:
    return [one.text or "" for one in picture.iterfind(".//svg:text", NS)]


def test_a_good_run_names_every_row_that_ran() -> None:
    picture = drawn(good_source(), good_destination())
    rows = {found[1] for text in texts(picture) if (found := re.match(r"([PMFR]\d+) ", text))}
    wanted = {f"P{n}" for n in range(1, 13)} | {f"M{n}" for n in range(1, 6)} | {f"F{n}" for n in range(1, 12)}
    assert rows == wanted
    assert texts(picture).count("shost") == 2 and "Phase 3: post_live_migration" in texts(picture)
    assert "status completed" in texts(picture)
    assert picture.findall(".//*[@class='failed']") == []


def test_nothing_is_drawn_outside_the_picture_and_events_go_down() -> None:
    picture = drawn(good_source(), good_destination())
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    assert width == MARGIN + 3 * BETWEEN + BESIDE
    labels = list(picture.iterfind(".//svg:text", NS))
    assert all(0 < float(one.get("x", 0)) < width and 0 < float(one.get("y", 0)) < height for one in labels)
    downward = [float(one.get("y", 0)) for one in labels if re.match("[PMF][0-9]+ ", one.text or "")]
    assert downward == sorted(downward)


def test_what_failed_is_red_and_says_why() -> None:
    error = Permanent("bridge br-int is missing")
    source = Book(Role.SOURCE).accepted().status("preparing").intent("P3").failed("P3", error, final=True)
    target = Book(Role.DESTINATION, boot="d").accepted().intent("P10").failed("P10", error, final=True)
    red = [one.text or "" for one in drawn(source, target).iterfind(".//svg:text[@class='failed']", NS)]
    assert "P3 failed: bridge br-int is missing" in " ".join(red)
    assert any(text.startswith("P10 ") for text in red)


def test_text_from_outside_is_text() -> None:
    hostile = "</title><script>alert(1)</script> & \"'\x1b[31m\u202e" + "y" * 500
    book = Book(Role.SOURCE).intent("P2").failed("P2", Permanent(hostile), final=True)
    book.status("failed", hostile)
    picture = drawn(book, vm_name=hostile, source="<b>", destination="]]>")
    kinds = {one.tag.rpartition("}")[2] for one in picture.iter()}
    assert kinds <= {"svg", "title", "g", "line", "rect", "path", "text"}
    title = picture.find("svg:title", NS)
    assert title is not None and "<script>alert(1)</script>" in (title.text or "") and "\\x1b" in (title.text or "")
    assert "<b>" in texts(picture)


def test_long_text_is_broken_between_words_and_no_word_is_lost() -> None:
    assert wrapped("one two three", 7) == ["one two", "three"]
    assert wrapped("abcdefgh ij", 3) == ["abc", "def", "gh", "ij"] and wrapped("", 5) == [""]
    assert wrapped("it took (10 ms)", 10) == ["it took", "(10\u00a0ms)"]
