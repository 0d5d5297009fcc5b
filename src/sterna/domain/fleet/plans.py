"""What the planner answers: moves in order, what stays and why, bounds, and the promised end."""

from __future__ import annotations

from enum import StrEnum

from sterna.domain.fleet.snapshot import Otherwise
from sterna.domain.model import Value


class Purpose(StrEnum):
    """Why a VM is moved."""

    EMPTY = "empty"
    """Its host is to be emptied."""
    ROOM = "make room"
    """For a VM that fits nowhere else."""
    PARK = "park"
    """For a while: VMs are in each other's way."""
    BACK = "bring back"
    """To where it was before its operation, which is undone."""
    HOME = "return"
    """The same, by an operation for this: to where it was before drains and rolling operations."""
    BALANCE = "balance"
    """From a full host to an emptier one."""


class Move(Value):
    """One VM from one host to another."""

    number: int
    """In the plan, from 0. Moves of one host start in this order where nothing keeps them."""
    vm: str
    """UUID."""
    name: str
    source: str
    target: str
    purpose: Purpose
    wave: int = 0
    after: tuple[int, ...] = ()
    """Numbers of the moves that must have ended before."""
    begun: bool = False
    """It runs already."""
    start_s: float = 0.0
    """From the plan's begin, as forecast."""
    end_s: float = 0.0


class LeftOver(Value):
    """A VM that should move and cannot."""

    vm: str
    name: str
    host: str
    reason: str
    """One sentence."""
    otherwise: Otherwise = Otherwise.LEAVE


class Bounds(Value):
    """No plan ends sooner than the largest of these, in seconds. They hold for the VMs that move."""

    egress_s: float = 0.0
    """What the fullest source has to send, at its link's rate."""
    ingress_s: float = 0.0
    """What all targets together have to take in."""
    largest_s: float = 0.0
    """The VM that takes longest alone."""
    uplinks_s: float = 0.0
    """The failure domain or the fleet's budget that takes longest."""
    slots_s: float = 0.0
    """What a host can prepare at once."""
    waves_s: float = 0.0
    """Of a rolling operation: its fewest waves, one after the other."""

    @property
    def most_s(self) -> float:
        """The bound."""
        return max(self.egress_s, self.ingress_s, self.largest_s, self.uplinks_s, self.slots_s, self.waves_s)


class Help(Value):
    """What would make the promise better."""

    sentence: str
    gain_s: float


class Wave(Value):
    """Hosts of a rolling operation that are closed together."""

    hosts: tuple[str, ...]
    start_s: float
    drained_s: float
    """When its last VM has left."""
    open_s: float
    """When its hosts take VMs again."""


class Spread(Value):
    """How full the fullest and the emptiest open host are: the larger share of memory and vCPUs in use, 0..1."""

    fullest: float
    emptiest: float
    fullest_after: float
    emptiest_after: float


class Promise(Value):
    """When it will have ended, in seconds from the plan's begin."""

    expected_s: float
    """As likely later as sooner."""
    promised_s: float
    """Kept eight times in ten."""
    waits_for: str = ""
    """The move that decides it, in one sentence. '': nothing moves."""
    helps: tuple[Help, ...] = ()


class Plan(Value):
    """A plan. Equal snapshots and operations give equal plans."""

    moves: tuple[Move, ...] = ()
    left: tuple[LeftOver, ...] = ()
    aborts: tuple[str, ...] = ()
    """UUIDs of VMs that are on their way into a host that is to be emptied: their migrations are aborted first."""
    waves: tuple[Wave, ...] = ()
    skipped: dict[str, str] = {}
    """Hosts that a rolling operation does not close, and why."""
    bounds: Bounds = Bounds()
    promise: Promise = Promise(expected_s=0.0, promised_s=0.0)
    spread: Spread | None = None
    """Of a rebalance."""
    late_s: float | None = None
    """The promise misses what was asked for by so much. None: it does not."""
