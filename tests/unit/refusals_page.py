"""Writes docs/reference/refusals.md from the catalogue."""

from __future__ import annotations

import sterna.__main__  # noqa: F401 - its commands join those of the CLI
from sterna.domain.refusals import GROUPS, Group
from tests.unit.markdown import MADE, cell


def _group(group: Group) -> str:
    lines = [
        f"## {group.title}",
        "",
        "| Code | Meaning | What to do | Checked by, when |",
        "|---|---|---|---|",
    ]
    for entry in group.entries:
        means = entry.cause if entry.since == FIRST_VERSION else f"{entry.cause} Since {entry.since}."
        lines.append(f"| `{entry.code}` | {cell(means)} | {cell(entry.remedy)} | {entry.by}: {cell(entry.when)} |")
    return "\n".join(lines)


def refusals() -> str:
    """The codes, as the catalogue has them."""
    return "\n\n".join(["# Refusals", MADE, REFUSALS_INTRODUCTION, *(_group(group) for group in GROUPS)]) + "\n"


FIRST_VERSION = "0.1.0"
REFUSALS_INTRODUCTION = """\
A migration that is not possible is refused, with every reason at once. Each reason has a code, a message with the
name of the VM, host or file, and a fix. Codes are stable: scripts can rely on them. They are in `reasons` of a
problem in the [REST API](rest.md#problem), in `blockers` of a plan, and in brackets in the output of `sterna`:

```text
blocked: web1 is paused [vm-paused]
  fix: resume it first
```

In the last column, *plan* means `sterna plan`, and the same check when a migration is accepted. P2, P6 and so on
are rows of the [protocol](protocol.md). A refusal there means that something has changed since the plan; the
migration is rolled back. *Rehearsal* means `sterna plan --rehearse`.

A host with a newer version may use codes that are not in this list. Errors that are not refusals have their kind
as their code: `conflict`, `not-found`, `unreachable` and so on.

These pages describe the checks: [checks](checks.md), [files](files.md), [definitions](definitions.md),
[plug types](plug-types.md)."""
