"""What the planner is given: hosts, VMs, links, failure domains, rules, and what moves already.

Frozen values with a plain-JSON form, so that a plan can be made again from a file. Sizes are bytes, rates bytes/s.
Whoever makes a snapshot translates into these words. The planner reads nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from sterna.domain.forecast import JOB_MS, SETUP_MS, SPREAD
from sterna.domain.model import Value

MEBI = 1 << 20
SOME_LINK = 125_000_000
"""Bytes/s of a link that nobody has measured or named: a gigabit a second, so that no promise is too bold."""


def huge(page_bytes: int) -> str:
    """The name of a pool of huge pages among `others`. Counted in bytes."""
    return f"huge pages of {page_bytes >> 10} KiB"


def disk(pool: str) -> str:
    """The name of a storage pool's free space among `others`, for disks that travel with their VM. In bytes."""
    return f"space in pool {pool}"


def functions(network: str) -> str:
    """The name of a host's SR-IOV functions on a physical network, among `others`."""
    return f"functions on {network}"


class Cell(Value):
    """A NUMA node of a host."""

    memory_bytes: int
    cpus: int
    others: dict[str, int] = {}
    """Of the host's `others`, what belongs to this node: huge pages."""


class Host(Value):
    """A host and what guests may use of it in total, the VMs that run there included."""

    name: str
    memory_bytes: int
    """Without its own share, and without the pools of huge pages."""
    cpus: int
    overcommit: float = 1.0
    """vCPUs for each CPU."""
    others: dict[str, int] = {}
    """What else is counted: `huge`, `disk`, `functions`."""
    cells: tuple[Cell, ...] = ()
    cpu: frozenset[str] = frozenset()
    """What its CPU offers: features, and `model` names. A VM runs where all of what it uses is offered."""
    networks: frozenset[str] = frozenset()
    storage: frozenset[str] = frozenset()
    """Volumes' places that it reaches."""
    machines: frozenset[str] = frozenset()
    """Machine types of its QEMU."""
    out_bytes_s: int | None = None
    """What its link carries for migrations. None: not known."""
    in_bytes_s: int | None = None
    stream_bytes_s: int | None = None
    """What one copy reaches on an idle link: a single stream does not fill a fast one. None: the link."""
    domain: str = ""
    """Its failure domain, such as a rack. '': none."""
    closed: str = ""
    """Why it takes no VMs. '': it takes them."""
    unreachable: str = ""
    """Why nothing can be moved to or from it now. '': it can."""
    gone: bool = False
    """It is unreachable and is not expected back: nobody waits for it."""

    @property
    def vcpus(self) -> int:
        """vCPUs that it may run."""
        return int(self.cpus * self.overcommit)


class Otherwise(StrEnum):
    """What its owner allows for a VM that cannot be moved out of the way."""

    LEAVE = "leave"
    SUSPEND = "suspend"
    """To disk."""
    STOP = "stop"


class Vm(Value):
    """A VM on a host, and what it needs of the next one."""

    uuid: str
    name: str
    host: str
    memory_bytes: int
    vcpus: int
    also: tuple[str, ...] = ()
    """Other hosts that say that it runs there: one of them all is wrong, or lies."""
    huge_page_bytes: int | None = None
    """Its memory is in huge pages of this size, not in ordinary ones."""
    others: dict[str, int] = {}
    """What else it takes: `disk`, `functions`."""
    numa_nodes: int = 0
    """It must have so many nodes of its host, with its memory and vCPUs divided among them. 0: it does not care."""
    on_cells: tuple[int, ...] = ()
    """Of its host, where it has its nodes now."""
    cpu: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    storage: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    touched_bytes: int | None = None
    """Memory that has ever been used, which is what a copy sends. None: all of it."""
    disk_bytes: int = 0
    """Of local disks, copied with the memory."""
    dirty_bytes_s: int | None = None
    """As last measured. None: never."""
    spread: float = SPREAD
    """Of the dirty rate: natural logarithm, one standard deviation."""
    priority: int = 0
    """The highest moves first."""
    pinned: str = ""
    """Why it cannot be migrated at all. '': it can."""
    otherwise: Otherwise = Otherwise.LEAVE
    avoid: dict[str, str] = {}
    """Hosts where its migration has failed, and why: they are not tried again."""
    tries: int = 0
    """Migrations of it that have failed within this operation."""
    failed: str = ""
    """Where and why the last of them failed."""

    def may_be_on(self, hosts: Collection[str]) -> set[str]:
        """Those of the hosts that say that they have it."""
        return {self.host, *self.also} & set(hosts)

    @property
    def copied_bytes(self) -> int:
        """Memory and disks that a copy sends at least once."""
        touched = self.memory_bytes if self.touched_bytes is None else min(self.touched_bytes, self.memory_bytes)
        return max(1, touched + self.disk_bytes)


class Scope(StrEnum):
    """What counts as one place for `apart`."""

    HOST = "host"
    DOMAIN = "failure-domain"


class Apart(Value):
    """Anti-affinity: no two of these VMs in one place, also while one of them moves."""

    name: str
    vms: frozenset[str]
    """UUIDs."""
    scope: Scope = Scope.HOST


class Together(Value):
    """Affinity: these VMs on one host. While they move they are apart."""

    name: str
    vms: frozenset[str]


class HostGroup(Value):
    """These VMs run on these hosts only, or on all but these."""

    name: str
    vms: frozenset[str]
    hosts: frozenset[str]
    never: bool = False


class Rules(Value):
    """What operators have ordered for VMs. A rule that is already broken is not made worse."""

    apart: tuple[Apart, ...] = ()
    together: tuple[Together, ...] = ()
    groups: tuple[HostGroup, ...] = ()
    never_move: dict[str, str] = {}
    """UUID -> why."""
    not_down_together: tuple[frozenset[str], ...] = ()
    """Sets of hosts of which one at a time may be closed by a rolling operation."""


class FailureDomain(Value):
    """What hosts share and lose together, with its link to the others."""

    name: str
    up_bytes_s: int | None = None
    """What migrations may use of its uplink, away from it. None: no limit."""
    down_bytes_s: int | None = None


class Moving(Value):
    """A migration that has been admitted: its VM counts at both ends."""

    vm: str
    """UUID."""
    target: str
    left_bytes: int | None = None
    """Still to be copied. None: all of it."""
    may_abort: bool = True
    """It has not passed its pivot."""


class Limits(Value):
    """What migrations may use together, and what they cost beside the copy."""

    fleet_bytes_s: int | None = None
    """Of all copies at once. None: no limit."""
    preparing: int = 4
    """Migrations that a host prepares at once in each direction, beside those that copy."""
    prepare_s: float = SETUP_MS * 2 / 3000
    """Before the copy. Needs no copying slot."""
    job_s: float = JOB_MS / 1000
    """Of the copy, beside sending."""
    finish_s: float = SETUP_MS / 3000
    """After the copy."""
    spare_hosts: int = 0
    """N+1: so many of the largest hosts may fail, and the rest has room for their VMs."""
    usual_dirty_bytes_s: int = 20 * MEBI
    """Of VMs that were never measured: the median."""
    usual_spread: float = 1.2
    """The same VMs: natural logarithm, one standard deviation."""


class Snapshot(Value):
    """The fleet at one moment."""

    hosts: tuple[Host, ...]
    vms: tuple[Vm, ...]
    domains: tuple[FailureDomain, ...] = ()
    rules: Rules = Rules()
    moving: tuple[Moving, ...] = ()
    limits: Limits = Limits()
