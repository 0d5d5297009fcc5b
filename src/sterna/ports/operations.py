"""The controller's records of operations: what operators ask of the fleet, and the migrations that follow from it.

No agent knows of operations, so these records cannot be made again. One controller at a time carries an operation
out. It holds a lease: a number (`epoch`) that grows with each holder, and a count (`beat`) that it moves on. A
holder whose count does not move is taken for dead. What an earlier holder still writes is not taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from sterna.domain.fleet.admission import Wait
from sterna.domain.fleet.attempts import Attempt, AttemptState, Blame, back
from sterna.domain.fleet.course import OperationKind, OperationStatus, Order
from sterna.domain.fleet.operations import THRESHOLD, Return
from sterna.domain.fleet.plans import LeftOver
from sterna.domain.fleet.rules import Rule
from sterna.domain.fleet.stages import Between, Change, HostStep
from sterna.domain.model import Value, omitted
from sterna.domain.notifications.standing import Told
from sterna.domain.policies import DEFAULT, May
from sterna.domain.status import Status


class Standing(Value):
    """How an operation stands, as the controller that carries it out has seen it last."""

    at: str = ""
    """ISO 8601 UTC, this controller's clock; '' where it was never looked at."""
    waits: tuple[Wait, ...] = ()
    left: tuple[LeftOver, ...] = ()
    """VMs that cannot be moved, or were not."""
    waits_for: str = ""
    """What keeps it from its end beside these: one sentence, '' where that is nothing."""
    hosts: dict[str, str] = {}
    """Of a rolling operation: what a host waits for, where there is something to say."""
    running: int = 0
    """Its migrations under way."""
    expected_s: float | None = None
    """From `at` to its end, as likely later as sooner."""
    promised_s: float | None = None
    """From `at`: kept eight times in ten."""
    late_s: float | None = None
    """By how much the promise misses the deadline. None: it does not, or there is none."""
    told: Told = omitted(Told())
    """What of this has been reported to the endpoints of notifications. The records keep it."""


class OperationRecord(Value):
    """One operation."""

    number: int = 0
    """In order of arrival; what pages are made of."""
    id: str
    """UUID, chosen by the client."""
    kind: OperationKind = OperationKind.DRAIN
    hosts: tuple[str, ...]
    """That it empties, by name; where it brings VMs back, their origins. A rebalance moves VMs among these only;
    none: among all."""
    returns: tuple[Return, ...] = ()
    """The VMs that it brings back, as it was when it began. An undo does not need them."""
    threshold: float = THRESHOLD
    """Of a rebalance: the difference between two hosts that is left alone, 0..1."""
    most_closed: int = 1
    """Of a rolling operation: hosts that are closed at once."""
    of_one_domain: int | None = 1
    """The same: of one failure domain. None: no limit."""
    between: Between = Between()
    """The same: what is done to its empty hosts."""
    may: frozenset[May] | None = None
    """What may be done to VMs whose copies do not converge. None: by the policy."""
    policy: str = DEFAULT
    finish_within_s: float | None = None
    ignores_host_rules: bool = False
    """Rules about hosts that are not to be down together do not count, also when it is resumed."""
    reason: str = ""
    """The operator's own words."""
    requested_by: str = ""
    created_at: str = ""
    """ISO 8601 UTC, the controller's clock."""
    status: OperationStatus = OperationStatus.RUNNING
    changed_by: str = ""
    """Who gave the last order that changed its status; '' where nobody has."""
    paused_because: str = ""
    """Why it has paused by itself; '' where it has not."""
    ended_at: str = ""
    """ISO 8601 UTC; '' while it goes on."""
    closed: tuple[str, ...] = ()
    """Of its hosts, those that nothing but operations keeps closed. An undo opens them again."""
    undo: bool = False
    """Its undo was asked for, and nothing else since."""
    counts_from: int = 0
    """Number of its first attempt that counts as a failure: an operator who asks again wants it tried again."""
    holder: str = ""
    """The controller that carries it out; '': nobody does now."""
    epoch: int = 0
    beat: int = 0
    standing: Standing = Standing()

    def asked_by(self, attempt: Attempt) -> str:
        """Who wants this migration."""
        return self.changed_by if back(attempt) else self.requested_by

    def asks_as(self, other: OperationRecord) -> bool:
        """Is it the same request?"""
        same = ("kind", "hosts", "may", "policy", "finish_within_s", "most_closed", "of_one_domain", "threshold")
        mine, others = (one.between.model_copy(update={"command": False}) for one in (self, other))
        return mine == others and all(getattr(self, name) == getattr(other, name) for name in same)


class Tried(Value):
    """An attempt, and how its migration stands in the records, where there is one and the attempt has not ended."""

    attempt: Attempt
    status: Status | None = None
    accepted: bool = False
    """The source's journal has it."""
    reason: str = ""


class Decision(Value):
    """Migrations that shall begin. Written before any of them does."""

    operation: str
    epoch: int
    status: OperationStatus
    """Of the operation, when it was decided."""
    attempts: tuple[Attempt, ...]
    seen: frozenset[str]
    """Ids of all migrations that had been decided on or were under way, as far as was known."""
    rules: tuple[Rule, ...] = ()
    """All placement rules that there were."""


class Seen(Value):
    """What was known of all hosts when it was decided that something begins on some of them."""

    usable: frozenset[str]
    closed: frozenset[str] = frozenset()
    """In maintenance, whoever has put them there."""


class OperationPage(Value):
    """Which operations to list, newest first."""

    before: int | None = None
    """Only those with a smaller number."""
    limit: int = 50
    statuses: tuple[OperationStatus, ...] = ()
    id_prefix: str = ""


class OperationRecords(Protocol):
    """Operations and their attempts. Every method is one transaction and raises as `ports.fleet.Fleet` does."""

    async def add_operation(
        self, operation: OperationRecord, up: Collection[str] | None = None
    ) -> tuple[OperationRecord, bool]:
        """Record it and close its hosts, with its reason; True where it is known already: then nothing changes.
        The hosts of a rolling operation are closed when their turn comes (`advance_hosts`); a rebalance and a
        bring-back close none. `up`: hosts that can be used; None: rules about hosts that are not to be down
        together do not count.

        Raises NotFound for a host that there is not; Refused where such a rule speaks against it; Conflict where
        another operation works on one of its hosts, or the id belongs to another request. A rebalance conflicts
        with other rebalances only.
        """

    async def operation(self, id: str) -> OperationRecord:
        """Raises NotFound."""

    async def operations(self, page: OperationPage) -> list[OperationRecord]:
        """Newest first."""

    async def unfinished_operations(self) -> list[OperationRecord]:
        """Oldest first."""

    async def order_operation(
        self, id: str, order: Order, by: str, at: str, up: Collection[str] | None = None
    ) -> OperationRecord:
        """Do what an operator asks of it. An undo opens the hosts again that it has closed, but
        not those that a person has closed since. A drain that had ended and goes on closes its hosts again;
        hosts of a rolling operation that are open wait for their turn. Earlier failures do not count any more,
        then. `up`: as of `add_operation`.

        Raises NotFound; Conflict where that cannot be asked now; Refused where a rule speaks against closing a host
        again.
        """

    async def take_operation(self, known: OperationRecord, holder: str) -> OperationRecord | None:
        """Hold it from now on, if it is still held as `known` says; None where somebody was faster."""

    async def keep_operation(self, id: str, epoch: int) -> OperationRecord | None:
        """Still hold it; None where another one does."""

    async def release_operation(self, id: str, epoch: int) -> None:
        """Hold it no more: another controller need not wait."""

    async def attempts(self, operation: str) -> list[Tried]:
        """In the order in which they were decided."""

    async def active_attempts(self) -> list[Attempt]:
        """Of all operations, those that have not ended."""

    async def moved_away(self, hosts: Collection[str]) -> tuple[Return, ...]:
        """The VMs that operations have moved away from these hosts, by all attempts that are known. See
        domain.fleet.attempts.moved_away."""

    async def decide(self, decision: Decision) -> tuple[Attempt, ...]:
        """Write its attempts, without those whose VM is not where the attempt says, or is in a migration; those
        that were written. None is where the decision is out of date: another holder, another status, other
        placement rules, or a migration that was not seen, from or to one of its hosts or of a VM that a rule
        names."""

    async def settle_attempt(
        self, attempt: Attempt, epoch: int, state: AttemptState, *, reason: str, blame: Blame, at: str
    ) -> Attempt | None:
        """It has come so far; the attempt as it is now, None where another one holds the operation. Changes nothing
        where it has ended, nor where it is said not to have moved its VM, and the records have its migration as
        under way or completed."""

    async def stand(self, id: str, epoch: int, standing: Standing) -> None:
        """How it stands. Does nothing where another one holds it."""

    async def host_steps(self, operation: str) -> list[HostStep]:
        """Of a rolling operation: its hosts, by name."""

    async def advance_hosts(
        self,
        known: OperationRecord,
        changes: Sequence[Change],
        pause: str = "",
        seen: Seen | None = None,
        at: str = "",
    ) -> bool:
        """Write how far hosts are, close those that begin, and open those that it has closed and that are over.
        `pause`: why the operation pauses. `seen`: of the fleet, where something begins; None: no other host counts.
        `at`: when it pauses; '': when it was looked at last.

        False, and nothing is written, where that is out of date: another holder, a host that is at another step,
        or one that is said to be empty and is not. To begin something, or to pause, also in another status; to
        close hosts, also where others are closed than were seen.

        Raises Refused where a rule says that a host on which something begins is not to be down together with one
        that is closed or cannot be used."""

    async def host_done(self, id: str, host: str, by: str, at: str) -> OperationRecord:
        """Somebody says that what was to be done to the host is done. Repeated, nothing changes.

        Raises NotFound for an operation or a host of it that there is not; Conflict where it is not its turn."""

    async def conclude(
        self,
        known: OperationRecord,
        status: OperationStatus,
        standing: Standing,
        at: str,
        empty: Collection[str] = (),
    ) -> bool:
        """End it; False where another one holds it, its status has changed, one of its attempts goes on, or one of
        the hosts `empty` says that it runs a VM, wherever that is at home."""
