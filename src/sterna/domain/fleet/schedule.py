"""Ordered moves as jobs for the simulation, and as moves with their times for the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.order import Ordered
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.plans import Move, Purpose
from sterna.domain.fleet.simulation import Job, Simulation
from sterna.domain.fleet.tables import Tables


@dataclass(frozen=True)
class Planned:
    """A move with its purpose, in the order of its host's queue."""

    ordered: Ordered
    purpose: Purpose
    left_bytes: float | None = None
    """Of one that runs already."""


def queue(moves: Sequence[Planned], paces: Paces) -> list[Planned]:
    """The moves in the order in which they are to begin: those that run, by priority, longest first."""

    def key(place: int) -> tuple[bool, int, float, int]:
        ordered = moves[place].ordered
        vm = paces.tables.vms[ordered.v]
        cap = paces.cap(ordered.source, ordered.target)
        return (
            not ordered.begun,
            -vm.priority,
            -paces.size[ordered.v] / max(1.0, paces.advance(ordered.v, cap)),
            place,
        )

    places = sorted(range(len(moves)), key=key)
    number_of = {place: number for number, place in enumerate(places)}
    result = []
    for place in places:
        old = moves[place].ordered
        after = tuple(sorted(number_of[before] for before in old.after))
        new = Ordered(old.v, old.source, old.target, after, old.parking, old.begun)
        result.append(Planned(new, moves[place].purpose, moves[place].left_bytes))
    return result


def jobs(moves: Sequence[Planned]) -> list[Job]:
    """For one run of the simulation."""
    return [
        Job(
            v=move.ordered.v,
            source=move.ordered.source,
            target=move.ordered.target,
            after=move.ordered.after,
            begun=move.ordered.begun,
            left=move.left_bytes or 0.0,
        )
        for move in moves
    ]


def play(moves: Sequence[Planned], budgets: Budgets, paces: Paces) -> tuple[float, list[Job]]:
    """When the last one ends, and each with its times."""
    played = jobs(moves)
    return Simulation(played, budgets, paces).run(), played


def as_moves(
    tables: Tables,
    planned: Sequence[Planned],
    played: Sequence[Job],
    *,
    first: int = 0,
    wave: int = 0,
    at_s: float = 0.0,
) -> list[Move]:
    """For the plan. `first`: the first one's number."""
    made = []
    for number, (move, job) in enumerate(zip(planned, played, strict=True), start=first):
        vm = tables.vms[job.v]
        made.append(
            Move(
                number=number,
                vm=vm.uuid,
                name=vm.name,
                source=tables.hosts[job.source].name,
                target=tables.hosts[job.target].name,
                purpose=move.purpose,
                wave=wave,
                after=tuple(first + before for before in job.after),
                begun=job.begun,
                start_s=round(at_s + max(0.0, job.start_s), 3),
                end_s=round(at_s + job.end_s, 3),
            )
        )
    return made
