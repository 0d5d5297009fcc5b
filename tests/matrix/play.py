"""Plays one case: a guest, a script (what is meant to happen), and faults at named moments; then the audit."""

from __future__ import annotations

from dataclasses import dataclass, field

from sterna.domain.objective import objective
from sterna.domain.policies import May
from sterna.sim.libvirt import guests as fate
from sterna.sim.world.things import MIB
from tests.asking import wish
from tests.matrix.auditor import Facts, facts
from tests.matrix.faults import CATALOGUE
from tests.matrix.moments import Moment
from tests.matrix.mortal_controller import MortalController
from tests.matrix.scripts import KINDS, PLANNED, THROUGH_CONTROLLER, WISHES, expected, planned
from tests.matrix.stage import Stage, Unsettled


@dataclass(frozen=True)
class Case:
    """One guest, one script, and the faults added to it."""

    kind: str
    script: str
    faults: tuple[tuple[str, str], ...] = ()
    """(moment's key, fault's name)."""

    @property
    def name(self) -> str:
        """What a failing case is replayed by."""
        return "|".join([self.kind, self.script, *(f"{key}={fault}" for key, fault in self.faults)])

    @classmethod
    def named(cls, name: str) -> Case:
        """The inverse of `name`."""
        kind, script, *faults = name.split("|")
        pairs = [fault.rpartition("=")[::2] for fault in faults]
        return cls(kind, script, tuple((key, fault) for key, fault in pairs))


@dataclass
class Result:
    """What became of a case."""

    case: Case
    verdict: str = ""
    problems: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    trace: list[Moment] = field(default_factory=list)
    struck: int = 0
    statuses: dict[str, str] = field(default_factory=dict)
    """Host -> the last status in its journal."""

    def __str__(self) -> str:
        replay = f"STERNA_CASE='{self.case.name}' pytest -s tests/matrix -k replay"
        return "\n".join(
            [
                f"\n=== {self.case.name}\n    replay: {replay}",
                *(f"  !! {p}" for p in self.problems),
                *(f"  {line}" for line in self.story),
            ]
        )


def play(case: Case, *, again: bool = True, limit_s: float = 1800.0, states: bool = False) -> Result:
    """Play it, `limit_s` virtual seconds at the most. Never raises for what the product does wrong.

    `states`: the trace says in which state each moment found everything.
    """
    stage = Stage()
    stage.fingerprinting = states
    stage.asked, stage.planned = wish(WISHES[case.kind]), PLANNED.get(case.kind)
    if case.script in THROUGH_CONTROLLER:
        stage.controller = MortalController(stage)
    stage.limit_s = limit_s
    result = Result(case)

    async def scene() -> None:
        before = facts(stage.world, "")
        guest = {"dirty_bytes_per_s": 40 * MIB} | KINDS[case.kind]
        working_set = guest.pop("working_set_bytes", 64 * MIB)
        stage.vm = fate.add_vm(stage.world, "host1", "tern", **guest)
        stage.world.guests[stage.vm].working_set_bytes = working_set
        stage.auditor.remember(stage.vm, "host1")
        start = facts(stage.world, stage.vm)
        vm = start["host1"] - before["host1"]
        before["shared"] = start["shared"]
        stage.begin({key: CATALOGUE[fault] for key, fault in planned(case.script) + case.faults})
        result.verdict = await _migrate(stage, result, "host1", "host2", before, vm)
        result.trace, result.struck = list(stage.trace), len(stage.struck)
        stage.plans.clear()
        if result.verdict == "stayed" and stage.status("host1") and _outlived(case):
            result.problems.append("agents were away for seconds, and the migration was given up")
        if not case.faults and result.verdict != expected(case.kind, case.script):
            result.problems.append(f"it should have {expected(case.kind, case.script)}, and {result.verdict}")
        if again and not result.problems:
            await _again(stage, result, before, vm)

    try:
        stage.run(scene)
    except Unsettled as error:
        result.problems.append(f"NEVER SETTLED: {error}")
    except Exception as error:  # the harness's own fault, or the product's: both must be seen
        result.problems.append(f"{type(error).__name__}: {error}")
    result.problems[:0] = stage.auditor.findings
    result.problems += [f"the bus refuses: {what}" for what in dict.fromkeys(stage.broker.refused)]
    result.story = stage.story
    result.statuses = {host: stage.status(host) for host in stage.world.hosts}
    return result


def _outlived(case: Case) -> bool:
    """Agents that die for seconds fail nothing that was accepted: libvirt copies on, and is joined again.

    But between saying that libvirt is asked, and asking it, a death is taken for a copy that failed.
    """
    if case.script not in ("forward", "switched", "steered", "switched-in-time") or len(case.faults) != 1:
        return False
    if case.kind in ("paused", "hurried", "given-up"):
        return False  # what would have met the deadline may have fallen into these seconds
    (key, fault), *_ = case.faults
    return fault in ("kill-3s", "kill-peer-3s", "kill-both-3s") and "note:copy-started after" not in key


async def _migrate(stage: Stage, result: Result, source: str, to: str, before: Facts, vm: frozenset[str]) -> str:
    """One migration to its end, audited. The world's verdict."""
    refused = await stage.start(source, to)
    await stage.settled()
    verdict = stage.auditor.verdict(stage.vm, source, to, before, vm, stage.closed_ms(to))
    status = stage.status(source) or (stage.controller.status(stage.migration) if stage.controller else "")
    allowed = {
        "completed": ("completed",),
        "stayed": ("failed", "cancelled"),
        f"ended at {source}": ("failed", "cancelled"),
        f"ended at {to}": ("completed",),
    }[verdict]
    never_began = refused and not status and verdict in ("stayed", f"ended at {source}")
    if status not in allowed and not never_began:
        said = status or "nothing"
        result.problems.append(f"A LIE: the journal says {said} ({refused}), the world says {verdict}")
    if stage.aborted_in_time and verdict == "completed":
        result.problems.append("A LIE: an abort was accepted before the copy began, and it completed all the same")
    stage.aborted_in_time = False
    result.problems += broken_promises(stage, source, to, verdict)
    return verdict


LONGEST_FAULT_S = 70.0
"""Nobody steers a copy while an agent, its libvirt or its clock is away."""
ENDS_IN_S = 10.0
"""What a copy that is given up, or switched, may take from then on."""


def broken_promises(stage: Stage, source: str, to: str, verdict: str) -> list[str]:
    """What the copy cost the guest against what its user allowed, as the world has it."""
    found, wanted = [], objective(stage.asked)[0]
    assert wanted is not None
    job = stage.world.hosts[to].domains[stage.vm].completed if verdict == "completed" else None
    went_postcopy = any("in post-copy" in line for line in stage.story)
    if job is not None and job.downtime_ms is not None and not went_postcopy and May.PAUSE not in wanted.may:
        most = wanted.max_downtime_ms + stage.world.pace.switch_ms
        if job.downtime_ms > most + 1:
            found.append(f"it stood still for {job.downtime_ms} ms, and {wanted.max_downtime_ms} ms were allowed")
    if wanted.finish_within_s is not None and not went_postcopy:
        late_s = stage.copied_until_s(source) - wanted.finish_within_s
        if late_s > LONGEST_FAULT_S + ENDS_IN_S:
            found.append(f"its copy ended {late_s:.0f} s after the time it was given")
    return found


async def _again(stage: Stage, result: Result, before: Facts, vm: frozenset[str]) -> None:
    """The same VM migrates again: to the same place, or back."""
    stage.tell_story("client", "--- again")
    stage.world.guests[stage.vm].dirty_bytes_per_s = 0  # whatever was allowed, this one converges
    side = stage.auditor.guests[stage.vm].last_ran
    if result.verdict.startswith("ended"):
        if stage.vm not in stage.world.hosts[side].domains:
            return  # a transient guest is gone for good
        stage.world.start(side, stage.vm)
    other = stage.peer_of(side)
    verdict = await _migrate(stage, result, side, other, before, vm)
    if verdict != "completed":
        result.problems.append(f"migrating it again, from {side} to {other}: {verdict} ({stage.status(side)})")
