"""Pictures of a run: its moves by host, the use of links, the promised end as it changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pygal

from bench.fleet.pictures import config
from bench.fleetsim.driver import Run, Seen
from bench.fleetsim.made import GBIT_S, Made
from bench.fleetsim.report import Move, moves_of

LEAVES, COMES, FAILS, FAULT = "#2e6f9e", "#a3be8c", "#bf616a", "#d08770"
LANE, LEFT, WIDTH = 7, 90, 820
MOST_ROWS = 60


def draw(run: Run, hosts: Sequence[str], folder: Path) -> list[Path]:
    """The pictures' files."""
    moves = moves_of(run.crowd.truth.facts)
    texts = {
        "gantt.svg": gantt(moves, run.made, hosts, run.seen).encode(),
        "links.svg": links(run.seen, run.made, hosts).render(),
        "promise.svg": promise(run.seen).render(),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    return [folder / name for name in texts]


def lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """A lane for each span, in which none overlaps another. By their begins."""
    ends: list[float] = []
    found = [0] * len(spans)
    for place in sorted(range(len(spans)), key=lambda n: spans[n]):
        begin, end = spans[place]
        lane = next((n for n, until in enumerate(ends) if until <= begin), len(ends))
        if lane == len(ends):
            ends.append(end)
        ends[lane] = end
        found[place] = lane
    return found


def gantt(moves: Sequence[Move], made: Made, hosts: Collection[str], seen: Seen) -> str:
    """A row for each host: what left it, and what came. Of many hosts the operation's first."""
    begun, last = seen.begun_s, max([seen.ended_s, *(move.to_s for move in moves)])
    scale = WIDTH / max(1e-9, last - begun)
    involved = {host for move in moves for host in (move.source, move.target)} | set(hosts)
    rows = sorted(involved, key=lambda host: (host not in hosts, host))[:MOST_ROWS]
    drawn, top = [], 24
    for host in rows:
        mine = [move for move in moves if host in (move.source, move.target)]
        places = lanes([(move.from_s, move.to_s) for move in mine])
        height = LANE * (max(places, default=0) + 1)
        drawn.append(f'<text x="4" y="{top + height / 2 + 4:.0f}">{escape(host)}</text>')
        for move, lane in zip(mine, places, strict=True):
            colour = FAILS if not move.arrived else LEAVES if move.source == host else COMES
            x, width = LEFT + (move.from_s - begun) * scale, max(1.0, (move.to_s - move.from_s) * scale)
            title = f"{made.vms[move.vm].name}: {move.source} to {move.target}, {move.to_s - move.from_s:.1f} s"
            box = f'x="{x:.1f}" y="{top + lane * LANE}" width="{width:.1f}" height="{LANE - 1}" fill="{colour}"'
            drawn.append(f"<rect {box}><title>{escape(title)}</title></rect>")
        top += height + 5
    for at, what in seen.events:
        x = LEFT + (at - begun) * scale
        line = f'<line x1="{x:.1f}" y1="18" x2="{x:.1f}" y2="{top}" stroke="{FAULT}" stroke-width="0.7">'
        drawn.append(f"{line}<title>{escape(what)}</title></line>")
    drawn += [
        f'<text x="{LEFT + (second - begun) * scale:.0f}" y="{top + 14}">{second - begun:.0f} s</text>'
        for second in (begun, (begun + last) / 2, begun + (last - begun) * 0.97)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{top + 22}" '
    style = 'font-family="sans-serif" font-size="11">'
    key = '<text x="4" y="12">a row for each host: leaves (blue), comes (green), did not arrive (red)</text>'
    return "\n".join([f'{head}{style}<rect width="100%" height="100%" fill="#ffffff"/>', key, *drawn, "</svg>\n"])


def links(seen: Seen, made: Made, hosts: Sequence[str]) -> pygal.XY:
    """Gb/s out of the operation's hosts, and how much of their links that is."""
    axes = {"x_title": "s", "y_title": "Gb/s", "show_dots": False}
    chart = pygal.XY(**config("Copies out of the operation's hosts", [LEAVES, FAULT], **axes))
    whole = sum(made.hosts[host].link_bytes_s for host in hosts) / GBIT_S
    chart.add("all of them together", rates(seen, [f"out of {host}" for host in hosts]))
    last = seen.carried[-1][0] - seen.begun_s if seen.carried else 0.0
    chart.add("what their links carry", [(0.0, whole), (last, whole)])
    return chart


def rates(seen: Seen, names: Sequence[str]) -> list[tuple[float, float]]:
    """(seconds since the begin, Gb/s over all these links) for each pair of looks."""
    found = []
    for (before_s, before), (now_s, now) in zip(seen.carried, seen.carried[1:], strict=False):
        sent = sum(now.get(name, 0) - before.get(name, 0) for name in names)
        found.append((now_s - seen.begun_s, sent / max(1e-9, now_s - before_s) / GBIT_S))
    return found


def promise(seen: Seen) -> pygal.XY:
    """The promised end at each moment, and the actual one."""
    axes = {"x_title": "looked at, s", "y_title": "promised end, s", "show_dots": False}
    chart = pygal.XY(**config("The promised end", [LEAVES, FAULT], **axes))
    points = [(at - seen.begun_s, end - seen.begun_s) for at, end in seen.promises]
    chart.add("promised", [(0.0, seen.preview.get("promised_s", 0.0)), *points])
    took_s = seen.ended_s - seen.begun_s
    chart.add("actual", [(0.0, took_s), (took_s, took_s)])
    return chart
