"""`sterna doctor`: is everything on the hosts as it must be?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from sterna.cli.client import Json
from sterna.cli.console import safe
from sterna.cli.exits import Exit, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, client_of, print_json

_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}
Quiet = Annotated[bool, typer.Option("--problems", help="Leave out the lines that are ok.")]


def doctor(
    hosts: Annotated[
        list[str] | None, typer.Argument(metavar="[HOST]...", help="Only these hosts, and the ways between them.")
    ] = None,
    problems: Quiet = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Check every requirement of the hosts, one line each: ok, a warning, or wrong, with what fixes it.

    Each host looks at itself and at up to 8 others. `sterna agent doctor` does the same on one host, without a
    controller. Exit code 0 where nothing is wrong (warnings are not), 11 where something is, 6 where no host could
    be asked.
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
    """Print them, by host."""
    for line in lines(list(findings), problems=problems):
        out.print(line)


def exit_of(findings: Iterable[Json]) -> Exit:
    """A script must not take a host with something wrong for a good one."""
    return Exit.WRONG if any(one["level"] == "wrong" for one in findings) else Exit.OK


def lines(findings: list[Json], *, problems: bool = False) -> Iterator[str]:
    """Line by line, as Rich markup: hosts in their order, what is wrong with its fix, and a sum at the end."""
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
