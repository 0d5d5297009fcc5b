"""The plan of a rolling operation: waves, each placed, ordered and played through after the one before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.bounds import bounds
from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.draining import on_their_way, planned
from sterna.domain.fleet.emptying import in_order
from sterna.domain.fleet.operations import Rolling
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.placement import Step
from sterna.domain.fleet.plans import Bounds, Move, Plan, Promise, Purpose, Wave
from sterna.domain.fleet.promise import promise
from sterna.domain.fleet.schedule import as_moves, jobs, queue
from sterna.domain.fleet.tables import Tables
from sterna.domain.fleet.waves import Chosen, Waves


def plan_rolling(tables: Tables, rolling: Rolling, kept: Mapping[int, int], kept_wave: Mapping[str, int]) -> Plan:
    """What empties the hosts wave by wave. `kept`, `kept_wave`: targets and waves of an earlier plan."""
    board = Board(tables)
    board.keep(tables.snapshot.limits.spare_hosts)
    paces = Paces(tables, rolling.may)
    begun, _ = on_their_way(board, set())
    waves = Waves(board, paces, rolling, kept, kept_wave, begun)
    waves.begin()
    story = _Story(board, paces, rolling)
    done: list[int] = []
    while (wave := waves.next()) is not None:
        story.tell(wave, waves.begun)
        waves.end(wave)
        done += wave.hosts
    return Plan(
        moves=tuple(story.moves),
        left=tuple(sorted(waves.left, key=lambda one: (one.host, one.vm))),
        waves=tuple(story.waves),
        skipped=waves.skipped,
        bounds=story.bounds(fewest_waves([tables.hosts[h].domain for h in done], rolling)),
        promise=Promise(expected_s=round(story.expected_s, 1), promised_s=round(story.promised_s, 1)),
    )


def fewest_waves(domains: list[str], rolling: Rolling) -> int:
    """For hosts of these failure domains."""
    fewest = math.ceil(len(domains) / rolling.most_closed)
    if rolling.of_one_domain is not None:
        counts = Counter(domain for domain in domains if domain)
        fewest = max([fewest, *(math.ceil(count / rolling.of_one_domain) for count in counts.values())])
    return fewest


class _Story:
    """The waves one after the other."""

    def __init__(self, board: Board, paces: Paces, rolling: Rolling) -> None:
        self.board = board
        self.paces = paces
        self.rolling = rolling
        self.moves: list[Move] = []
        self.waves: list[Wave] = []
        self.expected_s = self.promised_s = 0.0
        self.least = Bounds()

    def tell(self, wave: Chosen, begun: Sequence[Step]) -> None:
        """Add the wave after those told before. `begun`: moves that run already."""
        tables, number = self.board.tables, len(self.waves)
        rooms = wave.found.residents
        ordered = in_order(self.board, wave.found, begun)
        moves = [planned(tables, one, Purpose.ROOM if one.v in rooms else Purpose.EMPTY) for one in ordered]
        in_turn = queue(moves, self.paces)
        promised, played = promise(in_turn, self.paces)
        self.moves += as_moves(tables, in_turn, played, first=len(self.moves), wave=number, at_s=self.expected_s)
        names = tuple(tables.hosts[h].name for h in sorted(wave.hosts))
        drained = self.expected_s + promised.expected_s
        opened = drained + self.rolling.reboot_s
        self.waves.append(Wave(hosts=names, start_s=self.expected_s, drained_s=drained, open_s=opened))
        self.expected_s = opened
        self.promised_s += promised.promised_s + self.rolling.reboot_s
        mine = bounds(jobs(in_turn), Budgets(self.paces), self.paces)
        self.least = max(self.least, mine, key=lambda one: one.most_s)

    def bounds(self, fewest: int) -> Bounds:
        """Of the longest wave; and all waves, each as long as a reboot at least."""
        return self.least.model_copy(update={"waves_s": fewest * self.rolling.reboot_s})
