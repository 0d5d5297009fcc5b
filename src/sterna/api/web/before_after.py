"""What a plan does to each host that it touches: its VMs and their memory before and after, and its link."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from sterna.api.operation_models import PlannedMoveOut
from sterna.controller.records.registry import Host
from sterna.domain.fleet.plans import Bounds
from sterna.domain.model import GuestState
from sterna.ports.fleet import VmRecord

BOUNDS = {
    "egress_s": "the fullest host has to send what it has",
    "ingress_s": "all other hosts have to take it in",
    "largest_s": "the VM that takes longest alone",
    "uplinks_s": "the uplink of a failure domain, or the budget of the fleet",
    "slots_s": "what a host can prepare at once",
    "waves_s": "its waves, one after the other",
}
"""Why no plan ends sooner, in words."""


class HostChange(NamedTuple):
    """One host, in bytes of its VMs' memory."""

    host: str
    emptied: bool
    vms: tuple[int, int]
    """Before, after."""
    memory: tuple[int, int]
    """Of VMs that are on: before, after."""
    total: int | None
    """Of the host; None where it is not known."""
    sends: int
    takes: int

    @property
    def percents(self) -> tuple[int, int] | None:
        """Used by VMs: before, after."""
        if not self.total:
            return None
        before, after = (min(100, round(100 * one / self.total)) for one in self.memory)
        return before, after


def ours(moves: Iterable[PlannedMoveOut], emptied: Collection[str]) -> list[PlannedMoveOut]:
    """Without what others have begun: it is in a plan because it takes room and time."""
    return [move for move in moves if not move.begun or move.source in emptied]


def changes(
    hosts: Iterable[Host], vms: Iterable[VmRecord], moves: Sequence[PlannedMoveOut], emptied: Collection[str]
) -> list[HostChange]:
    """Each host that something leaves or reaches; those that are emptied are first."""
    at: dict[str, list[VmRecord]] = {}
    memory: dict[str, int] = {}
    for vm in vms:
        if vm.state is GuestState.ABSENT:
            continue
        at.setdefault(vm.host, []).append(vm)
        memory[vm.uuid] = 0 if vm.state is GuestState.SHUTOFF else vm.memory_bytes or 0
    touched = {name for move in moves for name in (move.source, move.destination)}
    found = []
    for host in hosts:
        if host.name not in touched:
            continue
        out = [move for move in moves if move.source == host.name]
        into = [move for move in moves if move.destination == host.name]
        sends, takes = (sum(memory.get(move.vm_uuid, 0) for move in some) for some in (out, into))
        here = at.get(host.name, [])
        used = sum(memory[vm.uuid] for vm in here)
        change = HostChange(
            host=host.name,
            emptied=host.name in emptied,
            vms=(len(here), len(here) - len(out) + len(into)),
            memory=(used, used - sends + takes),
            total=host.facts.memory_total_bytes if host.described else None,
            sends=sends,
            takes=takes,
        )
        found.append(change)
    return sorted(found, key=lambda one: (not one.emptied, one.host))


def bounds_of(bounds: Bounds) -> list[tuple[str, float]]:
    """Why no plan ends sooner, the longest first: words, seconds."""
    seen = [(words, float(getattr(bounds, name))) for name, words in BOUNDS.items()]
    return sorted(((words, s) for words, s in seen if s > 0), key=lambda one: -one[1])
