"""Where a VM could go: every host, with what keeps it away or how well it fits."""

from __future__ import annotations

import math

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Arrivals, score
from sterna.domain.fleet.reasons import refusal
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.tables import Tables
from sterna.domain.model import Value


class Choice(Value):
    """A host for a VM."""

    host: str
    refusal: str = ""
    """Why it cannot go there. '': it can."""
    score: float | None = None
    """Less is better. None where it cannot go there."""
    words: str = ""
    """What the score is made of."""


def rank(snapshot: Snapshot, uuid: str) -> tuple[Choice, ...]:
    """All hosts but the VM's own, the best first. Raises KeyError for a VM that is not in the snapshot."""
    tables = Tables(snapshot)
    v = tables.vm_at[uuid]
    board = Board(tables)
    board.keep(snapshot.limits.spare_hosts)
    arrivals = Arrivals(Paces(tables), math.inf)
    choices = []
    for h, host in enumerate(tables.hosts):
        if h == board.at[v]:
            continue
        why = refusal(board, v, h)
        if why:
            choices.append(Choice(host=host.name, refusal=f"a host {why}"))
            continue
        mem, cpu = board.mem[h] - tables.mem[v], board.cpu[h] - tables.cpu[v]
        words = f"leaves {mem / (1 << 30):.1f} GiB and {cpu} vCPUs"
        choices.append(Choice(host=host.name, score=round(score(board, v, h, arrivals), 3), words=words))
    return tuple(sorted(choices, key=lambda one: (one.score is None, one.score or 0.0, one.host)))
