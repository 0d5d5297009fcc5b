"""What two cases must have in common to go on alike: the world, what the journals mean, and who is dead or away.

Times, ids and the order in which facts were written are left out: a saga decides by what its journal says, not by
how it came to say so.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from itertools import combinations
from typing import TYPE_CHECKING

from tests.matrix.auditor import facts

if TYPE_CHECKING:
    from tests.matrix.memory_journal import MemoryJournal
    from tests.matrix.stage import Stage

_FACTS = ("intent", "done", "note", "released", "closed")


def fingerprint(stage: Stage) -> int:
    """Equal for stages that are alike in everything that lasts."""
    found = facts(stage.world, stage.vm)
    world = tuple((place, frozenset(_lasting(lines))) for place, lines in sorted(found.items()))
    hosts = tuple((h.libvirtd_up, h.powered) for h in stage.world.hosts.values())
    copies = tuple((c.phase, c.iteration, c.max_downtime_ms, c.throttle) for c in stage.world.copies)
    lives = tuple((life.dead, life.frozen) for life in stage.lives.values())
    books = tuple(_meaning(book) for book in stage.journals.values())
    pairs = [(a, b, kind) for a, b in combinations(stage.world.hosts, 2) for kind in ("stream", "control")]
    away = (
        stage.world.network_up,
        stage.broker.reaches("anybody"),
        tuple(stage.world.joined(*pair) for pair in pairs),
    )
    return hash((world, hosts, copies, lives, books, away, frozenset(stage.plans)))


def _lasting(lines: frozenset[str]) -> list[str]:
    return [line for line in lines if "/.sterna-check-" not in line]


def _meaning(book: MemoryJournal) -> Hashable:
    """What the journal says, as a set; and the casts on their way."""
    said = frozenset((line["kind"], line["name"] or line["row"]) for line in book.lines if line["kind"] in _FACTS)
    last = {line["kind"]: _text(line) for line in book.lines if line["kind"] in ("status", "turned")}
    out = frozenset(key.rpartition("/")[2] for key, (_, text) in book.casts_out.items() if text)
    waiting = frozenset(key.rpartition("/")[2] for key, text in book.casts_in.items() if text)
    return said, tuple(sorted(last.items())), out, waiting


def _text(line: dict[str, object]) -> str:
    if line["kind"] == "status":
        return str(line["name"])
    return "forward" if "forward" in json.loads(str(line["text"])) else "back"
