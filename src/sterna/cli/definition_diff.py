"""`sterna show ID --diff`: what is different in a VM's definition after its migration."""

from __future__ import annotations

from sterna.cli import formatting
from sterna.cli.client import Json
from sterna.cli.console import safe


def show(answer: Json) -> None:
    """Print the differences like a unified diff: the place, both values, and the reason below them."""
    out = formatting.out
    out.print(answer["summary"], markup=False)
    for one in answer["differences"]:
        out.print()
        out.print(f"[bold]{safe(one['where'])}[/]")
        out.print(f"  {_definitions(one)}: {one['reason']}", markup=False)
        for sign, name, colour in (("-", "before", "red"), ("+", "after", "green")):
            if one[name]:
                out.print(f"  [{colour}]{sign} {safe(one[name])}[/]")
    if answer["left_out"]:
        out.print(f"\nand {answer['left_out']} more, which were not recorded", markup=False)
    if answer["notes"]:
        out.print()
    for note in answer["notes"]:
        out.print(f"note: {note}", markup=False)
    if answer["edited"]:
        out.print("note: --json has the definition as it was changed there (`edited`)", markup=False)


def _definitions(one: Json) -> str:
    """In which definitions it is different."""
    if one["live"] and one["persistent"]:
        return "running guest and next start"
    return "running guest" if one["live"] else "next start"
