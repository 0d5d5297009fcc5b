"""What an operator asks of the fleet."""

from __future__ import annotations

from pydantic import Field

from sterna.domain.fleet.plans import Purpose
from sterna.domain.model import Value
from sterna.domain.policies import May

Mays = frozenset[May]


class Drain(Value):
    """Empty these hosts."""

    hosts: frozenset[str]
    may: Mays = frozenset()
    """What may be done to a VM whose copy does not converge."""
    finish_within_s: float | None = None
    prefer: frozenset[str] = frozenset()
    """Hosts that take VMs before others: of a rolling operation, those that are done."""


class Rolling(Value):
    """Wave by wave: empty hosts, let something be done to them, open them again."""

    hosts: frozenset[str]
    most_closed: int = Field(gt=0)
    """Hosts that are closed at once."""
    reboot_s: float = 300.0
    """From a wave's last VM until its hosts are open again."""
    done: frozenset[str] = frozenset()
    """Of `hosts`, those it has been done to."""
    of_one_domain: int | None = Field(default=1, gt=0)
    """Hosts of one failure domain that are closed at once. None: no limit."""
    opening: frozenset[str] = frozenset()
    """Hosts of the wave that is under way: they are open before the next one."""
    host_rules: bool = True
    """Rules about hosts that are not to be down together hold."""
    may: Mays = frozenset()


class Return(Value):
    """A VM that an operation moved."""

    vm: str
    """UUID."""
    origin: str
    """Where it was before."""
    put_on: str
    """Where the operation moved it."""


class BringBack(Value):
    """Move VMs back to where they were, those that nobody has moved since."""

    returns: tuple[Return, ...]
    may: Mays = frozenset()
    purpose: Purpose = Purpose.BACK


THRESHOLD = 0.2
"""Of a rebalance, where no other one is given."""


class Rebalance(Value):
    """Even out how full the hosts are."""

    hosts: frozenset[str] = frozenset()
    """Only these take and give VMs. None: all."""
    threshold: float = THRESHOLD
    """Difference between two hosts that is left alone, 0..1."""
    least_gain: float = 0.1
    """A move is made only if the fuller of its two hosts is less full afterwards by this share of their difference,
    0..1, and the other one is not fuller than that one was."""
    most_moves: int = 100
    """Of one plan. Then it is planned again."""
    resting: frozenset[str] = frozenset()
    """UUIDs of VMs that were moved a short while ago."""
    load: dict[str, float] = {}
    """Measured use of hosts, 0..1, which must fit as well. Hosts not named: not measured."""
    may: Mays = frozenset()


Operation = Drain | Rolling | BringBack | Rebalance
