"""docs/reference/doctor.md: what `sterna doctor` checks, from its catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from sterna.domain.doctor import catalogue
from sterna.domain.doctor.catalogue import Check
from tests.unit.markdown import MADE, cell


def _rows(checks: Iterable[Check]) -> str:
    lines = ["| Check | Requirement | Refusals if it is not met |", "|---|---|---|"]
    for check in checks:
        codes = ", ".join(f"`{code}`" for code in check.foretells)
        lines.append(f"| `{check.name}` | {cell(check.requirement)} | {codes} |")
    return "\n".join(lines)


def page() -> str:
    """The page."""
    parts = (
        ("One host", catalogue.HOST, _HOST),
        ("From one host to another", catalogue.PAIR, _PAIR),
        ("All hosts side by side", catalogue.FLEET, _FLEET),
    )
    text = ["# What doctor checks", MADE, _INTRODUCTION]
    for title, checks, about in parts:
        text += [f"## {title}", about, _rows(checks)]
    return "\n\n".join(text) + "\n"


_INTRODUCTION = """\
This page lists the checks of `sterna doctor` and `sterna agent doctor`, by the name at the start of each line.
[Check hosts](../how-to/check-hosts.md) explains how to use them. If a check is wrong, plans are refused with the
[codes](refusals.md) in the last column."""
_HOST = """\
Each agent checks its own host. A warning of the check `agent` lists what could not be checked."""
_PAIR = """\
Each host checks its connections to up to 8 others: the next ones in the order of their names. With `--peer`,
`sterna agent doctor` runs the first two of these checks."""
_FLEET = """\
The controller compares the results of the hosts. The value that most hosts have is assumed to be right. The checks
`clock`, `address` and `security-driver` also have lines of this kind."""
