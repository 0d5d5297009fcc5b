"""`sterna doctor`: do the hosts meet every requirement?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from sterna.cli import completion
from sterna.cli.client import Json
from sterna.cli.console import safe
from sterna.cli.exits import Exit, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, client_of, print_json

_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}
Quiet = Annotated[bool, typer.Option("--problems", help="Show only warnings and what is wrong.")]


def doctor(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST",
            help="Only these hosts, and the connections between them.",
            autocompletion=completion.hosts,
        ),
    ] = None,
    problems: Quiet = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Check every requirement of the hosts. Each line says ok, warning or wrong, and how to fix it.

    Each host checks itself and its connections to up to 8 other hosts. `sterna agent doctor` checks one host,
    without a controller. Exit code 0 if nothing is wrong (warnings do not count), 11 if something is, 6 if no host
    could be asked.
    """
    with plain_errors():
        answer = client_of(api).post("/v1/doctor", {"hosts": hosts or []})
        if as_json:
            print_json(answer)
        else:
            show(answer["findings"], problems=problems)
        if answer["hosts_asked"] == 0:
            raise typer.Exit(Exit.UNREACHABLE)
        raise typer.Exit(exit_of(answer["findings"]))


def show(findings: Iterable[Json], *, problems: bool) -> None:
    """Print the findings, grouped by host."""
    for line in lines(list(findings), problems=problems):
        out.print(line)


def exit_of(findings: Iterable[Json]) -> Exit:
    """WRONG if any finding is wrong, so that scripts notice."""
    return Exit.WRONG if any(one["level"] == "wrong" for one in findings) else Exit.OK


def lines(findings: list[Json], *, problems: bool = False) -> Iterator[str]:
    """Lines of Rich markup: the findings of each host, each with its fix, and totals at the end."""
    shown = [one for one in findings if not (problems and one["level"] == "ok")]
    for host in dict.fromkeys(one["host"] for one in shown):
        yield f"[bold]{safe(host)}[/]"
        for one in (one for one in shown if one["host"] == host):
            colour = _COLOURS.get(one["level"], "red")
            about = f"{one['check']} to {one['peer']}" if one["peer"] else one["check"]
            yield f"  [{colour}]{safe(one['level']):<8}[/] {safe(about)}: {safe(one['message'])}"
            if one["fix"]:
                yield f"           fix: {safe(one['fix'])}"
    counts = {level: sum(one["level"] == level for one in findings) for level in _COLOURS}
    yield f"{counts['ok']} ok, {counts['warning']} warnings, {counts['wrong']} wrong"
