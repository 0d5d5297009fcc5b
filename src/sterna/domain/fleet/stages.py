"""The hosts of a rolling operation: how far each one is, and what follows.

The hosts of a wave are closed together. From there each goes on by itself: it is emptied, something is done to it,
its agent is up again, it takes VMs again. The next wave begins when no host of the one before is closed any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from sterna.domain.durations import in_words
from sterna.domain.fleet.course import OperationStatus
from sterna.domain.model import Value

USUAL_BETWEEN_S = 300.0
"""What is done to a host takes so long until one has been measured."""
UNDONE = "the operation was undone before its turn"


class Stage(StrEnum):
    """Stage of a host in a rolling operation."""

    WAITING = "waiting"
    """Its wave has not come."""
    DRAINING = "draining"
    """It is closed, and its VMs move away."""
    EMPTY = "empty"
    """It has listed no VMs any more. Nothing has been done to it yet."""
    BETWEEN = "between"
    """What is to be done to it may have begun."""
    BACK = "back"
    """That is over, and its agent is up."""
    DONE = "done"
    """It takes VMs again, unless a person keeps it closed."""
    SKIPPED = "skipped"
    """Nothing more is done to it."""

    @property
    def closed(self) -> bool:
        """Must it take no VMs?"""
        return self in (Stage.DRAINING, Stage.EMPTY, Stage.BETWEEN, Stage.BACK)

    @property
    def ended(self) -> bool:
        """Nothing more happens to it by itself."""
        return self in (Stage.DONE, Stage.SKIPPED)


class Between(Value):
    """What is done to an empty host, and when it counts as back. Nothing set: somebody else restarts it, or its
    agent."""

    webhook: str = ""
    """Called for each host; ''."""
    command: bool = False
    """The controller runs the command of its settings."""
    by_hand: bool = False
    """A person or a program says that it is done."""
    back_within_s: float = 1800.0
    """A host that takes longer pauses the operation."""
    agent_version: str = ""
    """Of its agent, before it is opened. '': any."""

    @property
    def asks(self) -> bool:
        """Is anything asked for by the controller?"""
        return bool(self.webhook) or self.command


class HostStep(Value):
    """One host of a rolling operation."""

    host: str
    stage: Stage = Stage.WAITING
    wave: int | None = None
    """From 0; None: it has not begun."""
    since: str = ""
    """Of this stage, or of the resumption: ISO 8601 UTC, the clock of the controller that wrote it."""
    reason: str = ""
    """Why it was skipped."""
    boot: str = ""
    """The life of its agent when `between` began: it has restarted once that is another one."""
    rounds: int = 0
    """How often `between` began."""
    accepted_at: str = ""
    """The webhook or the command has accepted it; ''."""
    done_at: str = ""
    """Somebody has said that it is done; ''."""
    done_by: str = ""
    took_s: float | None = None
    """From its being empty until it was back."""
    left_closed: bool = False
    """It was gone while something was done to it: its state is unknown. Until it is done, or a person opens it, it
    stays closed."""

    @property
    def keeps_closed(self) -> bool:
        """Must it take no VMs, also after an undo?"""
        return self.stage.closed or (self.left_closed and self.stage is not Stage.DONE)


class Heard(Value):
    """What is known of a host's agent now."""

    up: bool
    why: str = ""
    """Why it cannot be used."""
    seen_at: str = ""
    """When it was heard of last, by this controller's clock."""
    boot: str = ""
    version: str = ""
    """'': its agent is older than such reports."""
    gone: str = ""
    """Why it is not expected back; ''."""


class Change(Value):
    """One host's step, before and after. Written only where it is still as before."""

    was: HostStep
    now: HostStep

    @property
    def opens(self) -> bool:
        """Does the host take VMs again?"""
        return self.was.stage.closed and self.now.stage.ended and not self.now.keeps_closed


def missing(step: HostStep, between: Between, heard: Heard) -> str:
    """What keeps a host from being back: one sentence; '' where it is back."""
    host = step.host
    if not step.done_at:
        if between.asks and not step.accepted_at:
            return f"the {'webhook' if between.webhook else 'command'} for {host} has not accepted yet"
        if between.by_hand:
            return f"nobody has reported yet that {host} is done"
        if heard.boot == step.boot and heard.up:
            return f"the agent of {host} has not restarted yet"
    elif not _is_after(heard.seen_at, step.done_at):
        return f"no heartbeat from the agent of {host} since it was reported as done"
    if not heard.up:
        return f"{host} is not back: {heard.why}"
    if between.agent_version and heard.version != between.agent_version:
        has = heard.version or "an unknown version"
        return f"the agent of {host} has version {has}, but needs {between.agent_version}"
    return ""


def _is_after(one: str, other: str) -> bool:
    return bool(one) and datetime.fromisoformat(one) > datetime.fromisoformat(other)


def deadline_s(step: HostStep, between: Between, now: datetime) -> float | None:
    """Seconds until a host has to be back, negative if that is over. None: a person is waited for."""
    if between.by_hand and not between.asks and not step.done_at:
        return None
    began = max(datetime.fromisoformat(at) for at in (step.since, step.done_at) if at)
    return between.back_within_s - (now - began).total_seconds()


def overdue(steps: Iterable[HostStep], between: Between, heard: Mapping[str, Heard], now: datetime) -> str:
    """Why the operation pauses: hosts that are not back in time. '' where there are none."""
    late = []
    for step in steps:
        left_s = deadline_s(step, between, now) if step.stage is Stage.BETWEEN else None
        if left_s is not None and left_s < 0:
            late.append(missing(step, between, heard[step.host]))
    found = [why for why in late if why]
    within = f"within {in_words(between.back_within_s)}"
    return f"not back {within}: {'; '.join(found[:3])}" + (" and others" if len(found) > 3 else "") if found else ""


def come_back(
    steps: Iterable[HostStep], between: Between, heard: Mapping[str, Heard], now: datetime
) -> tuple[Change, ...]:
    """Hosts that go on because of what is heard of them: they are back, are opened, or are gone."""
    found = []
    for step in (one for one in steps if one.stage.closed):
        new = _come_back(step, between, heard[step.host], now)
        if new is not step:
            found.append(Change(was=step, now=new))
    return tuple(found)


def _come_back(step: HostStep, between: Between, heard: Heard, now: datetime) -> HostStep:
    if heard.gone and step.stage in (Stage.BETWEEN, Stage.BACK):
        reason = f"{step.host} {heard.gone} during its maintenance: it stays closed"
        return moved(step, Stage.SKIPPED, now, reason=reason, left_closed=True)
    if heard.gone:
        return moved(step, Stage.SKIPPED, now, reason=f"{step.host} {heard.gone}")
    if step.stage is Stage.BETWEEN and not missing(step, between, heard):
        took_s = (now - datetime.fromisoformat(step.since)).total_seconds()
        return moved(step, Stage.BACK, now, took_s=max(0.0, took_s))
    if step.stage is Stage.BACK and heard.up:
        return moved(step, Stage.DONE, now)
    return step


def moved(step: HostStep, stage: Stage, now: datetime, **more: object) -> HostStep:
    """The host's step at its next stage."""
    return step.model_copy(update={"stage": stage, "since": now.isoformat()} | more)


def begun(step: HostStep, boot: str, now: datetime) -> Change:
    """What is to be done to the host may begin. `boot`: the life of its agent now."""
    fresh = {"boot": boot, "rounds": step.rounds + 1, "accepted_at": "", "done_at": "", "done_by": ""}
    return Change(was=step, now=moved(step, Stage.BETWEEN, now, **fresh))


def wave_of(steps: Iterable[HostStep]) -> int:
    """The number of the wave that is under way, or of the next one where none is."""
    waves = [step.wave for step in steps if step.wave is not None and (step.stage.closed or step.stage.ended)]
    closed = [step.wave for step in steps if step.stage.closed and step.wave is not None]
    return max(closed) if closed else max(waves, default=-1) + 1


def between_s(steps: Iterable[HostStep]) -> float:
    """How long what is done to a host is expected to take: the longest that was measured."""
    return max((step.took_s for step in steps if step.took_s is not None), default=USUAL_BETWEEN_S)


def named(steps: Iterable[HostStep], *stages: Stage) -> frozenset[str]:
    """Hosts at one of these stages."""
    return frozenset(step.host for step in steps if step.stage in stages)


def ended_as(steps: Sequence[HostStep]) -> OperationStatus | None:
    """How the operation ends; None while a host is not done with."""
    if not all(step.stage.ended for step in steps):
        return None
    done = all(step.stage is Stage.DONE for step in steps)
    return OperationStatus.DONE if done else OperationStatus.INCOMPLETE


# ---------------------------------------------------------------- what operators ask


def undone(step: HostStep) -> HostStep:
    """After an undo. What may have begun on the host is waited for: it might be rebooted under its VMs."""
    if step.stage in (Stage.WAITING, Stage.DRAINING, Stage.EMPTY):
        return step.model_copy(update={"stage": Stage.SKIPPED, "reason": UNDONE})
    return step


def resumed(step: HostStep, at: str, *, was_opened: bool) -> HostStep:
    """After a resumption. A host that was skipped is tried again, and one that is late has its time again.
    `was_opened`: it takes VMs, so its turn comes again: others may have been closed since."""
    if step.stage is Stage.SKIPPED or (step.stage.closed and was_opened):
        return HostStep(host=step.host, rounds=step.rounds, left_closed=step.left_closed)
    return step.model_copy(update={"since": at}) if step.stage is Stage.BETWEEN else step
