"""Watch one migration: a live display on a terminal, one plain line per change everywhere else.

A broken event stream is resumed after the last event. The display shows only states that the API has reported.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sterna.cli import formatting
from sterna.cli.client import Client, Json, path_of
from sterna.cli.console import safe, text_of
from sterna.domain import amounts
from sterna.domain.plain_text import printable
from sterna.domain.progress import Progress, with_status
from sterna.domain.rows import ROWS
from sterna.domain.status import Status

_NUMBERS = re.compile(r"[0-9.]+")
LOOK_S = 0.5
"""How often it is looked at without its event stream."""
_COPYING = {Status.MIGRATING, Status.POST_COPY, Status.RECOVERING}


class Display(Protocol):
    """Shows changes."""

    def changed(self, migration: Json, step: str) -> None:
        """Show the migration, and the step that started last."""


class PlainLines:
    """One line per change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[object, ...] = ()
        self._moved: tuple[str, float] = "", 0.0
        """The last printed reason for a changed estimate, without its numbers, and the seconds that were left."""

    def changed(self, migration: Json, step: str) -> None:
        """Print a line if the status, its reason, the whole percentage or the iteration changed."""
        progress = migration["progress"]
        moved = progress.get("eta_change", "")
        key = (migration["status"], migration["reason"], int(progress["percent"]), progress["iteration"], moved)
        if key == self._last:
            return
        new_status, newly_moved = key[:2] != self._last[:2], moved and moved not in self._last
        newly_moved = newly_moved and self._worth_a_line(moved, progress["eta_s"])
        self._last = key
        if new_status:
            reason = f": {migration['reason']}" if migration["reason"] else ""
            self._console.print(f"{progress['percent']:3.0f} %  {migration['status']}{reason}", markup=False)
        else:
            self._console.print(f"{progress['percent']:3.0f} %  {facts(migration)}", markup=False)
        if newly_moved:
            self._console.print(f"       estimated completion changed: {moved}", markup=False)

    def _worth_a_line(self, moved: str, eta_s: float | None) -> bool:
        """The estimate of a copy that does not converge changes with every pass. Each kind of reason is printed
        once, and again when the remaining time has doubled."""
        kind, left = _NUMBERS.sub("", moved), eta_s or 0.0
        if kind == self._moved[0] and left < 2 * self._moved[1]:
            return False
        self._moved = kind, left
        return True


class LiveBar:
    """A bar that moves, on a terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def changed(self, migration: Json, step: str) -> None:
        """Redraw."""
        percent = migration["progress"]["percent"]
        head = Table.grid(padding=(0, 1))
        for _ in range(4):
            head.add_column(no_wrap=True)
        route = f"{safe(migration['vm_name'])}: {safe(migration['source'])} -> {safe(migration['destination'])}"
        status = text_of(formatting.coloured(migration["status"]), style="bold")
        head.add_row(text_of(route), status, ProgressBar(100, percent, width=30), f"{percent:5.1f} %")
        moved = migration["progress"].get("eta_change", "")
        lines = [_Lines(facts(migration)), _Lines(step, "dim")]
        if moved:
            lines.insert(1, _Lines(f"estimated completion changed: {moved}", "dim"))
        self._live.update(Group(head, *lines))


class _Lines:
    """Indented lines, wrapped here. If the terminal wrapped them, the next frame would start one line too low."""

    def __init__(self, text: str, style: str = "") -> None:
        self._text, self._style = printable(text), style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(20, options.max_width - 3)
        for line in textwrap.wrap(self._text, width) or [""]:
            yield Text(f"  {line}", style=self._style)


def facts(migration: Json) -> str:
    """Bytes, rates and the estimated time; the API's reason if the estimate is unknown."""
    progress = migration["progress"]
    parts = []
    if progress["iteration"] is not None:
        parts.append(f"iteration {progress['iteration']}")
    if progress["bytes_processed"] is not None:
        parts.append(f"{amounts.size(progress['bytes_processed'])} sent")
        parts.append(f"{amounts.size(progress['bytes_remaining'])} left")
    if progress["rate_bytes_s"] is not None:
        parts.append(amounts.rate(progress["rate_bytes_s"]))
    if progress["dirty_rate_bytes_s"] is not None:
        parts.append(f"dirtied {amounts.rate(progress['dirty_rate_bytes_s'])}")
    if migration["status"] not in _COPYING:
        return ", ".join(parts)
    if progress["eta_s"] is not None:
        parts.append(f"ETA {progress['eta_s']:.0f} s")
    elif progress["eta_reason"]:
        parts.append(f"ETA unknown: {progress['eta_reason']}")
    return ", ".join(parts)


def watch(client: Client, migration: Json, console: Console, *, from_now: bool = False) -> Json:
    """Show what happens until the migration has ended; it as it is then. Raises ApiError and ApiAway. `from_now`:
    what has happened before is not shown again, as the event stream of one migration would."""
    frame: AbstractContextManager[object] = nullcontext()
    display: Display = PlainLines(console)
    if console.is_terminal and not console.is_dumb_terminal:
        live = Live(console=console, refresh_per_second=8)
        frame, display = live, LiveBar(live)
    with frame:
        display.changed(migration, "")
        if not Status(migration["status"]).final:
            for seen, step in _looks(client, migration) if from_now else _changes(client, migration):
                display.changed(seen, step)
        ended = client.get(f"/v1/migrations/{migration['id']}")
        display.changed(ended, "")
    return ended


def _looks(client: Client, migration: Json) -> Iterator[tuple[Json, str]]:
    """The migration as it is, again and again, until it has ended."""
    for seen in client.looks(path_of("migrations", migration["id"]), LOOK_S):
        yield seen, ""
        if Status(seen["status"]).final:
            return


def _changes(client: Client, migration: Json) -> Iterator[tuple[Json, str]]:
    """The migration after each event, and the step that started last."""
    step = ""
    for event, data in client.events(migration["id"]):
        if event == "progress":
            migration = migration | {"progress": data["progress"]}
        elif event == "status":
            progress = with_status(Progress.model_validate(migration["progress"]), Status(data["status"]))
            update = {
                "status": data["status"],
                "reason": data["reason"],
                "progress": progress.model_dump(mode="json"),
            }
            migration = migration | update
        elif event == "step" and data["kind"] == "intent":
            row = ROWS.get(data["row"])
            label = row.label if row else data["name"].replace("-", " ")
            step = f"{data['host']}: {data['row']} {label}"
        yield migration, step
