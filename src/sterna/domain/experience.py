"""What was learnt from finished migrations: robust estimates per VM and per pair of hosts, and how good the
forecasts are.

Medians over the last few, so that one odd migration changes nothing; kept as plain values. Pure. Fed with records
at the end of each migration; read before the next forecast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from sterna.domain.convergence import Action
from sterna.domain.copying import CompletedJob
from sterna.domain.entries.destination import VmUpdated
from sterna.domain.entries.notes import CopyExpected, CopySucceeded, PauseAsked, PostcopyAsked, Steered, Tuned
from sterna.domain.forecast import (
    JOB_MS,
    SETUP_MS,
    SPREAD,
    SWITCH_MS,
    SWITCH_SPREAD,
    Forecast,
    Link,
    Load,
    Mode,
    Seen,
)
from sterna.domain.journal import Entry, Kind, Migration, Role
from sterna.domain.model import Value
from sterna.domain.report import build_report
from sterna.domain.step import History

LEAST_SENDING_MS = JOB_MS / 2
"""A copy that sent for less proves nothing about the rate: the rest of libvirt's job varies by as much."""
LEAST_SENT = 32 * 2**20
"""Bytes that say something of a link. A tiny guest's few pages are sent in no time, and a host that is busy at that
moment makes them look slow."""
LONG_SENDING_MS = 3000
"""A copy that sent for so long is evidence about its link, however little it sent."""
LEAST_SHARE = 0.25
"""Of the memory. QEMU reads pages of zeros and does not send them: the copy of a large guest that has touched
little spends most of its time on reading."""
COPIES = 5
"""Newest copies of a VM that are remembered one by one."""
REMEMBERED = 15
"""Newest observations kept of anything: enough for a median, few enough to follow a change."""
ENDED_BY = frozenset({Action.POSTCOPY, Action.PAUSE})
LEAST_SWITCH_MS = 1.0
"""The least part of the downtime beside the rest's transfer: where less is left, the rest was smaller."""
LEAST_SCATTER = 8
"""So many downtimes say how far they scatter: from three on, 11 of the lab's 40 were out of their range; so, 8."""
NORMAL_MAD = 1.4826
"""Median absolute deviation to standard deviation, of a normal distribution."""
LEAST_SPREAD = 0.05
"""No forecast of the next migration is more certain than this."""
LIMIT_MET, LIMIT_FAR = 0.8, 0.5
"""Above the first share of the limit, the limit was the bottleneck: QEMU stays some percent below it. Below the
second, the link was. In between it could be either, or the guest."""


class Running(Value):
    """The last few observations of one positive quantity."""

    values: tuple[float, ...] = ()

    def plus(self, value: float | None) -> Running:
        """One more; None and what is not positive teach nothing."""
        if value is None or not 0 < value < math.inf:
            return self
        return Running(values=(*self.values, value)[-REMEMBERED:])

    def typical(self, otherwise: float) -> float:
        """The median; `otherwise` before the first observation."""
        return median(self.values) if self.values else otherwise

    @property
    def spread(self) -> float | None:
        """Robust standard deviation of the logarithm; None below three observations."""
        if len(self.values) < 3:
            return None
        logs = [math.log(v) for v in self.values]
        middle = median(logs)
        return max(LEAST_SPREAD, NORMAL_MAD * median(abs(v - middle) for v in logs))


class Actual(Value):
    """What a migration really was. None: not observed."""

    total_ms: float | None = None
    copy_ms: float | None = None
    downtime_ms: float | None = None
    bytes_sent: int | None = None


class Outcome(Value):
    """One finished migration: forecast against actual."""

    vm: str
    source: str
    destination: str
    forecast: Forecast
    load: Load | None = None
    """What its forecast was made of, with what follows."""
    bandwidth_bytes_s: int | None = None
    link_bytes_s: int | None = None
    limited: bool = False
    """By a limit, not by the link."""
    actual: Actual
    memory_bytes: int | None = None
    """Of the guest, pages of zeros included."""
    limit_bytes_s: int | None = None
    """It was not to send faster. None: no limit."""
    tuned: bool = False
    """Its limit was changed during the copy: its rate is not used."""
    ended_otherwise: bool = False
    """By post-copy or a pause: its downtime is no evidence for copies that end by themselves."""

    @property
    def comparable_downtime_ms(self) -> float | None:
        """The downtime, where it is to be compared with the forecast's rest."""
        known = self.forecast.rest_ms is not None and not self.ended_otherwise
        return self.actual.downtime_ms if known else None


class OfPair(Value):
    """Learnt of one source and destination."""

    bandwidth: Running = Running()
    """Of the link: copies without a limit, or far below theirs. Bytes/s."""
    kept: Running = Running()
    """Share of its limit that a copy held by it sends."""
    setup_ms: Running = Running()
    switch_ms: Running = Running()
    """Downtime beside the transfer of the rest, of copies that the link held: its buffers are full, it seems."""
    switch_limited_ms: Running = Running()
    """The same of copies that a limit held."""
    at_switch: Running = Running()
    """Link speed from the switch-over of copies under a limit; used until an unlimited copy has been seen."""
    downtime_off: Running = Running()
    """Downtime met, so many times the forecast's."""


class Experience(Value):
    """Everything learnt."""

    pairs: dict[str, OfPair] = {}
    """By `source>destination`."""
    corrections: dict[str, Running] = {}
    """By VM: how many times the model's bytes its copies sent. How fast they were is the pair's matter."""
    copies: dict[str, tuple[Seen, ...]] = {}
    """By VM: the last few."""

    def learn(self, outcome: Outcome) -> Experience:
        """With one more finished migration."""
        actual, forecast = outcome.actual, outcome.forecast
        key = f"{outcome.source}>{outcome.destination}"
        old = self.pairs.get(key, OfPair())
        setup = actual.total_ms - actual.copy_ms if actual.total_ms and actual.copy_ms else None
        bandwidth, kept = _with_rate(old, outcome)
        pair = old.model_copy(
            update={"bandwidth": bandwidth, "kept": kept, "setup_ms": old.setup_ms.plus(setup)}
            | _with_downtime(old, outcome)
        )
        off = _ratio(actual.bytes_sent, forecast.bytes_sent, forecast.correction)
        known = self.corrections.get(outcome.vm, Running()).plus(off)
        return Experience(
            pairs=self.pairs | {key: pair},
            corrections=self.corrections | ({outcome.vm: known} if known.values else {}),
            copies=self.copies | self._with_copy(outcome),
        )

    def _with_copy(self, outcome: Outcome) -> dict[str, tuple[Seen, ...]]:
        sent, bandwidth = outcome.actual.bytes_sent, outcome.bandwidth_bytes_s
        if outcome.load is None or not sent or not bandwidth or outcome.tuned:
            return {}
        seen = Seen(
            load=outcome.load,
            bandwidth_bytes_s=bandwidth,
            bytes_sent=sent,
            allowed_ms=outcome.forecast.allowed_ms,
            downtime_ms=outcome.comparable_downtime_ms,
        )
        return {outcome.vm: (*self.copies.get(outcome.vm, ()), seen)[-COPIES:]}

    def link(self, vm: str, source: str, destination: str, *, bandwidth_bytes_s: int | None = None) -> Link | None:
        """What to expect of the next copy; None where no bandwidth is known. `bandwidth_bytes_s`: a limit."""
        pair = self.pairs.get(f"{source}>{destination}", OfPair())
        learnt = pair.bandwidth.typical(math.inf)
        limit = bandwidth_bytes_s * pair.kept.typical(1.0) if bandwidth_bytes_s else math.inf
        bandwidth = min(learnt, limit)
        if bandwidth == math.inf:
            return None
        own, limited = self.corrections.get(vm, Running()), limit <= learnt
        link_rate = pair.bandwidth.typical(pair.at_switch.typical(0))
        return Link(
            bandwidth_bytes_s=max(1, int(bandwidth)),
            link_bytes_s=int(link_rate) or None,
            limited=limited,
            setup_ms=pair.setup_ms.typical(SETUP_MS),
            switch_ms=(pair.switch_limited_ms if limited else pair.switch_ms).typical(SWITCH_MS),
            switch_spread=_scatter(pair.downtime_off),
            correction=own.typical(1.0),
            seen=self.copies.get(vm, ()),
            spread=own.spread or SPREAD,
        )


def outcome_of(migration: Migration, entries: Iterable[Entry]) -> Outcome | None:
    """What a completed migration teaches, from both hosts' journals; None where its copy's end was not seen."""
    own = [e for e in entries if e.migration_id == migration.id]
    history = History.read(e for e in own if e.role is Role.SOURCE)
    jobs = [job for e in own if e.row in ("M5", "F8") and (job := _job(e))]
    copy_ms = next((j.total_ms for j in jobs if j.total_ms is not None), None)
    if copy_ms is None:
        return None
    report, before = build_report(migration, own), history.find(CopyExpected) or CopyExpected()
    link, steered = before.link, history.find(Steered)
    return Outcome(
        vm=migration.vm_uuid,
        source=migration.source,
        destination=migration.destination,
        forecast=before.forecast or Forecast(mode=Mode.PRECOPY, ends=True, odds=1),
        load=before.assumed,
        bandwidth_bytes_s=link.bandwidth_bytes_s if link else None,
        link_bytes_s=link.link_bytes_s if link else None,
        limited=link.limited if link else False,
        actual=Actual(
            total_ms=report.total_ms,
            copy_ms=copy_ms,
            downtime_ms=report.downtime_ms,
            bytes_sent=(report.bytes_memory or 0) + (report.bytes_disks or 0) or None,
        ),
        memory_bytes=next((j.memory_total for j in jobs if j.memory_total), None),
        limit_bytes_s=migration.options.wanted.bandwidth_bytes_s,
        tuned=history.has(Tuned),
        ended_otherwise=history.has(PostcopyAsked)
        or history.has(PauseAsked)
        or (steered is not None and steered.action in ENDED_BY),
    )


def _job(entry: Entry) -> CompletedJob | None:
    """The finished job's statistics, at M5 as the source counted, at F8 as the destination did."""
    return (VmUpdated if entry.kind is Kind.DONE else CopySucceeded).read(entry).job


class Accuracy(Value):
    """Accuracy of forecasts. None if there are none to compare."""

    compared: int
    within_10_percent: float | None = None
    """Share of the forecasts, 0..1."""
    within_25_percent: float | None = None
    median_error: float | None = None
    """Relative error: 0.1 means that the result differed by 10 %."""


def accuracy(outcomes: Sequence[Outcome], of: str = "total_ms") -> Accuracy:
    """Of all forecasts that can be compared; `of`: `total_ms`, `copy_ms`, `downtime_ms` or `bytes_sent`."""
    errors = []
    for outcome in outcomes:
        predicted, seen = getattr(outcome.forecast, of), getattr(outcome.actual, of)
        if predicted and seen:
            errors.append(abs(seen - predicted) / predicted)
    if not errors:
        return Accuracy(compared=0)
    return Accuracy(
        compared=len(errors),
        within_10_percent=sum(e <= 0.10 for e in errors) / len(errors),
        within_25_percent=sum(e <= 0.25 for e in errors) / len(errors),
        median_error=median(errors),
    )


def _with_rate(known: OfPair, outcome: Outcome) -> tuple[Running, Running]:
    """The link's bandwidth and the share of limits that is sent, after one more copy."""
    limit, rate = outcome.limit_bytes_s, _rate(outcome.actual)
    if rate is None or outcome.tuned:
        return known.bandwidth, known.kept
    if limit is None or rate < LIMIT_FAR * limit:
        return known.bandwidth.plus(rate if _fills_link(outcome) else None), known.kept
    if rate < LIMIT_MET * limit:
        return known.bandwidth, known.kept
    return known.bandwidth, known.kept.plus(rate / limit)


def _rate(actual: Actual) -> float | None:
    """Bytes/s while it was sending; None where it sent for too short a time to tell."""
    if not actual.copy_ms or not actual.bytes_sent or actual.copy_ms - JOB_MS < LEAST_SENDING_MS:
        return None
    return actual.bytes_sent / (actual.copy_ms - JOB_MS) * 1000


def _fills_link(outcome: Outcome) -> bool:
    """Was it the link that took the time?"""
    sent, sending_ms = outcome.actual.bytes_sent or 0, (outcome.actual.copy_ms or 0) - JOB_MS
    enough = sent >= LEAST_SENT or sending_ms >= LONG_SENDING_MS
    return enough and sent >= LEAST_SHARE * (outcome.memory_bytes or 0)


def _with_downtime(known: OfPair, outcome: Outcome) -> dict[str, Running]:
    """What one more copy's downtime teaches of its pair of hosts, the model's rest being what it was."""
    downtime_ms, forecast = outcome.comparable_downtime_ms, outcome.forecast
    if downtime_ms is None or forecast.rest_ms is None:
        return {}
    learnt = {"downtime_off": known.downtime_off.plus(_ratio(downtime_ms, forecast.downtime_ms, 1))}
    beside_ms = max(LEAST_SWITCH_MS, downtime_ms - forecast.rest_ms)
    if not outcome.limited:
        return learnt | {"switch_ms": known.switch_ms.plus(beside_ms)}
    if known.bandwidth.values and outcome.link_bytes_s is not None:
        return learnt | {"switch_limited_ms": known.switch_limited_ms.plus(beside_ms)}
    rest = forecast.rest_ms * max(outcome.bandwidth_bytes_s or 0, outcome.link_bytes_s or 0)
    rate = rest / max(LEAST_SWITCH_MS, downtime_ms - SWITCH_MS)
    return learnt | {"at_switch": known.at_switch.plus(rate)}


def _scatter(off: Running) -> float:
    """Of the downtime: as measured in the lab until there are enough to say that it is less, or more, here."""
    return (off.spread if len(off.values) >= LEAST_SCATTER else None) or SWITCH_SPREAD


def _ratio(above: float | None, below: float | None, times: float) -> float | None:
    return above / below * times if above and below else None
