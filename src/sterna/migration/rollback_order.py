"""What a rollback does, in order, for every step in which a migration may fail.

Read from the flow itself, so it is what the saga runner does. `python -m sterna.migration.rollback_order` shows it,
and `make reference` writes it into `docs/reference/rollback-order.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sterna.domain.step import Flow, Step
from sterna.migration.context import Context
from sterna.migration.flow import DESTINATION, REMOVE_VOLUME_CONNECTION, SOURCE

AnyStep = type[Step[Context, Any, Any]]
"""One of either host."""
Steps = tuple[AnyStep, ...]


def at_source(failed: AnyStep) -> Steps:
    """What the source does when `failed` was the last step that it had begun."""
    return _compensation(SOURCE, failed)


def at_destination(failed: AnyStep, *, called: bool = True) -> Steps:
    """What the destination does when `failed` was the last step that it had begun.

    `called`: the source's call of R3 arrives, as it does unless this host is away. Then the volumes go first,
    before the guest runs on at the source. Else the source's cast of R4 starts all of it.
    """
    steps = _compensation(DESTINATION, failed)
    if not called:
        return steps
    return REMOVE_VOLUME_CONNECTION + tuple(step for step in steps if step not in REMOVE_VOLUME_CONNECTION)


def _compensation(flow: Flow[Context], failed: AnyStep) -> Steps:
    begun = flow.until_pivot[: flow.until_pivot.index(failed) + 1]
    return flow.compensation(step.name for step in begun)


def title(step: AnyStep) -> str:
    """`connect-volumes (P9)`."""
    return f"{step.name} ({step.row})" if step.row else step.name


def tables() -> Iterator[tuple[str, list[tuple[str, tuple[str, ...]]]]]:
    """Host, and each of its steps before the pivot: its title, and what is done when it fails, in order."""
    yield "source", [(title(s), tuple(map(title, at_source(s)))) for s in SOURCE.until_pivot]
    yield "destination", [(title(s), tuple(map(title, at_destination(s)))) for s in DESTINATION.until_pivot]


def lines() -> Iterator[str]:
    """The whole of it, in plain text."""
    for host, rows in tables():
        yield f"On the {host}, when this step fails:"
        for failed, steps in rows:
            yield f"  {failed}"
            yield from (f"      {step}" for step in steps)


if __name__ == "__main__":
    print("\n".join(lines()))
