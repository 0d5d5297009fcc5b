"""docs/reference/doctor.md: what `sterna doctor` checks, from its catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from sterna.domain.doctor import catalogue
from sterna.domain.doctor.catalogue import Check
from tests.unit.markdown import MADE, cell


def _rows(checks: Iterable[Check]) -> str:
    lines = ["| Check | What should be so | Refusals that follow where it is not |", "|---|---|---|"]
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
The checks of `sterna doctor` and `sterna agent doctor`, by the name that each line begins with. [Check
hosts](../how-to/check-hosts.md) says how to use them. The codes are those of [refusals](refusals.md): where
a check is wrong, plans are refused with them."""
_HOST = """\
Each host's agent looks at its own host. What it cannot look at is named in a warning of the check `agent`."""
_PAIR = """\
A host looks at up to 8 others: the next ones in the order of their names. `sterna agent doctor --peer` looks at the
first two of these."""
_FLEET = """\
The controller compares what the hosts have seen. What most hosts have is taken for right. The checks `clock`,
`address` and `security-driver` have lines of this kind as well."""
