"""Which hosts a rolling operation may close now: by its rules and failure domains, with all hosts that are away."""

from __future__ import annotations

from collections.abc import Collection

from sterna.domain.fleet.operations import Rolling
from sterna.domain.fleet.snapshot import Host
from sterna.domain.fleet.tables import Tables

MOST_NAMED = 3
"""In one sentence."""


class Closing:
    """Judges hosts by index."""

    def __init__(self, tables: Tables, rolling: Rolling) -> None:
        self._tables, self._most = tables, rolling.of_one_domain
        self._why = {
            h: _away(host)
            for h, host in enumerate(tables.hosts)
            if (host.closed or host.unreachable) and host.name not in rolling.opening
        }
        """Hosts that are away already, whoever has closed them, and in which way."""
        self._in_domain: dict[int, set[int]] = {}
        """Of them, those of each failure domain. Of those that are gone nothing is expected any more."""
        for h in self._why:
            if not tables.hosts[h].gone:
                self._in_domain.setdefault(tables.domain_of[h], set()).add(h)
        self._partners: dict[int, set[int]] = {}
        """Those that are not to be down together with it."""
        for group in tables.snapshot.rules.not_down_together if rolling.host_rules else ():
            members = {tables.host_at[name] for name in group if name in tables.host_at}
            for h in members:
                self._partners.setdefault(h, set()).update(members - {h})

    def against(self, h: int, others: Collection[int] = ()) -> str:
        """What speaks against closing it, together with the others; '' where nothing does."""
        hosts = self._tables.hosts
        partners = self._partners.get(h, set())
        near = sorted(partners & self._why.keys()) or sorted(partners.intersection(others))
        if near:
            what = f"a rule keeps {hosts[h].name} and {hosts[near[0]].name} from being down together"
            return f"{what}, and {self._said(near[0])}"
        domain = self._tables.domain_of[h]
        same = self._in_domain.get(domain, set()) | {o for o in others if self._tables.domain_of[o] == domain}
        same.discard(h)
        if self._most is not None and len(same) >= self._most:
            some = ", ".join(self._said(o) for o in sorted(same)[:MOST_NAMED])
            return f"only {self._most} of its failure domain {hosts[h].domain} may be closed at once, and {some}"
        return ""

    def _said(self, h: int) -> str:
        name = self._tables.hosts[h].name
        return f"{name} {self._why[h]}" if h in self._why else f"{name} is closed with it"


def _away(host: Host) -> str:
    return f"cannot be used: {host.unreachable}" if host.unreachable else f"is closed: {host.closed}"
