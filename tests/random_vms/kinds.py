"""One VM of each kind that the generator knows: ordinary but for one thing. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

from tests.random_vms import devices, disks
from tests.random_vms.draft import Draft, Vm

Part = Callable[[Draft], None]
TRIES = 400
"""Numbers tried to find every kind of a part; the rarest comes once in some forty."""
SEED = 0


def kinds() -> list[tuple[str, Vm]]:
    """Name and VM of each."""
    named = [(name, draw) for part, begin in PARTS for name, draw in _variants(part, begin)]
    found: dict[str, Vm] = {}
    for index, (name, draw) in enumerate(named):
        found[name] = draw(index)
    return list(found.items())


def _variants(part: Part, begin: str) -> Iterator[tuple[str, Callable[[int], Vm]]]:
    """The first try that shows each of them, as something that can be drawn under any number."""
    seen = set()
    for attempt in range(TRIES):
        draft = _drawn(part, attempt, 0)
        if begin.startswith("disk ") and begin != "disk local" and disks.ANOTHER_OWNER in draft.traits:
            continue  # one kind of disk is enough for that
        words = [trait.removeprefix(f"{begin} ") for trait in draft.traits if trait != begin] + draft.details
        name = ", ".join([begin, *words]) if begin else ", ".join(words)
        if name and name not in seen:
            seen.add(name)
            yield name, partial(_finished, part, attempt)


def _finished(part: Part, attempt: int, index: int) -> Vm:
    return _drawn(part, attempt, index).finished()


def _drawn(part: Part, attempt: int, index: int) -> Draft:
    draft = Draft(SEED, index, random.Random(f"{SEED}/{attempt}"))
    part(draft)
    return draft


def _one(part: Part) -> Part:
    """Exactly one of what it may give several or none of."""

    def draw(draft: Draft) -> None:
        part(draft)
        if draft.used.get("nic", 0) != 1:
            draft.traits.clear()
            draft.devices.clear()

    return draw


PARTS: tuple[tuple[Part, str], ...] = (
    (devices.machine, "board and CPU"),
    *((kind, f"disk {kind.__name__.replace('_', ' ')}") for kind in disks.KINDS),
    (_one(devices.nics), ""),
    (devices.serial, "serial"),
    (devices.channel, "channel"),
    (devices.screen, "screen"),
    *((partial(devices.other, name=name), name) for name in devices.OTHERS),
    (devices.boot, ""),
    (devices.memory, ""),
    (devices.state, ""),
)
