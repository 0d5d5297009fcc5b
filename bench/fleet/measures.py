"""What is measured of the planner: each gives rows of plain JSON."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from typing import Any

from bench.fleet.peers import KUBEVIRT, NOVA, Peer
from bench.fleet.world import AZURE, HUAWEI, Fleet, make
from sterna.domain.fleet.board import Board
from sterna.domain.fleet.budgets import Budgets
from sterna.domain.fleet.operations import Drain, Rolling
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Plan, Purpose
from sterna.domain.fleet.simulation import Job, Simulation
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.tables import Tables
from sterna.domain.policies import May

Row = dict[str, Any]
SIZES = {"Huawei": HUAWEI, "Azure": AZURE}
MAY = frozenset({May.POSTCOPY})
SEEDS = (1, 2)


def fleets(used: float = 0.75, **more: Any) -> Iterator[tuple[str, int, Snapshot]]:
    """(sizes, seed, fleet)."""
    for name, sizes in SIZES.items():
        for seed in SEEDS:
            yield name, seed, make(Fleet(used=used, sizes=sizes, **more), seed)


def timed(snapshot: Snapshot, operation: Drain | Rolling) -> tuple[Plan, float]:
    """The plan, and the processor's seconds it took: the best of three, what else is in memory left aside."""
    gc.collect()
    gc.freeze()
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        answer = plan(snapshot, operation)
        best = min(best, time.process_time() - begun)
    return answer, best


def drain_of(snapshot: Snapshot, hosts: int, seed: int) -> Drain:
    """Hosts at random."""
    chosen = random.Random(seed).sample([host.name for host in snapshot.hosts], hosts)  # noqa: S311
    return Drain(hosts=frozenset(chosen), may=MAY)


def plans() -> list[Row]:
    """Plans of 50 hosts at 60 to 90 % use: time, what makes room, what is left."""
    rows = []
    for used in (0.6, 0.75, 0.85, 0.9):
        for name, seed, snapshot in fleets(used):
            answer, seconds = timed(snapshot, drain_of(snapshot, 50, seed))
            rooms = sum(move.purpose is Purpose.ROOM for move in answer.moves)
            row = {"used": used, "sizes": name, "seed": seed, "seconds": seconds, "moves": len(answer.moves)}
            rows.append(row | {"rooms": rooms, "left": len(answer.left)})
    return rows


def makespans() -> list[Row]:
    """24 drains of one host and 24 of 50 against the lower bound, by Sterna, Nova and KubeVirt."""
    rows = []
    for name, seed, snapshot in fleets():
        for hosts in (1, 50):
            for number in range(6):
                drain = drain_of(snapshot, hosts, 100 * seed + number)
                answer = plan(snapshot, drain)
                row: Row = {"sizes": name, "seed": seed, "hosts": hosts, "bound_s": answer.bounds.most_s}
                rows.append(row | {"Sterna": answer.promise.expected_s} | _peers(snapshot, drain))
    return rows


def _peers(snapshot: Snapshot, drain: Drain) -> Row:
    tables = Tables(snapshot)
    hosts = sorted(tables.host_at[name] for name in drain.hosts)
    paces = Paces(tables, MAY)
    return {rule.name: Peer(rule, Board(tables), paces).run(hosts)[0] for rule in (NOVA, KUBEVIRT)}


def rolling() -> list[Row]:
    """A whole upgrade of 1,000 hosts, at most 50 closed at once."""
    rows = []
    for name, seed, snapshot in fleets():
        wish = Rolling(hosts=frozenset(host.name for host in snapshot.hosts), most_closed=50, may=MAY)
        answer, seconds = timed(snapshot, wish)
        row = {"sizes": name, "seed": seed, "seconds": seconds, "waves": len(answer.waves)}
        row |= {"moves_per_vm": len(answer.moves) / len(snapshot.vms), "left": len(answer.left)}
        row |= {"skipped": len(answer.skipped), "bound_waves": answer.bounds.waves_s / wish.reboot_s}
        rows.append(row | {"expected_s": answer.promise.expected_s})
    return rows


def promises() -> list[Row]:
    """100 drains whose dirty rates the planner does not know: their ends, and what was promised."""
    rows = []
    for name, seed, truth in fleets():
        unknown = tuple(vm.model_copy(update={"dirty_bytes_s": None}) for vm in truth.vms)
        seen = truth.model_copy(update={"vms": unknown})
        tables = Tables(truth)
        for hosts, times in ((1, 13), (50, 12)):
            for number in range(times):
                answer = plan(seen, drain_of(truth, hosts, 1000 * seed + number))
                actual = played(answer, tables)
                row = {"sizes": name, "seed": seed, "hosts": hosts, "actual_s": actual}
                made = answer.promise
                rows.append(row | {"expected_s": made.expected_s, "promised_s": made.promised_s})
    return rows


def played(answer: Plan, tables: Tables) -> float:
    """When the plan's moves end in a fleet with these dirty rates."""
    paces = Paces(tables, MAY)
    jobs = [
        Job(tables.vm_at[move.vm], tables.host_at[move.source], tables.host_at[move.target], move.after)
        for move in answer.moves
    ]
    return Simulation(jobs, Budgets(paces), paces).run()


MEASURES = {"plans": plans, "makespans": makespans, "rolling": rolling, "promises": promises}
