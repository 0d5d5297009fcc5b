"""Will this copy end by itself, and what if not: samples in, a verdict with its reason out.

Pure and without a clock: time is what the hypervisor counts (`JobSample.elapsed_ms`), so an agent goes on with the
next samples after a restart. Decisions fall at iteration boundaries, where QEMU has just counted the dirty pages,
on a smoothed rate; only the deadline is looked at with every sample. The model is KubeVirt's VEP 248: a stall is no
new minimum of remaining data for a while, and the switch then waits for a local minimum. Called by
`migration/source/watch.py`, which acts on the verdicts.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

from sterna.domain.copying import JobSample
from sterna.domain.model import Value
from sterna.domain.policies import May

SMOOTHING = 0.4
"""Weight of the newest rate (VEP 248: libvirt's own figure is a snapshot of about 100 ms)."""
SMOOTHING_PER_MS = 1000
"""... of one that covers this much time; shorter gaps weigh less."""
PROGRESS = 0.96
"""A new minimum is at most this share of the old one (VEP 248)."""
NEAR_MINIMUM = 1.04
"""Local minimum: at most this much above the best seen (VEP 248)."""
FEWEST_BOUNDARIES = 2
"""A stall is seen twice, or one odd pass decides."""
RAISE_SOONER = 4
"""The downtime is raised within its limit after a fourth of the patience: harmless, and can be taken back."""
HEADROOM = 1.25
"""Downtime limits and times left are reckoned this much larger than measured."""
SWITCH_MS = 1000
"""What a switch takes beside the bytes: post-copy was on its way 0.5 s after the command, done 1.5 s after (field
notes), 0.5 s of it bytes."""
SETTLE_MS = 3000
"""An order to QEMU needs this long to take effect: no second order before."""
DIP = 0.5
"""A rate below this share of the usual one is a dip of the network: it does not count towards a stall."""
USUAL_SLOWER = 100
"""How much slower the usual rate follows: a link that stays at a third for 3 minutes is a slow link."""
GIVE_UP_AFTER = 2
"""Patiences without progress after which a copy that nothing may be done to is hopeless."""
GIVE_UP_SHARE = 0.5
"""... but no less than this share of the time that the user gave it: the load may end."""
CONVERGES_BELOW = 0.95
"""A guest that dirties less than this share of the rate gets to the end by itself."""
THROTTLE_FIRST, THROTTLE_STEP, THROTTLE_MOST = 20, 10, 99
"""Percent; QEMU's auto-converge."""


class Action(StrEnum):
    """What to do to the copy."""

    CONTINUE = "continue"
    RAISE_DOWNTIME = "raise-downtime"
    THROTTLE = "throttle"
    POSTCOPY = "postcopy"
    PAUSE = "pause"
    GIVE_UP = "give-up"


ENDINGS = frozenset({Action.POSTCOPY, Action.PAUSE, Action.GIVE_UP})


class Verdict(Value):
    """An action and the sentence an operator reads."""

    action: Action
    why: str
    downtime_ms: int | None = None
    """With RAISE_DOWNTIME."""
    throttle_percent: int | None = None
    """With THROTTLE."""


class Rules(Value):
    """What this copy may cost, from its objective. Times in ms of the hypervisor's own count of the copy."""

    first_downtime_ms: int
    max_downtime_ms: int
    deadline_ms: int | None = None
    """The copy must have ended then. None: it has the time it takes."""
    may: frozenset[May] = frozenset()
    """What can be done while it runs: of what is allowed, what the copy was started for."""
    patience_ms: int = 40_000
    dirty_rate: int | None = None
    """Bytes/s the guest was measured to dirty before the copy began: QEMU has no value during the first pass."""

    @property
    def patience(self) -> int:
        """In ms; at most an eighth of the time there is: a stall must be seen in time to do something."""
        return self.patience_ms if self.deadline_ms is None else min(self.patience_ms, self.deadline_ms // 8)

    @property
    def hopeless_after(self) -> int:
        """In ms without progress."""
        return max(GIVE_UP_AFTER * self.patience, int(GIVE_UP_SHARE * (self.deadline_ms or 0)))


class State(Value):
    """What is remembered between samples."""

    elapsed_ms: int = 0
    sent: int | None = None
    rate: float | None = None
    """Smoothed, bytes/s."""
    usual_rate: float | None = None
    """The same, far slower: what the link carries when nothing is in the way."""
    iteration: int | None = None
    remaining: int | None = None
    """As the newest sample has it, bytes."""
    pass_began_ms: int = 0
    pass_sent: int = 0
    """Bytes sent when this pass began."""
    boundary_left: int | None = None
    """What was left when this pass began, bytes; None in the first."""
    best: int | None = None
    """Least remaining data at a boundary, bytes."""
    best_at_ms: int = 0
    boundaries: int = 0
    """Since the best."""
    downtime_ms: int = 0
    """QEMU's limit as last ordered; 0: as the copy began."""
    throttle: int = 0
    ordered_at_ms: int | None = None
    ended: Verdict | None = None
    """The order that ends it: repeated until the samples stop; at the deadline it is given up even so."""


def _went_on(why: str) -> Verdict:
    return Verdict(action=Action.CONTINUE, why=why)


def judge(rules: Rules, state: State, sample: JobSample) -> tuple[State, Verdict]:
    """The state after one more sample, and what to do now."""
    if sample.elapsed_ms is None or sample.elapsed_ms < state.elapsed_ms:
        return state, _went_on("this sample has no new information")
    seen, boundary = _observe(state, sample)
    verdict = _decide(rules, seen, sample, boundary)
    return _remember(seen, verdict), verdict


def _observe(state: State, sample: JobSample) -> tuple[State, int | None]:
    """The sample taken in; and what was left at the boundary, if an iteration began since the one before."""
    now = sample.elapsed_ms or 0
    rate, usual = _rates(state, sample, now - state.elapsed_ms)
    changes: dict[str, Any] = {"elapsed_ms": now, "rate": rate, "usual_rate": usual}
    if sample.memory_processed is not None:
        changes["sent"] = sample.memory_processed
    if sample.memory_remaining is not None:
        changes["remaining"] = sample.memory_remaining
    left = None
    if sample.iteration is not None and sample.iteration != state.iteration:
        changes |= {"iteration": sample.iteration, "pass_began_ms": now, "pass_sent": sample.memory_processed or 0}
        # The first pass counts all memory: only from the second on is it what the guest has dirtied.
        if sample.iteration > 1 and sample.memory_remaining is not None:
            left = _left_at_boundary(state, sample, sample.memory_remaining)
            changes |= _minimum(state, left, now) | {"boundary_left": left}
    if rate is not None and usual is not None and rate < DIP * usual:
        changes["best_at_ms"] = changes.get("best_at_ms", state.best_at_ms) + now - state.elapsed_ms
    if (sample.throttle_percent or 0) > state.throttle:  # QEMU does it by itself: its effect is yet to be seen
        changes |= {"throttle": sample.throttle_percent, "best_at_ms": now, "boundaries": 0}
    return state.model_copy(update=changes), left


def _left_at_boundary(state: State, sample: JobSample, remaining: int) -> int:
    """Bytes that were left when the pass began; part of them has been sent by the time of the sample.

    QEMU's expected downtime is what was left at its last count over its rate; up to 100 ms old, so it may be the
    count before. What was sent since the sample before is exact but for what QEMU left over of the old pass.
    """
    expected = (sample.downtime_ms or 0) * (state.rate or 0) / 1000
    sent = 0
    one_pass = state.iteration is not None and sample.iteration == state.iteration + 1
    if one_pass and state.sent is not None and state.remaining is not None and sample.memory_processed is not None:
        sent = max(0, sample.memory_processed - state.sent - state.remaining)
    return max(remaining + sent, int(expected))


def _rates(state: State, sample: JobSample, gap_ms: int) -> tuple[float | None, float | None]:
    if gap_ms <= 0 or sample.memory_processed is None or state.sent is None:
        return state.rate, state.usual_rate
    newest = (sample.memory_processed - state.sent) * 1000 / gap_ms
    if newest < 0 or (newest == 0 and state.rate is None):
        return state.rate, state.usual_rate
    if state.rate is None or state.usual_rate is None:
        return newest, newest
    weight = 1 - (1 - SMOOTHING) ** (gap_ms / SMOOTHING_PER_MS)
    return (
        state.rate + weight * (newest - state.rate),
        state.usual_rate + weight / USUAL_SLOWER * (newest - state.usual_rate),
    )


def _minimum(state: State, remaining: int, now_ms: int) -> dict[str, Any]:
    if state.best is None or remaining <= PROGRESS * state.best:
        return {"best": remaining, "best_at_ms": now_ms, "boundaries": 0}
    return {"boundaries": state.boundaries + 1}


def _remember(state: State, verdict: Verdict) -> State:
    if verdict.action is Action.CONTINUE:
        return state
    changes: dict[str, Any] = {"ordered_at_ms": state.elapsed_ms}
    if verdict.action is Action.RAISE_DOWNTIME:
        changes["downtime_ms"] = verdict.downtime_ms
    elif verdict.action is Action.THROTTLE:
        # A throttled guest is given its patience again: it dirties less from here.
        changes |= {"throttle": verdict.throttle_percent, "best_at_ms": state.elapsed_ms, "boundaries": 0}
    else:
        changes["ended"] = verdict
    return state.model_copy(update=changes)


def _decide(rules: Rules, state: State, sample: JobSample, boundary: int | None) -> Verdict:
    now = state.elapsed_ms
    late = rules.deadline_ms is not None and now >= rules.deadline_ms
    if state.ended is not None and (not late or state.ended.action is Action.GIVE_UP):
        return state.ended
    if late:
        return Verdict(action=Action.GIVE_UP, why=f"not finished after {_s(now)}, and the objective ends here")
    if sample.memory_remaining is None or not state.rate:
        return _went_on("nothing has been measured yet")
    if rules.deadline_ms is not None and (last := _last_call(rules, state, sample, state.rate)) is not None:
        return last
    if boundary is None:
        return _went_on("in the middle of an iteration")
    if state.ordered_at_ms is not None and now - state.ordered_at_ms < SETTLE_MS:
        return _went_on("the last order has to take effect first")
    return _at_boundary(rules, state, boundary, boundary / state.rate * 1000)


def _last_call(rules: Rules, state: State, sample: JobSample, rate: float) -> Verdict | None:
    """The latest moment at which post-copy or a pause still ends in time; None before it, and when it is past."""
    time_ms = (rules.deadline_ms or 0) - state.elapsed_ms
    remaining, dirty = sample.memory_remaining or 0, sample.dirty_rate or rules.dirty_rate
    left = max(remaining + _dirtied(state, dirty), state.boundary_left or 0)
    left_ms = left / rate * 1000
    if left_ms > time_ms or time_ms > left_ms * HEADROOM + SWITCH_MS:
        return None
    limit = state.downtime_ms or rules.first_downtime_ms
    if dirty is not None and dirty < CONVERGES_BELOW * rate and left / (rate - dirty) * 1000 <= time_ms:
        return None  # it gets there by itself
    because = f"{_s(left_ms)} of sending are left and {_s(time_ms)} to do it in"
    if left_ms * HEADROOM <= rules.max_downtime_ms:
        return _raised(rules.max_downtime_ms, because) if limit < rules.max_downtime_ms else None
    if May.POSTCOPY in rules.may:
        return Verdict(action=Action.POSTCOPY, why=because)
    if May.PAUSE in rules.may:
        return Verdict(action=Action.PAUSE, why=because)
    return None


def _dirtied(state: State, dirty: int | None) -> float:
    """Bytes dirtied again since this pass began: all that was sent in it, where nothing better is known."""
    sent = max(0, (state.sent or 0) - state.pass_sent)
    return sent if dirty is None else min(sent, dirty * (state.elapsed_ms - state.pass_began_ms) / 1000)


def _at_boundary(rules: Rules, state: State, left: int, left_ms: float) -> Verdict:
    stalled_ms = state.elapsed_ms - state.best_at_ms
    if state.boundaries < FEWEST_BOUNDARIES or stalled_ms < rules.patience / RAISE_SOONER:
        return _went_on("the remaining data decreases with each iteration")
    limit = state.downtime_ms or rules.first_downtime_ms
    wanted_ms = min(int(left_ms * HEADROOM) + 1, rules.max_downtime_ms)
    stall = f"the remaining data has not decreased for {_s(stalled_ms)}"
    if limit < wanted_ms:
        return _raised(wanted_ms, f"{stall}, and the rest takes {left_ms:.0f} ms")
    if stalled_ms < rules.patience:
        return _went_on(f"{stall}: not long enough to act")
    if limit < rules.max_downtime_ms:
        return _raised(rules.max_downtime_ms, f"{stall}: the downtime limit is raised to its maximum")
    if May.THROTTLE in rules.may and state.throttle < THROTTLE_MOST:  # the mildest first
        percent = min(THROTTLE_MOST, state.throttle + THROTTLE_STEP if state.throttle else THROTTLE_FIRST)
        return Verdict(action=Action.THROTTLE, why=stall, throttle_percent=percent)
    time_ms = rules.deadline_ms - state.elapsed_ms if rules.deadline_ms is not None else math.inf
    if rules.may & {May.POSTCOPY, May.PAUSE} and left_ms * HEADROOM + SWITCH_MS <= time_ms:
        return _switch(rules, state, left, stall)
    if stalled_ms < rules.hopeless_after:
        return _went_on(f"{stall}: given some more time")
    why = f"{stall}, {_s(left_ms)} of sending are left, and no other means is permitted"
    return Verdict(action=Action.GIVE_UP, why=why)


def _switch(rules: Rules, state: State, left: int, stall: str) -> Verdict:
    """Post-copy, else a pause, at a moment that is as good as any."""
    if not _near_minimum(rules, state, left):
        return _went_on(f"{stall}: waiting for a moment when little is left")
    return Verdict(action=Action.POSTCOPY if May.POSTCOPY in rules.may else Action.PAUSE, why=stall)


def _near_minimum(rules: Rules, state: State, left: int) -> bool:
    """At most a little above the best; twice as much above for each half of the patience that went by in vain."""
    waited_ms = state.elapsed_ms - state.best_at_ms - rules.patience
    slack = (NEAR_MINIMUM - 1) * 2 ** min(30, waited_ms // max(1, rules.patience // 2))
    return state.best is None or left <= state.best * (1 + slack)


def _raised(to_ms: int, why: str) -> Verdict:
    return Verdict(action=Action.RAISE_DOWNTIME, why=why, downtime_ms=to_ms)


def _s(ms: float) -> str:
    return f"{ms / 1000:.1f} s"
