"""What copies share, numbered: each host's link out and in, failure domains' uplinks, the fleet."""

from __future__ import annotations

from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.rates import copies_at_once


class Budgets:
    """Bytes/s and copies at once of each budget. Host h's links are 2h (out) and 2h + 1 (in)."""

    def __init__(self, paces: Paces) -> None:
        tables = paces.tables
        limits = tables.snapshot.limits
        self.paces = paces
        self.domain_of = tables.domain_of
        self.names: list[str] = []
        self.room: list[float] = []
        self.slots: list[int] = []
        fastest = max(paces.stream, default=1.0)
        for h, host in enumerate(tables.hosts):
            self._add(f"the link out of {host.name}", paces.out[h], paces.stream[h])
            self._add(f"the link into {host.name}", paces.into[h], paces.stream[h])
        self.up: dict[int, int] = {}
        self.down: dict[int, int] = {}
        for domain in sorted(tables.snapshot.domains, key=lambda domain: domain.name):
            if domain.name not in tables.domain_names:
                continue
            number = tables.domain_names.index(domain.name)
            if domain.up_bytes_s:
                self.up[number] = self._add(f"the uplink of {domain.name}", domain.up_bytes_s, fastest)
            if domain.down_bytes_s:
                self.down[number] = self._add(f"the downlink of {domain.name}", domain.down_bytes_s, fastest)
        self.fleet: tuple[int, ...] = ()
        if limits.fleet_bytes_s:
            self.fleet = (self._add("the fleet's budget", limits.fleet_bytes_s, fastest),)

    def _add(self, name: str, budget: float, stream: float) -> int:
        self.names.append(name)
        self.room.append(float(budget))
        self.slots.append(copies_at_once(budget, stream))
        return len(self.names) - 1

    def of(self, source: int, target: int) -> tuple[int, ...]:
        """What a copy between the two takes of."""
        taken = (2 * source, 2 * target + 1, *self.fleet)
        leaves, enters = self.domain_of[source], self.domain_of[target]
        if leaves == enters:
            return taken
        return taken + tuple(
            budgets[domain] for budgets, domain in ((self.up, leaves), (self.down, enters)) if domain in budgets
        )
