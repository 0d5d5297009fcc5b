"""Operations: plan one, begin one, and what can be asked of one that was begun.

Its hosts are closed in the transaction that records it. Everything else is done by whichever controller holds it
(`controller/operations/`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from uuid import uuid4

import structlog

from sterna.controller import reasons
from sterna.controller.intents.request import MigrateRequest
from sterna.controller.operations.between import NoHooks
from sterna.controller.operations.observing import Observer
from sterna.controller.operations.planning import (
    Wanted,
    drain_of,
    forecast_of,
    home_of,
    made_plan,
    may_of,
    rebalance_of,
    rolling_of,
)
from sterna.controller.records.registry import Registry
from sterna.domain.errors import NotFound, Refused
from sterna.domain.fleet.attempts import Attempt, returns
from sterna.domain.fleet.course import OperationKind, Order
from sterna.domain.fleet.operations import THRESHOLD, BringBack
from sterna.domain.fleet.plans import Plan
from sterna.domain.fleet.rule_checks import away_of, down_together
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.stages import Between, HostStep
from sterna.domain.model import Refusal, Value
from sterna.domain.objective import Asked
from sterna.domain.policies import DEFAULT, POLICIES, May
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet
from sterna.ports.hooks import Hooks
from sterna.ports.operations import OperationRecord

log = structlog.get_logger(__name__)


class OperationRequest(Value):
    """What an operator asks for."""

    id: str = ""
    """UUID chosen by the client; '' to have one made."""
    kind: OperationKind = OperationKind.DRAIN
    hosts: tuple[str, ...]
    """To be emptied; to which VMs are brought back; or those that are rebalanced, none for all."""
    threshold: float = THRESHOLD
    """Of a rebalance."""
    most_closed: int = 1
    of_one_domain: int | None = 1
    between: Between = Between()
    """What is done to the hosts of a rolling operation. The command of the settings is taken where nothing else is
    asked for."""
    may: frozenset[May] | None = None
    policy: str = DEFAULT
    finish_within_s: float | None = None
    even_if_late: bool = False
    """Begin also where the deadline will probably be missed."""
    ignore_host_rules: bool = False
    """Begin also where a rule says that hosts are not to be down together."""
    reason: str = ""
    requested_by: str = ""


class Preview(Value):
    """What an operation would do."""

    plan: Plan
    expected_s: float
    promised_s: float
    late_s: float | None = None
    """By how much the promise misses the deadline. None: it does not, or there is none."""
    unmeasured: int = 0
    """Of the VMs that would move, those whose dirty rate nobody has measured: a usual one is taken."""
    unheard: dict[str, str] = {}
    """Hosts that have not listed their VMs now, and why: what is known of them may be old."""


def request_of(operation: OperationRecord, attempt: Attempt) -> MigrateRequest:
    """The migration that an operation has decided on."""
    return MigrateRequest(
        id=attempt.migration,
        vm=attempt.vm,
        destination=attempt.target,
        asked=Asked(policy=operation.policy, may=operation.may),
        ignore_rules=True,  # the plan has kept them, and the records look whether they are still the same
        requested_by=operation.asked_by(attempt),
    )


class Operate:
    """The intents about operations."""

    def __init__(
        self, fleet: Fleet, registry: Registry, observer: Observer, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self._fleet, self._registry, self._observer = fleet, registry, observer
        self._clock, self._wake = clock, wake
        self.hooks: Hooks = NoHooks()
        self.may_rebalance = False
        """By the settings."""

    async def preview(self, request: OperationRequest) -> Preview:
        """What it would do now. Changes nothing. Raises NotFound for a host that there is not; Refused for a policy
        that there is not, a host that is gone, or where no host would take VMs. Also where hosts are not to be down
        together, or nothing is to be brought back."""
        record = await self._with_returns(self._record(request))
        if record.kind is OperationKind.DRAIN and not request.ignore_host_rules:  # waves are planned by the rules
            closed = {host.name: host.maintenance for host in await self._registry.hosts()}
            away = away_of(closed, self._registry.usable())
            reasons.refuse(down_together(await self._fleet.rules(), record.hosts, away))
        return await self._planned(record)

    async def begin(self, request: OperationRequest) -> tuple[OperationRecord, bool]:
        """The operation, and whether the id was known already: then nothing is done.

        Raises NotFound and Refused as `preview`; Refused where it would miss its deadline or VMs would be left at
        it, or for a rebalance that is off. Raises Conflict where another operation works on one of its hosts, or
        the id belongs to another request.
        """
        record = self._record(request)
        if not await self._is_known(record.id):
            if record.kind is OperationKind.REBALANCE and not self.may_rebalance:
                reasons.refuse([reasons.rebalance_off()])
            record = await self._with_returns(record)
            await self._refuse(record, even_if_late=request.even_if_late)
        up = None if request.ignore_host_rules else self._registry.usable()
        record, repeated = await self._fleet.add_operation(record, up)
        if not repeated:
            asked = {"operation": record.id, "kind": record.kind, "hosts": record.hosts, "by": record.requested_by}
            log.info("an operation begins", **asked)
        self._wake()
        return record, repeated

    async def preview_undo(self, id: str) -> Preview:
        """What an undo would bring back now. Changes nothing. Raises NotFound."""
        record = await self._fleet.operation(id)
        back = returns(one.attempt for one in await self._fleet.attempts(id))
        unheard = await self._observer.ask(sorted({one.put_on for one in back}))
        snapshot = (await self._observer.observe()).snapshot
        snapshot = _with_open(snapshot, record.closed)
        return await self._foreseen(snapshot, BringBack(returns=back, may=may_of(record)), unheard)

    async def host_done(self, id: str, host: str, by: str) -> OperationRecord:
        """What was to be done to a host of a rolling operation is done. May be repeated. Raises NotFound; Conflict
        where it is not its turn."""
        record = await self._fleet.host_done(id, host, by, self._clock.now().isoformat())
        log.info("a host is said to be done", operation=id, host=host, by=by)
        self._wake()
        return record

    async def order(self, id: str, order: Order, by: str) -> OperationRecord:
        """Pause, resume, stop or undo it. May be repeated. Raises NotFound; Conflict where that cannot be asked
        now; Refused where it would close a host that is not to be down together with one that is away."""
        record = await self._fleet.order_operation(
            id, order, by, self._clock.now().isoformat(), self._registry.usable()
        )
        log.info("an operation was asked for something", operation=id, order=order, by=by, status=record.status)
        self._wake()
        return record

    async def _with_returns(self, record: OperationRecord) -> OperationRecord:
        """With the VMs that it is to bring back. Raises NotFound, Refused where there are none."""
        if record.kind is not OperationKind.BRING_BACK:
            return record
        gone = [host for host in await self._registry.named(record.hosts) if host.gone]
        reasons.refuse([reasons.gone_for_returns(host.name, removed=host.removed) for host in gone])
        found = await self._fleet.moved_away(record.hosts)
        if not found:
            reasons.refuse([reasons.nothing_to_bring_back(record.hosts)])
        return record.model_copy(update={"returns": found})

    async def _is_known(self, id: str) -> bool:
        try:
            await self._fleet.operation(id)
        except NotFound:
            return False
        return True

    def _record(self, request: OperationRequest) -> OperationRecord:
        if request.policy not in POLICIES:
            message = f"there is no policy {request.policy}"
            raise Refused([Refusal(code="policy-unknown", message=message)])
        between = request.between
        if between.webhook and (why := self.hooks.against(between.webhook)):
            reasons.refuse([reasons.webhook_not_allowed(between.webhook, why)])
        is_asked = request.kind is not OperationKind.ROLLING or between.webhook or between.by_hand
        if not is_asked and self.hooks.has_command():
            between = between.model_copy(update={"command": True})
        return OperationRecord(
            id=request.id or str(uuid4()),
            kind=request.kind,
            hosts=tuple(sorted(set(request.hosts))),
            most_closed=request.most_closed,
            of_one_domain=request.of_one_domain,
            threshold=request.threshold,
            between=between,
            may=request.may,
            policy=request.policy,
            finish_within_s=request.finish_within_s,
            ignores_host_rules=request.ignore_host_rules,
            reason=request.reason,
            requested_by=request.requested_by,
            created_at=self._clock.now().isoformat(),
        )

    async def _refuse(self, record: OperationRecord, *, even_if_late: bool) -> None:
        """Raises as `begin`."""
        if record.finish_within_s is None or even_if_late:
            await self._check(record)
            return
        found = await self._planned(record)
        against = []
        if found.plan.left:
            against.append(reasons.deadline_with_vms_left([one.reason for one in found.plan.left]))
        if found.late_s is not None:
            against.append(reasons.deadline_missed(found.promised_s, found.late_s))
        reasons.refuse(against)

    async def _check(self, record: OperationRecord) -> Snapshot:
        """The fleet. Raises NotFound, Refused."""
        gone = [host for host in await self._registry.named(record.hosts) if host.gone]
        if gone:
            reasons.refuse([reasons.host_gone(host.name, removed=host.removed) for host in gone])
        snapshot = (await self._observer.observe()).snapshot
        takers = {host.name for host in snapshot.hosts if not host.closed and not host.gone}
        if not record.kind.empties:
            return snapshot
        full = {vm.host for vm in snapshot.vms} & set(record.hosts)
        if record.kind is OperationKind.DRAIN or len(takers) == 1:  # a wave leaves the others open
            takers -= set(record.hosts)
        if full and not takers:
            reasons.refuse([reasons.no_open_host()])
        return snapshot

    async def _planned(self, record: OperationRecord) -> Preview:
        asked = {*record.hosts, *(one.put_on for one in record.returns)}
        unheard = await self._observer.ask(sorted(asked))
        return await self._foreseen(await self._check(record), self._wanted(record), unheard)

    def _wanted(self, record: OperationRecord) -> Wanted:
        if record.kind is OperationKind.ROLLING:
            return rolling_of(record, [HostStep(host=name) for name in record.hosts])
        if record.kind is OperationKind.BRING_BACK:
            return home_of(record, record.returns)
        if record.kind is OperationKind.REBALANCE:
            return rebalance_of(record)
        return drain_of(record, self._clock.now())

    async def _foreseen(self, snapshot: Snapshot, wanted: Wanted, unheard: dict[str, str]) -> Preview:
        plan = await made_plan(snapshot, wanted)
        forecast, moved = forecast_of(plan, wanted), {move.vm for move in plan.moves}
        return Preview(
            plan=plan,
            expected_s=forecast.expected_s,
            promised_s=forecast.promised_s,
            late_s=forecast.late_s,
            unmeasured=sum(vm.uuid in moved and vm.dirty_bytes_s is None for vm in snapshot.vms),
            unheard=unheard,
        )


def _with_open(snapshot: Snapshot, names: Collection[str]) -> Snapshot:
    """The fleet once these hosts take VMs again."""
    opened = [host.model_copy(update={"closed": ""}) if host.name in names else host for host in snapshot.hosts]
    return snapshot.model_copy(update={"hosts": tuple(opened)})
