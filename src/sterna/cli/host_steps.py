"""The hosts of a rolling operation, in words."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from sterna.cli import formatting
from sterna.cli.client import Json
from sterna.cli.console import safe
from sterna.cli.formatting import out
from sterna.domain.durations import in_words
from sterna.domain.fleet.stages import Stage

MOST_NAMES = 5


def names_of(hosts: list[str]) -> str:
    """Some names, and the number of the others."""
    more = len(hosts) - MOST_NAMES
    return ", ".join(hosts) if more <= 1 else f"{', '.join(hosts[:MOST_NAMES])} and {more} others"


def hosts_table(steps: list[Json]) -> Table:
    """The stage of each host."""
    made = formatting.table("~HOST", ">WAVE", "STAGE", "SINCE", "~REASON")
    for step in steps:
        made.add_row(
            safe(step["host"]),
            "-" if step["wave"] is None else str(step["wave"]),
            formatting.coloured(step["stage"]),
            (step["since"] or "-")[:19],
            safe(step["reason"] or ""),
        )
    return made


def hosts_in_words(operation: Json) -> list[str]:
    """How many hosts are in each stage. Empty for a drain."""
    steps = operation["host_steps"]
    if not steps:
        return []
    counts = Counter(Stage(step["stage"]) for step in steps)
    found = [f"{counts[Stage.DONE]} of {len(steps)} hosts done"]
    found += [f"{counts[Stage.SKIPPED]} skipped"] if counts[Stage.SKIPPED] else []
    found += [f"{counts[stage]} {stage}" for stage in Stage if stage.closed and counts[stage]]
    return found


def between_in_words(operation: Json) -> list[tuple[str, str]]:
    """What is done to the empty hosts. Empty for a drain."""
    between = operation["between"]
    if between is None:
        return []
    named = [f"webhook {between['webhook']}"] if between["webhook"] else []
    named += ["the controller's command"] if between["command"] else []
    named += ["by hand"] if between["by_hand"] else []
    version = between["agent_version"]
    return [
        ("hosts closed at once", f"at most {operation['most_closed']}"),
        ("done to empty hosts", ", ".join(named) or "restarted by you, or only their agents"),
        ("back within", in_words(between["back_within_s"])),
        ("agent version", version or ""),
        ("paused because", operation["paused_because"] or ""),
    ]


def show_waves(answer: Json) -> None:
    """Print the waves of a preview. Prints nothing for a drain."""
    if answer["waves"]:
        made = formatting.table(">WAVE", ">BEGINS AFTER", ">EMPTY AFTER", ">OPEN AFTER", "~HOSTS")
        for number, wave in enumerate(answer["waves"]):
            times = [in_words(wave[name]) for name in ("start_s", "drained_s", "open_s")]
            made.add_row(str(number), *times, safe(", ".join(wave["hosts"])))
        formatting.show(made)
    for host, why in answer["skipped"].items():
        out.print(f"{host} is skipped: {why}", markup=False)
