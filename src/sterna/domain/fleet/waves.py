"""A rolling operation: which hosts are closed together, and where their VMs go.

Hosts that are done come first as targets, so that a VM moves about once. A wave takes hosts of each CPU generation
in proportion: else those that the newest VMs need run out. A host that cannot be emptied is not begun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sterna.domain.fleet.board import USUAL, Board
from sterna.domain.fleet.closing import Closing
from sterna.domain.fleet.emptying import Emptied, empty, leftover, rewind
from sterna.domain.fleet.operations import Rolling
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Step
from sterna.domain.fleet.plans import LeftOver
from sterna.domain.fleet.reasons import immovable

FAILURES = 25
"""Hosts that could not be emptied, after which a wave is begun with those that could. While there are none, all
hosts are tried."""


@dataclass
class Chosen:
    """A wave: its hosts, and what empties them."""

    hosts: list[int]
    found: Emptied


@dataclass
class Waves:
    """What is to be done still, wave by wave."""

    board: Board
    paces: Paces
    rolling: Rolling
    kept: Mapping[int, int]
    kept_wave: Mapping[str, int]
    """Host -> its wave in an earlier plan."""
    begun: list[Step]
    """(VM, target) of migrations that run. They end with the first wave, which closes none of their targets."""
    remaining: list[int] = field(default_factory=list)
    left: list[LeftOver] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    on_host: dict[int, set[int]] = field(default_factory=dict)
    """VMs that run there, as moves end."""

    def __post_init__(self) -> None:
        self.closing = Closing(self.board.tables, self.rolling)

    def begin(self) -> None:
        """Look at all hosts before anything moves: which cannot be emptied whatever is done?"""
        board, tables = self.board, self.board.tables
        for v, _ in self.begun:
            board.give(v, board.at[v])  # who comes to its place waits until it has left
        for v, h in enumerate(board.at):
            self.on_host.setdefault(h, set()).add(v)
        for name in sorted(self.rolling.hosts):
            at = tables.host_at.get(name)
            if at is None:
                self.skipped[name] = f"there is no host {name}"
            elif name in self.rolling.done:
                board.prefer(at)
            elif not self._blocked(at):
                self.remaining.append(at)

    def _blocked(self, h: int) -> bool:
        board, name = self.board, self.board.tables.hosts[h].name
        if board.tables.hosts[h].unreachable:
            self.skipped[name] = f"{name} is unreachable: {board.tables.hosts[h].unreachable}"
        for v in sorted(self.on_host.get(h, set()) - {moving for moving, _ in self.begun}):
            why = immovable(board, v, self.paces)
            if why:
                self.left.append(leftover(board, v, why))
                self.skipped.setdefault(name, why)
        return name in self.skipped

    def next(self) -> Chosen | None:
        """The next wave; None where no host that remains can be emptied."""
        wave = Chosen([], Emptied())
        tried: set[int] = set()
        blocked: list[LeftOver] = []
        while len(wave.hosts) < self.rolling.most_closed:
            if wave.hosts and len({one.host for one in blocked}) >= FAILURES:
                break
            touched = {h for _, h in (*wave.found.steps, *self.begun)}
            touched |= {self.board.at[v] for v in wave.found.residents}
            candidates = self._candidates(wave.hosts, tried | touched)
            if not candidates:
                break
            tried.update(candidates)
            blocked += self._close(wave, candidates)
        if not wave.hosts:
            self._give_up(blocked)
            return None
        self.remaining = [h for h in self.remaining if h not in wave.hosts]
        return wave

    def _candidates(self, closed: Sequence[int], but: set[int]) -> list[int]:
        """Hosts to close with those closed already: by an earlier plan's waves, then of the failure domains with
        the most to do, then the cheapest to empty; in proportion to the CPU generations."""
        tables, board = self.board.tables, self.board
        free = [h for h in self.remaining if h not in but and h not in closed]

        in_domain = Counter(tables.domain_of[h] for h in self.remaining)

        def kept(h: int) -> int:
            return self.kept_wave.get(tables.hosts[h].name, len(self.kept_wave))

        def cost(h: int) -> tuple[int, int, int, int]:
            return kept(h), -in_domain[tables.domain_of[h]], tables.hosts[h].memory_bytes - board.mem[h], h

        kinds: dict[tuple[str, ...], list[int]] = {}
        for h in sorted(free, key=cost):
            kinds.setdefault(tuple(sorted(tables.hosts[h].cpu)), []).append(h)
        in_turn = sorted(
            (kept(h), (place + 0.5) / len(hosts), kind, h)
            for kind, hosts in kinds.items()
            for place, h in enumerate(hosts)
        )
        chosen: list[int] = []
        for *_, h in in_turn:
            if len(closed) + len(chosen) == self.rolling.most_closed:
                break
            if not self.closing.against(h, [*closed, *chosen]):
                chosen.append(h)
        return chosen

    def _close(self, wave: Chosen, candidates: Sequence[int]) -> list[LeftOver]:
        """Close them and find places for their VMs. Those that cannot be emptied are opened again; why not."""
        board = self.board
        was_open = {h for h in candidates if board.open[h]}
        for h in candidates:
            board.close(h)
        moving = {v for v, _ in self.begun}
        vms = [v for h in candidates for v in self.on_host.get(h, ()) if v not in moving]
        fixed = moving | {v for v, _ in wave.found.steps}
        found = empty(board, vms, self.paces, fixed=fixed, kept=self.kept)
        failed = {board.tables.host_at[one.host] for one in found.left}
        undone = [(v, h) for v, h in found.steps if board.at[v] in failed]
        rewind(board, undone)
        for h in failed & was_open:
            board.reopen(h, USUAL)
        wave.hosts += [h for h in candidates if h not in failed]
        wave.found.steps += [step for step in found.steps if step not in set(undone)]
        wave.found.residents |= found.residents
        self._undo_needless(wave, {h for _, h in undone})
        return found.left

    def _undo_needless(self, wave: Chosen, hosts: set[int]) -> None:
        """Residents stay that had moved on for a VM which does not come now."""
        board = self.board
        for v, target in list(wave.found.steps):
            if v in wave.found.residents and board.at[v] in hosts and board.fits(v, board.at[v]):
                rewind(board, [(v, target)])
                wave.found.steps.remove((v, target))
                wave.found.residents.discard(v)

    def _give_up(self, blocked: list[LeftOver]) -> None:
        """Nothing more can be emptied: say why, for each VM that fits nowhere. All hosts have been tried, but those
        that may not be closed and targets of migrations that run."""
        self.left += blocked
        for one in blocked:
            self.skipped.setdefault(one.host, one.reason)
        for h in self.remaining:
            name = self.board.tables.hosts[h].name
            why = self.closing.against(h)
            self.skipped.setdefault(name, why or f"{name} is not begun while VMs are being migrated to it")

    def end(self, wave: Chosen) -> None:
        """The wave is over: its VMs are where they were to go, its hosts are done and open."""
        board = self.board
        for v, h in (*wave.found.steps, *self.begun):
            self.on_host[board.at[v]].discard(v)
            self.on_host.setdefault(h, set()).add(v)
            board.arrive(v, h)
        self.begun = []
        for h in wave.hosts:
            if not board.tables.hosts[h].closed:
                board.reopen(h, USUAL)
            board.prefer(h)
