"""Plans carried out in every order that their dependencies allow, with an accountant who looks at each instant."""

from __future__ import annotations

from random import Random

from sterna.domain.fleet.plans import Move, Plan
from sterna.domain.fleet.snapshot import Moving, Snapshot
from tests.unit.domain.fleet.usage import Usage


class Player:
    """A fleet in which a plan's moves begin and end."""

    def __init__(self, snapshot: Snapshot, plan: Plan) -> None:
        self.snapshot = snapshot
        self.plan = plan
        self.usage = Usage(snapshot)
        self.vms = {vm.uuid: vm for vm in snapshot.vms}
        self.begun: set[int] = set()
        self.ended: set[int] = set()
        for moving in snapshot.moving:
            self.usage.count(self.vms[moving.vm], moving.target)
        self.begun |= {move.number for move in plan.moves if move.begun}

    def may_begin(self) -> list[Move]:
        """Moves that nothing in the plan keeps."""
        over = [move for move in self.plan.moves if move.number not in self.ended]
        wave = min((move.wave for move in over), default=0)
        return [
            move
            for move in over
            if move.number not in self.begun and move.wave == wave and set(move.after) <= self.ended
        ]

    def begin(self, move: Move) -> None:
        """It counts at both ends."""
        vm = self.vms[move.vm]
        assert vm in self.usage.on[move.source], f"{move.name} is not on {move.source}"
        assert self.usage.allows(vm, move.target)
        assert self.usage.hosts[move.target].closed == ""
        self.usage.count(vm, move.target)
        self.begun.add(move.number)
        assert self.usage.over(move.target) == [], f"{move.name} on {move.target}"
        assert self.usage.broken_rules() <= self.usage.broken_before

    def end(self, move: Move) -> None:
        """It counts on its target."""
        self.usage.discount(self.vms[move.vm], move.source)
        self.ended.add(move.number)

    def running(self) -> list[Move]:
        """Begun and not ended."""
        return [move for move in self.plan.moves if move.number in self.begun - self.ended]

    def play(self, random: Random, steps: int | None = None) -> None:
        """Begin and end moves at random, to the end or so many times."""
        while steps is None or steps > 0:
            choices = [(self.begin, move) for move in self.may_begin()]
            choices += [(self.end, move) for move in self.running()]
            if not choices:
                return
            act, move = random.choice(choices)
            act(move)
            steps = None if steps is None else steps - 1

    def now(self) -> Snapshot:
        """The fleet as it is after what has been played."""
        at = {move.vm: move.target for move in self.plan.moves if move.number in self.ended}
        vms = tuple(
            vm.model_copy(update={"host": at.get(vm.uuid, vm.host), "on_cells": ()}) for vm in self.snapshot.vms
        )
        moving = tuple(Moving(vm=move.vm, target=move.target) for move in self.running())
        return self.snapshot.model_copy(update={"vms": vms, "moving": moving})
