"""Where a VM could go: every host, with what keeps it away or how well it fits."""

from __future__ import annotations

import math

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.operations import Mays
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Arrivals, score
from sterna.domain.fleet.reasons import (
    CLOSED,
    GIB,
    NO_MEMORY,
    UNREACHABLE,
    immovable,
    of_one_host,
    refusals,
)
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.tables import Tables
from sterna.domain.model import Value


class Choice(Value):
    """A host for a VM."""

    host: str
    refusals: tuple[str, ...] = ()
    """Every reason why it cannot run there. None: it can."""
    score: float | None = None
    """Less is better. None where it cannot go there."""
    words: str = ""
    """What the score is made of."""


class Ranking(Value):
    """All hosts but the VM's own, the best first."""

    stays: str = ""
    """Why it can be moved to no host now, whatever room there is. '': it can."""
    choices: tuple[Choice, ...] = ()


def rank(snapshot: Snapshot, uuid: str, may: Mays = frozenset()) -> Ranking:
    """`may`: what may be done to a guest whose copy does not converge. Raises KeyError for a VM that is not in the
    snapshot."""
    tables = Tables(snapshot)
    v = tables.vm_at[uuid]
    board, paces = Board(tables), Paces(tables, may)
    board.keep(snapshot.limits.spare_hosts)
    arrivals = Arrivals(paces, math.inf)
    choices = [_choice(board, v, h, arrivals) for h in range(len(tables.hosts)) if h != board.at[v]]
    ranked = sorted(choices, key=lambda one: (one.score is None, one.score or 0.0, one.host))
    return Ranking(stays=immovable(board, v, paces), choices=tuple(ranked))


def _choice(board: Board, v: int, h: int, arrivals: Arrivals) -> Choice:
    tables = board.tables
    host = tables.hosts[h]
    if against := refusals(board, v, h):
        return Choice(host=host.name, refusals=tuple(_sentence(board, v, h, why) for why in against))
    mem, cpu = board.mem[h] - tables.mem[v], board.cpu[h] - tables.cpu[v]
    words = f"leaves {mem / GIB:.1f} GiB and {cpu} vCPUs"
    return Choice(host=host.name, score=round(score(board, v, h, arrivals), 3), words=words)


def _sentence(board: Board, v: int, h: int, why: str) -> str:
    """About this host, of what is said of several."""
    host = board.tables.hosts[h]
    if why == UNREACHABLE:
        return f"it cannot be reached: {host.unreachable}"
    if why == CLOSED:
        return f"the host is closed: {host.closed}"
    if why == NO_MEMORY:
        left, needed = max(0, board.mem[h]), board.tables.mem[v]
        return f"it has {left / GIB:.1f} GiB of memory left, but {needed / GIB:.1f} GiB are needed"
    return of_one_host(why)
