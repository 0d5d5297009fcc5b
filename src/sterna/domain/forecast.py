"""A forecast before the copy: its duration, the downtime, the bytes, and how likely it ends.

A model of QEMU's passes: each sends what the one before left dirty, and what a pass of t seconds leaves is
W * (1 - exp(-w * t / W)) of a working set W written at w bytes/s. Pure. What was learnt (`experience.py`) goes in
as the link's numbers.

QEMU looks at the remaining bytes within a pass, not at its end. It switches over as soon as they fit into the
allowed downtime at its present rate. It sends them without any limit of bandwidth. So the remainder is nearly as
large as allowed, however little the guest writes. Only the end of a first pass has pages of zeros.
"""

from __future__ import annotations

import math
from enum import StrEnum
from statistics import NormalDist, median

from sterna.domain.convergence import THROTTLE_FIRST, THROTTLE_MOST, THROTTLE_STEP
from sterna.domain.model import Value

JOB_MS = 300
"""Of libvirt's job, beside sending: its begin, the looks for dirty pages between passes, the end. 317 ms by a line
through the lab's copies of 142 to 730 MiB (docs/lab-notebook/benchmarks/forecast-before.json)."""
SETUP_MS = 900
"""Around libvirt's job: preparing, starting the incoming QEMU, finishing, cleaning up. 860 ms in the lab between
hosts that have not met before."""
SWITCH_MS = 20
"""Downtime beside the transfer of the rest: stop, the devices' state, resume. 20 ms in the median of the lab's
copies that kept to a limit; of those that fill the link 47 ms: they wait for its full buffers, it seems
(docs/lab-notebook/benchmarks/forecast-replayed.json, forecast-before.json)."""
SWITCH_SPREAD = 0.25
"""Natural logarithm: downtime forecast and met differ by this much, one standard deviation, before anything is
learnt of it. Of the lab's 20 first migrations (the same recordings)."""
USUAL_BAND = NormalDist().inv_cdf(0.9)
"""Standard deviations to either side: eight of ten are in between."""
POSTCOPY_SWITCH_MS = 500
"""Until a guest switched to post-copy runs on the destination (field notes)."""
SPREAD = 0.35
"""Natural logarithm: rate measured and rate met differ by this much, one standard deviation, before anything is
learnt. One-second samples of the lab's steady guest differed by a factor of 1.9 (14 to 26 MiB/s)."""
MOST_PASSES = 500
NO_PROGRESS = 0.995
"""A pass that leaves more than this share of what the pass before left gets nowhere."""
STALLED = 0.9
"""A pass that leaves more than this share: the copy is about to be given more downtime than it began with."""
ALIKE_RATE, ALIKE_SIZE = 2 * SPREAD, 0.15
"""Natural logarithms: a copy was made like the next one where the dirty rates measured before them differ by no
more than the measurement does, and sizes and bandwidths by no more than the second."""
CALM = 0.02
"""Of the bandwidth: dirty rates below it are all alike."""
LEAST_ALIKE = 3
"""So many copies alike say better what is sent than the model does: a VM repeats itself within some percent, where
a measured dirty rate is off by tens."""
SURE = 0.95
"""Odds from which a copy is begun without the means to slow the guest down."""
HIGH_SHARE = 0.5
"""QEMU throttles after two passes that left more than this share of what they sent."""


class Mode(StrEnum):
    """Mode of a copy: how it ends."""

    PRECOPY = "precopy"
    THROTTLE = "throttle"
    POSTCOPY = "postcopy"
    PAUSE = "pause"


class Load(Value):
    """Data to be copied, and how fast the guest changes it. Sizes in bytes."""

    memory_bytes: int
    allocated_bytes: int | None = None
    """Memory that the guest has ever used: other pages cost almost nothing. None: all of it."""
    dirty_bytes: int = 0
    """Different bytes written within `dirty_period_s`, as measured on the running guest."""
    dirty_period_s: float = 1.0
    working_set_bytes: int | None = None
    """Memory that the guest writes to. None: perhaps all that it has used."""
    in_turn: bool = False
    """The guest writes its pages one after the other, not the same ones repeatedly."""
    disk_bytes: int = 0
    """Local disks to be copied with the memory."""

    @property
    def touched(self) -> int:
        """Bytes of the first pass."""
        known = self.memory_bytes if self.allocated_bytes is None else self.allocated_bytes
        return min(known, self.memory_bytes)

    @property
    def working_set(self) -> int:
        """In bytes, never less than what was seen dirtied."""
        known = self.touched if self.working_set_bytes is None else self.working_set_bytes
        return max(1, self.dirty_bytes, min(known, self.memory_bytes))

    @property
    def write_rate(self) -> float:
        """Bytes/s the guest writes into its working set, the same bytes counted again each time."""
        if self.in_turn:
            return self.dirty_bytes / self.dirty_period_s
        share = min(self.dirty_bytes / self.working_set, 0.999)
        return -math.log(1 - share) * self.working_set / self.dirty_period_s

    def dirtied(self, seconds: float, *, factor: float = 1.0) -> float:
        """Different bytes dirtied within so many seconds; `factor` times the write rate."""
        w = self.working_set
        if self.in_turn:
            return min(float(w), self.write_rate * factor * seconds)
        return w * (1 - math.exp(-self.write_rate * factor * seconds / w))


class Seen(Value):
    """One copy that was made of the VM."""

    load: Load
    """As its forecast had it."""
    bandwidth_bytes_s: int
    """As its forecast had it."""
    bytes_sent: int
    allowed_ms: float | None = None
    """As its forecast had it."""
    downtime_ms: float | None = None
    """None, too, where it did not end as its forecast had it: by post-copy, or by a pause."""

    def alike(self, load: Load, bandwidth_bytes_s: int) -> bool:
        """Was it made as the next one would be?"""
        was, now = (of.dirty_bytes / of.dirty_period_s for of in (self.load, load))
        calm = max(was, now) <= CALM * bandwidth_bytes_s
        sizes = (self.load.touched + self.load.disk_bytes, load.touched + load.disk_bytes)
        return (
            (calm or _near((was, now), ALIKE_RATE))
            and _near(sizes, ALIKE_SIZE)
            and _near((self.bandwidth_bytes_s, bandwidth_bytes_s), ALIKE_SIZE)
        )


class Link(Value):
    """What the two hosts and the network between them give."""

    bandwidth_bytes_s: int
    link_bytes_s: int | None = None
    """What the link carries: no limit is kept at the switch-over. None: no more is known than the bandwidth."""
    setup_ms: float = SETUP_MS
    switch_ms: float = SWITCH_MS
    switch_spread: float = SWITCH_SPREAD
    """Of the downtime, as `spread` is of the rate."""
    limited: bool = False
    """It is a limit's bandwidth, not the link's."""
    correction: float = 1.0
    """Copies of this VM sent so many times the model's bytes."""
    seen: tuple[Seen, ...] = ()
    """Its last few copies."""
    spread: float = SPREAD

    def at_switch_ms(self, size: float) -> float:
        """So many bytes, sent while the guest is paused."""
        return size / max(self.bandwidth_bytes_s, self.link_bytes_s or 0) * 1000


class Expectations(Value):
    """What is known before a migration begins. None: not known."""

    load: Load | None = None
    """As it was last measured for a plan."""
    link: Link | None = None


class Forecast(Value):
    """Forecast of a copy in one mode. Fields are None if the copy does not end."""

    mode: Mode
    ends: bool
    """Whether it ends at the measured rates."""
    odds: float
    """Probability, 0..1, that it ends (before the deadline, if there is one), as the rates are uncertain."""
    total_ms: float | None = None
    """From the request to the end."""
    copy_ms: float | None = None
    """Part of that in libvirt's job: disks and memory."""
    downtime_ms: float | None = None
    downtime_least_ms: float | None = None
    """Eight of ten downtimes are between this and `downtime_most_ms`. None: the range is unknown."""
    downtime_most_ms: float | None = None
    rest_ms: float | None = None
    """Part of the modelled downtime: sending the remaining memory. None if the downtime is not modelled like
    this."""
    allowed_ms: float | None = None
    """Maximum of `rest_ms` with QEMU's downtime limit."""
    bytes_sent: int | None = None
    passes: int | None = None
    correction: float = 1.0
    """Factor that was applied to the model's bytes."""
    why: str = ""


class _Limits(Value):
    first_ms: float
    most_ms: float


class _Copied(Value):
    ms: float
    sent: float
    left: float
    passes: int
    converged: bool
    throttle: int = 0


def forecast(
    load: Load,
    link: Link,
    mode: Mode,
    *,
    max_downtime_ms: int,
    first_downtime_ms: int | None = None,
    within_s: float | None = None,
) -> Forecast:
    """The prospects of one mode. `first_downtime_ms`: what the copy begins with; it is given more, up to
    `max_downtime_ms`, where it gets nowhere. None: all of it from the start."""
    limits = _Limits(first_ms=min(first_downtime_ms or max_downtime_ms, max_downtime_ms), most_ms=max_downtime_ms)
    plain = _predict(load, link, mode, limits, strain=1.0)
    usual = _usual(load, link)
    if usual is not None and plain.bytes_sent and mode in (Mode.PRECOPY, Mode.THROTTLE):
        link = link.model_copy(update={"correction": usual * link.correction / plain.bytes_sent})
        plain = _predict(load, link, mode, limits, strain=1.0)
    strain = _bearable(load, link, mode, limits, within_s)
    odds = round(NormalDist().cdf(math.log(strain) / max(link.spread, 0.01)), 3) if strain > 0 else 0.0
    return plain.model_copy(update={"odds": odds} | _with_own_downtimes(plain, load, link))


def forecasts(
    load: Load,
    link: Link,
    *,
    max_downtime_ms: int,
    first_downtime_ms: int | None = None,
    within_s: float | None = None,
) -> tuple[Forecast, ...]:
    """Every mode's, the mildest first."""
    limits = {"max_downtime_ms": max_downtime_ms, "first_downtime_ms": first_downtime_ms}
    return tuple(forecast(load, link, m, within_s=within_s, **limits) for m in Mode)  # type: ignore[arg-type]


def converges(precopy: Forecast | None) -> bool | None:
    """Does pre-copy end by itself? None where there is no forecast, or it is not sure."""
    if precopy is None or (precopy.ends and precopy.odds < SURE):
        return None
    return precopy.ends


# -- the model ------------------------------------------------------------------------------------------------


def _predict(load: Load, link: Link, mode: Mode, limits: _Limits, strain: float) -> Forecast:
    """The prospects when the guest writes `strain` times as much in relation to the bandwidth."""
    rate = link.bandwidth_bytes_s / math.sqrt(strain)
    if mode is Mode.POSTCOPY:
        done = _one_pass(load, rate, strain)
        return _forecast_of(load, link, mode, done, limits=limits, rate=rate)
    if mode is Mode.PAUSE:
        done = _passes(load, rate, strain, limits=limits, throttle=False)
        if not done.converged:
            done = _one_pass(load, rate, strain)
        return _forecast_of(load, link, mode, done, limits=limits, rate=rate)
    done = _passes(load, rate, strain, limits=limits, throttle=mode is Mode.THROTTLE)
    if not done.converged:
        why = f"each pass leaves about {int(done.left) // 2**20} MiB, {done.left / rate * 1000:.0f} ms of sending"
        return Forecast(mode=mode, ends=False, odds=0, passes=done.passes, why=why)
    return _forecast_of(load, link, mode, done, limits=limits, rate=rate)


def _forecast_of(load: Load, link: Link, mode: Mode, done: _Copied, *, limits: _Limits, rate: float) -> Forecast:
    disks_ms = load.disk_bytes / rate * 1000
    copy_ms = JOB_MS + (done.ms + done.left / rate * 1000 + disks_ms) * link.correction
    why = f"slowed down by {done.throttle} %" if done.throttle else ""
    return Forecast(
        mode=mode,
        ends=True,
        odds=1,
        total_ms=round(copy_ms + link.setup_ms, 1),
        copy_ms=round(copy_ms, 1),
        **_downtime(load, link, mode, done, limits),
        bytes_sent=int((done.sent + done.left + load.disk_bytes) * link.correction),
        passes=done.passes,
        correction=link.correction,
        why=why,
    )


def _downtime(load: Load, link: Link, mode: Mode, done: _Copied, limits: _Limits) -> dict[str, float]:
    """The downtime, and what the model makes of it."""
    if mode is Mode.POSTCOPY:
        return {"downtime_ms": POSTCOPY_SWITCH_MS}
    allowed = min(float(load.memory_bytes), limits.first_ms / 1000 * link.bandwidth_bytes_s)
    rest = allowed
    if done.left > allowed:  # given more at its stall, or stopped
        rest = done.left
    elif done.passes == 1:  # what the first pass did not come to counts whole, and its zeros cost nothing
        rest = min(allowed, allowed * load.touched / max(1, load.memory_bytes) + done.left)
    rest_ms, allowed_ms = round(link.at_switch_ms(rest), 1), round(link.at_switch_ms(allowed), 1)
    return {"downtime_ms": round(rest_ms + link.switch_ms, 1), "rest_ms": rest_ms, "allowed_ms": allowed_ms}


def _with_own_downtimes(plain: Forecast, load: Load, link: Link) -> dict[str, float]:
    """The downtime with what was learnt of this VM: the middle of the model's and of those of copies alike, under
    which the model is one among others. And how far they go apart."""
    if plain.downtime_ms is None or plain.rest_ms is None:
        return {}
    middle = median([plain.downtime_ms, *_own_downtimes(plain, load, link)])
    band = math.exp(USUAL_BAND * link.switch_spread)
    downtime = {"downtime_ms": middle, "downtime_least_ms": middle / band, "downtime_most_ms": middle * band}
    return {name: round(ms, 1) for name, ms in downtime.items()}


def _own_downtimes(plain: Forecast, load: Load, link: Link) -> list[float]:
    if plain.mode not in (Mode.PRECOPY, Mode.THROTTLE):
        return []
    return [
        seen.downtime_ms
        for seen in link.seen
        if seen.downtime_ms and seen.alike(load, link.bandwidth_bytes_s)
        if _near((seen.allowed_ms or 0, plain.allowed_ms or 0), ALIKE_SIZE)
    ]


def _usual(load: Load, link: Link) -> float | None:
    """Bytes that copies like this one have sent; None where there were too few of them."""
    alike = [seen.bytes_sent for seen in link.seen if seen.alike(load, link.bandwidth_bytes_s)]
    return median(alike) if len(alike) >= LEAST_ALIKE else None


def _near(pair: tuple[float, float], most: float) -> bool:
    low, high = sorted(pair)
    return low == high or (low > 0 and math.log(high / low) <= most)


def _one_pass(load: Load, rate: float, strain: float) -> _Copied:
    seconds = load.touched / rate
    left = load.dirtied(seconds, factor=math.sqrt(strain))
    return _Copied(ms=seconds * 1000, sent=load.touched, left=left, passes=1, converged=True)


def _passes(load: Load, rate: float, strain: float, *, limits: _Limits, throttle: bool) -> _Copied:
    """Pass after pass until the rest fits the downtime, or nothing is gained any more."""
    left, sent, ms, slow, high = float(load.touched), 0.0, 0.0, 0, 0
    for number in range(1, MOST_PASSES + 1):
        seconds, before = left / rate, left
        factor = math.sqrt(strain) * (1 - slow / 100)
        left, sent, ms = load.dirtied(seconds, factor=factor), sent + left, ms + seconds * 1000
        stuck = number > 1 and left > STALLED * before
        if left / rate * 1000 <= (limits.most_ms if stuck else limits.first_ms):
            return _Copied(ms=ms, sent=sent, left=left, passes=number, converged=True, throttle=slow)
        if throttle and left > HIGH_SHARE * before:
            high += 1
            if high == 2:
                high, slow = 0, min(THROTTLE_MOST, slow + THROTTLE_STEP if slow else THROTTLE_FIRST)
        spent = not throttle or slow == THROTTLE_MOST
        if number > 1 and spent and left > NO_PROGRESS * before:
            break
    return _Copied(ms=ms, sent=sent, left=left, passes=number, converged=False, throttle=slow)


def _bearable(load: Load, link: Link, mode: Mode, limits: _Limits, within_s: float | None) -> float:
    """How many times worse than measured it may be, and still end (in time): 0 for not even a hundredth."""

    def ends(strain: float) -> bool:
        seen = _predict(load, link, mode, limits, strain)
        in_time = within_s is None or (seen.total_ms is not None and seen.total_ms <= within_s * 1000)
        return seen.ends and in_time

    low, high = 0.01, 100.0
    if ends(high):
        return high
    if not ends(low):
        return 0.0
    for _ in range(24):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if ends(middle) else (low, middle)
    return low
