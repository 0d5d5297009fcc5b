"""An operation's migrations over time as SVG: a group for each host that they leave, a bar for each of them. Pure.

Like the sequence diagram it has no style sheet and no identifiers, and the colour of the text around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sterna.domain.diagram_svg import escaped
from sterna.domain.durations import in_words
from sterna.domain.fleet.attempts import Attempt, AttemptState
from sterna.domain.model import Value

WIDTH, LEFT = 1000, 150
"""Pixels: of the whole, and of the hosts' names."""
BAR, BETWEEN, HEAD = 18, 4, 30
"""Pixels: the height of a bar, what is between two, and the height of the scale."""
CHARACTER = 6.6
"""Pixels that one character takes on average."""
MARKS = 5
LONGEST_NAME = 20
CLASSES = {AttemptState.ARRIVED: "arrived", AttemptState.FAILED: "failed", AttemptState.REFUSED: "refused"}


class Bar(Value):
    """One migration, in seconds from the operation's begin."""

    host: str
    name: str
    target: str
    state: AttemptState
    begin_s: float
    end_s: float


def bars(attempts: Iterable[Attempt], began: datetime, now: datetime) -> list[Bar]:
    """Those that have begun or were refused, in the order in which they were decided. One that goes on ends now."""
    found = []
    for one in attempts:
        if not one.decided_at:
            continue
        begin_s = (datetime.fromisoformat(one.decided_at) - began).total_seconds()
        end = datetime.fromisoformat(one.ended_at) if one.ended_at else now
        end_s = max(begin_s, (end - began).total_seconds())
        bar = Bar(
            host=one.source,
            name=one.name,
            target=one.target,
            state=one.state,
            begin_s=max(0.0, begin_s),
            end_s=max(0.0, end_s),
        )
        found.append(bar)
    return found


def lanes(some: Sequence[Bar]) -> list[list[Bar]]:
    """In as few lines as it takes for no two to be at the same time."""
    found: list[list[Bar]] = []
    for bar in sorted(some, key=lambda bar: (bar.begin_s, bar.name)):
        free = next((lane for lane in found if lane[-1].end_s <= bar.begin_s), None)
        if free is None:
            found.append([bar])
        else:
            free.append(bar)
    return found


def draw_moves(some: Sequence[Bar]) -> str:
    """An SVG document without a prolog, which may stand in an HTML page as well; '' where there is nothing."""
    if not some:
        return ""
    longest = max(1.0, *(bar.end_s for bar in some))
    scale = (WIDTH - LEFT - 10) / longest
    y, parts = float(HEAD), list[str]()
    for host in sorted({bar.host for bar in some}):
        parts.append(_text(8, y + 13, _cut(host, LONGEST_NAME), weight=' font-weight="bold"'))
        for lane in lanes([bar for bar in some if bar.host == host]):
            parts += [_bar(bar, y, scale) for bar in lane]
            y += BAR + BETWEEN
        parts.append(
            f'<line x1="0" y1="{y:g}" x2="{WIDTH}" y2="{y:g}" stroke="currentColor" stroke-opacity="0.3"/>'
        )
        y += BETWEEN
    size = f'width="{WIDTH}" height="{y:g}" viewBox="0 0 {WIDTH} {y:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="sans-serif" font-size="12">',
            "<title>Migrations over time, by the host that they leave</title>",
            '<g fill="currentColor">',
            *_scale(longest, scale, y),
            *parts,
            "</g></svg>\n",
        ]
    )


def _scale(longest: float, scale: float, bottom: float) -> Iterable[str]:
    for mark in range(MARKS):
        seconds = longest * mark / (MARKS - 1)
        x = LEFT + seconds * scale
        anchor = "end" if mark == MARKS - 1 else "middle"
        yield f'<text x="{x:.1f}" y="16" text-anchor="{anchor}">{in_words(seconds)}</text>'
        line = f'x1="{x:.1f}" y1="22" x2="{x:.1f}" y2="{bottom:g}"'
        yield f'<line {line} stroke="currentColor" stroke-opacity="0.2"/>'


def _bar(bar: Bar, y: float, scale: float) -> str:
    x, width = LEFT + bar.begin_s * scale, max(2.0, (bar.end_s - bar.begin_s) * scale)
    kind = CLASSES.get(bar.state, "started")
    about = f"{bar.name} to {bar.target}: {bar.state}, {in_words(bar.end_s - bar.begin_s)}"
    box = f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{BAR}" rx="2" fill-opacity="0.25"/>'
    room = int((width - 8) / CHARACTER)
    name = _text(x + 4, y + 13, _cut(bar.name, room)) if room >= 3 else ""
    return f'<g class="move {kind}"><title>{escaped(about)}</title>{box}{name}</g>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(x: float, y: float, text: str, weight: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:g}"{weight}>{escaped(text)}</text>'
