"""How others would empty the same hosts: Nova's and KubeVirt's rules, played in the same fleet.

Nova (conf/compute.py, conf/scheduler.py): one outgoing live migration per host at a time; each goes to the host
with the most free memory when its turn comes. KubeVirt (virt-config): five migrations in the cluster, two out of
one node, no limit for those that come in; its target pod starts first. Both give every copy an equal part of the
link.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.pace import Paces


@dataclass(frozen=True)
class Rule:
    """What limits a peer."""

    name: str
    per_host: int
    in_all: int | None
    setup_s: float
    """Before a copy, within its slot."""


NOVA = Rule("Nova", per_host=1, in_all=None, setup_s=1.2)
KUBEVIRT = Rule("KubeVirt", per_host=2, in_all=5, setup_s=5.0)


@dataclass
class Copy:
    """One migration."""

    v: int
    source: int
    target: int
    left: float
    sends_at_s: float
    rate: float = 0.0


@dataclass
class Peer:
    """A drain by a peer's rules. `run` gives its end, and how many VMs found no host."""

    rule: Rule
    board: Board
    paces: Paces
    now: float = 0.0
    copies: list[Copy] = field(default_factory=list)
    waiting: defaultdict[int, deque[int]] = field(default_factory=lambda: defaultdict(deque))
    stranded: int = 0

    def run(self, hosts: list[int]) -> tuple[float, int]:
        """Empty these hosts."""
        for h in hosts:
            self.board.close(h)
        for v, h in enumerate(self.board.at):
            if h in set(hosts):
                self.waiting[h].append(v)
        self._start()
        while self.copies:
            self._step()
            self._start()
        return self.now, self.stranded

    def _start(self) -> None:
        running = Counter(copy.source for copy in self.copies)
        for source in sorted(self.waiting):
            queue = self.waiting[source]
            while queue and running[source] < self.rule.per_host:
                if self.rule.in_all is not None and len(self.copies) >= self.rule.in_all:
                    return
                v = queue.popleft()
                target = self._emptiest(v)
                if target is None:
                    self.stranded += 1
                    continue
                self.board.take(v, target)
                size = self.paces.size[v]
                self.copies.append(Copy(v, source, target, size, self.now + self.rule.setup_s))
                running[source] += 1

    def _emptiest(self, v: int) -> int | None:
        fitting = (h for h in range(len(self.board.mem)) if self.board.fits(v, h))
        return max(fitting, key=lambda h: (self.board.mem[h], -h), default=None)

    def _step(self) -> None:
        """To the next begin or end of a copy."""
        sending = [copy for copy in self.copies if copy.sends_at_s <= self.now]
        out, into = Counter(c.source for c in sending), Counter(c.target for c in sending)
        for copy in sending:
            parts = (
                self.paces.out[copy.source] / out[copy.source],
                self.paces.into[copy.target] / into[copy.target],
            )
            copy.rate = min(self.paces.cap(copy.source, copy.target), *parts)
        ends = [copy.left / self.paces.advance(copy.v, copy.rate) for copy in sending]
        begins = [copy.sends_at_s - self.now for copy in self.copies if copy.sends_at_s > self.now]
        passed = heapq.nsmallest(1, [*ends, *begins])[0]
        self.now += passed
        for copy in sending:
            copy.left -= self.paces.advance(copy.v, copy.rate) * passed
            if copy.left < 1:
                self.copies.remove(copy)
                self.board.arrive(copy.v, copy.target)
