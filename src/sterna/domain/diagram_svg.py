"""A migration's run as a sequence diagram in SVG: for a page, and for a file. Pure.

It has no style sheet, no script and no identifiers, so that it can stand in a page. Its colour is that of the text
around it (`currentColor`). A page may colour what has failed by its class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sterna.domain.journal import Migration
from sterna.domain.plain_text import printable
from sterna.domain.sequence import Arrow, Divider, Lifeline, Note, Story, story
from sterna.domain.timeline import Item

BETWEEN, MARGIN, BESIDE = 250, 125, 230
"""Pixels from lifeline to lifeline, from the left edge to the first one, and beside the last one."""
LINE, GAP = 15, 14
"""Pixels from one line of text to the next, and between two events."""
CHARACTER = 6.6
"""Pixels that one character takes on average, at FONT pixels of a sans-serif font."""
FONT = 12
HEAD, BOX = 56, 40
"""Pixels: where the boxes of the lifelines begin, and how high these are."""
LOOP, TIP = 28, 7
"""Pixels: how far an arrow to itself goes out, and the length of an arrow's head."""
RED = "#b3261e"


def escaped(text: str) -> str:
    """Text from outside, for an element or an attribute of XML."""
    shown = printable(text)
    for character, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        shown = shown.replace(character, written)
    return shown


def wrapped(text: str, most: int) -> list[str]:
    """In lines of at most so many characters, broken between words where that is possible; `10 ms` is one word."""
    lines, line = [], ""
    for word in re.sub(r"(\d) (m?s)\b", "\\1\u00a0\\2", text).split(" "):
        if line and len(line) + 1 + len(word) <= most:
            line = f"{line} {word}"
            continue
        if line:
            lines.append(line)
        while len(word) > most:
            lines.append(word[:most])
            word = word[most:]  # noqa: PLW2901 - what is left of it
        line = word
    return [*lines, line] if line or not lines else lines


class _Canvas:
    """Events, from top to bottom."""

    def __init__(self, told: Story) -> None:
        self.at = {one.id: MARGIN + BETWEEN * place for place, one in enumerate(told.lifelines)}
        self.width = MARGIN + BETWEEN * (len(told.lifelines) - 1) + BESIDE
        self.y = HEAD + BOX + 2 * GAP
        self.shapes: list[str] = []
        self.texts: list[str] = []

    def text(self, x: float, lines: Sequence[str], *, anchor: str = "middle", more: str = "") -> None:
        """Lines one below the other, from here on."""
        for line in lines:
            self.y += LINE
            where = f'x="{x:g}" y="{self.y - 4:g}" text-anchor="{anchor}"'
            self.texts.append(f"<text {where}{more}>{escaped(line)}</text>")

    def draw(self, event: Divider | Arrow | Note) -> None:
        """One event."""
        if isinstance(event, Divider):
            self._divider(event)
        elif isinstance(event, Note):
            self._note(event)
        elif event.sender == event.receiver:
            self._loop(event)
        else:
            self._arrow(event)
        self.y += GAP

    def _divider(self, event: Divider) -> None:
        self.y += GAP
        self.text(self.width / 2, [event.text], more=' font-weight="bold"')
        self.y += 4
        self.shapes.append(f'<line x1="0" y1="{self.y}" x2="{self.width}" y2="{self.y}" stroke-opacity="0.5"/>')

    def _note(self, event: Note) -> None:
        width, top = BETWEEN - 24, self.y
        head = [f"status {event.status}"] if event.status else []
        lines = wrapped(event.text, _characters(width - 12)) if event.text else []
        x, mark = self.at[event.over], _mark(event.failed)
        height = LINE * len(head + lines) + 8
        where = f'x="{x - width / 2:g}" y="{top}" width="{width}" height="{height}" rx="3"'
        self.shapes.append(f'<rect {where} class="note" fill="#fff" fill-opacity="0.06" stroke-opacity="0.6"/>')
        self.y += 4
        self.text(x, head, more=f' font-weight="bold"{mark}')
        self.text(x, lines, more=mark)
        self.y = top + height

    def _arrow(self, event: Arrow) -> None:
        begin, end = self.at[event.sender], self.at[event.receiver]
        lines = wrapped(event.text, _characters(abs(end - begin) - 16))
        self.text((begin + end) / 2, lines, more=_mark(event.failed))
        self.y += 4
        self._line(event, f"M{begin} {self.y}H{end}", (end, self.y), 1 if end > begin else -1)

    def _loop(self, event: Arrow) -> None:
        x, top = self.at[event.sender], self.y
        lines = wrapped(event.text, _characters(_beside(x, self.width)))
        self.text(x + LOOP + 8, lines, anchor="start", more=_mark(event.failed))
        self.y = max(self.y, top + LINE)
        path = f"M{x} {top + 4}H{x + LOOP}V{self.y}H{x}"
        self._line(event, path, (x, self.y), -1)

    def _line(self, event: Arrow, path: str, tip: tuple[float, float], forward: int) -> None:
        """`forward`: 1 where the head points to the right, -1 to the left."""
        dashed = ' stroke-dasharray="5 4"' if event.returns else ""
        colour = f' class="failed" stroke="{RED}"' if event.failed else ""
        x, y = tip
        back = x - forward * TIP
        head = f"M{back:g} {y - 4:g}L{x:g} {y:g}L{back:g} {y + 4:g}" + ("" if event.casts else "Z")
        fill = "none" if event.casts else RED if event.failed else "currentColor"
        self.shapes.append(f'<path d="{path}"{dashed}{colour}/><path d="{head}" fill="{fill}"{colour}/>')


def _beside(x: float, width: float) -> float:
    """Pixels for text beside an arrow to itself: up to the next lifeline, or the edge."""
    return min(BETWEEN, width - x) - LOOP - 12


def _characters(pixels: float) -> int:
    return max(8, int(pixels / CHARACTER))


def _mark(failed: bool) -> str:
    return f' class="failed" fill="{RED}"' if failed else ""


def _names(one: Lifeline, x: int, top: int) -> Iterator[str]:
    names = [one.name, *([one.host] if one.host else [])]
    first = top + (17 if one.host else 24)
    for place, name in enumerate(names):
        shown = wrapped(name, 23)
        cut = shown[0] + ("…" if len(shown) > 1 else "")
        weight = ' font-weight="bold"' if place == 0 else ""
        yield f'<text x="{x}" y="{first + LINE * place}" text-anchor="middle"{weight}>{escaped(cut)}</text>'


def _box(x: int, top: int) -> str:
    return f'<rect x="{x - 80}" y="{top}" width="160" height="{BOX}" rx="3" stroke-opacity="0.8"/>'


def _title(told: Story, title: str, middle: float) -> Iterator[str]:
    yield f'<text x="{middle:g}" y="20" text-anchor="middle" font-weight="bold">{title}</text>'
    yield f'<text x="{middle:g}" y="40" text-anchor="middle">migration {escaped(told.migration)}</text>'


def draw_svg(migration: Migration, timeline: Sequence[Item]) -> str:
    """One migration's run as an SVG document without a prolog, which may stand in an HTML page as well."""
    told = story(migration, timeline)
    canvas = _Canvas(told)
    for event in told.events:
        canvas.draw(event)
    bottom = canvas.y + GAP
    frame, names = [], []
    for one in told.lifelines:
        x = canvas.at[one.id]
        down = f'x1="{x}" y1="{HEAD + BOX}" x2="{x}" y2="{bottom}"'
        frame += [f'<line {down} stroke-opacity="0.4" stroke-dasharray="2 3"/>', _box(x, HEAD), _box(x, bottom)]
        names += [*_names(one, x, HEAD), *_names(one, x, bottom)]
    title = f"{escaped(told.vm)} from {escaped(told.source)} to {escaped(told.destination)}"
    width, height = canvas.width, bottom + BOX + GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="{FONT}">',
            f"<title>Sequence diagram: {title}</title>",
            '<g fill="none" stroke="currentColor">',
            *frame,
            *canvas.shapes,
            '</g><g fill="currentColor">',
            *_title(told, title, width / 2),
            *names,
            *canvas.texts,
            "</g></svg>\n",
        ]
    )
