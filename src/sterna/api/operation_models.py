"""What `/v1` takes and answers about operations. Durations are in seconds, times ISO 8601 UTC."""

from __future__ import annotations

from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sterna.api.rolling_models import BetweenIn, BetweenOut, HostStepOut, WaveOut, steps_of
from sterna.controller.intents.operate import OperationRequest, Preview
from sterna.domain.fleet.admission import Wait
from sterna.domain.fleet.attempts import Attempt
from sterna.domain.fleet.course import OperationKind, OperationStatus
from sterna.domain.fleet.operations import THRESHOLD
from sterna.domain.fleet.plans import LeftOver, Move, Spread
from sterna.domain.fleet.stages import Between, HostStep
from sterna.domain.plain_text import printable
from sterna.domain.policies import DEFAULT, POLICIES, May
from sterna.ports.operations import OperationRecord, Tried

_ID = "bbbbbbbb-0000-4000-8000-000000000001"
MOST_HOSTS = 5000
LONGEST_DEADLINE_S = 366 * 86_400


_A = {
    OperationKind.DRAIN: "a drain",
    OperationKind.ROLLING: "a rolling operation",
    OperationKind.REBALANCE: "a rebalance",
    OperationKind.BRING_BACK: "a bring-back",
}
_OWN = {
    OperationKind.ROLLING: {"most_closed", "of_one_domain", "between"},
    OperationKind.REBALANCE: {"threshold"},
}


class OperationIn(BaseModel):
    """An operation on the fleet."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"id": _ID, "kind": "drain", "hosts": ["host1"]}]}
    )
    id: UUID | None = Field(
        default=None, description="Chosen by the client. Repeating a request with the same ID is safe."
    )
    kind: OperationKind = Field(
        default=OperationKind.DRAIN,
        description="`drain`: migrate all VMs away from these hosts. `rolling`: wave by wave, drain them, "
        "have them maintained, and open them again. `rebalance`: migrate VMs from full hosts to emptier ones, if "
        "that is worth it. `bring-back`: migrate VMs that drains and rolling operations have moved away from these "
        "hosts back to them. The last two close no host.",
    )
    hosts: list[str] = Field(
        default_factory=list,
        max_length=MOST_HOSTS,
        description="Names of the hosts: at least one. A `rebalance` without hosts is one of all hosts.",
    )
    may: list[May] | None = Field(
        default=None,
        max_length=len(May),
        description="Allowed if a copy does not converge. Null: as defined by the policy.",
    )
    policy: str = Field(default=DEFAULT, description=f"One of {', '.join(sorted(POLICIES))}.", max_length=64)
    finish_within_s: float | None = Field(
        default=None,
        strict=True,
        gt=0,
        le=LONGEST_DEADLINE_S,
        description="Refuse the operation if it would probably take longer. Never stops a running operation.",
    )
    even_if_late: bool = Field(
        default=False, strict=True, description="Start it even if it would probably take longer."
    )
    ignore_host_rules: bool = Field(
        default=False,
        strict=True,
        description="Start it even if a rule says that hosts must not be down together. Rules about VMs still "
        "apply.",
    )
    reason: str = Field(
        default="", max_length=255, description="Reason, shown with the hosts while they are closed."
    )
    most_closed: int = Field(
        default=1,
        strict=True,
        ge=1,
        le=MOST_HOSTS,
        description="`rolling` only: maximum number of hosts closed at the same time.",
    )
    of_one_domain: int | None = Field(
        default=1,
        strict=True,
        ge=1,
        le=MOST_HOSTS,
        description="`rolling` only: maximum number of hosts of one failure domain closed at the same time. Null: "
        "no "
        "limit.",
    )
    threshold: float = Field(
        default=THRESHOLD,
        strict=True,
        gt=0,
        lt=1,
        description="`rebalance` only: hosts are left alone that differ by no more than this. A host's fullness "
        "is the larger share of memory and vCPUs in use, 0..1.",
    )
    between: BetweenIn | None = Field(
        default=None,
        description="`rolling` only: what happens with an empty host. Null: the controller runs the command in its "
        "settings. If there is none, restart the host or its agent yourself.",
    )

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> Self:
        for kind, fields in _OWN.items():
            others = fields & self.model_fields_set
            if self.kind is not kind and others:
                raise ValueError(f"{_A[self.kind]} has no {', '.join(sorted(others))}: that is for `{kind}`")
        if self.kind is not OperationKind.DRAIN and self.finish_within_s is not None:
            raise ValueError(f"{_A[self.kind]} has no finish_within_s: its preview shows how long it takes")
        if not self.hosts and self.kind is not OperationKind.REBALANCE:
            raise ValueError(f"{_A[self.kind]} needs hosts: name at least one")
        return self

    def asked(self, by: str) -> OperationRequest:
        """As the intent takes it."""
        return OperationRequest(
            id=str(self.id) if self.id else "",
            kind=self.kind,
            hosts=tuple(self.hosts),
            most_closed=self.most_closed,
            of_one_domain=self.of_one_domain,
            threshold=self.threshold,
            between=self.between.asked() if self.between is not None else Between(),
            may=None if self.may is None else frozenset(self.may),
            policy=self.policy,
            finish_within_s=self.finish_within_s,
            even_if_late=self.even_if_late,
            ignore_host_rules=self.ignore_host_rules,
            reason=printable(self.reason),
            requested_by=by,
        )


class OperationOut(BaseModel):
    """One operation."""

    id: str = Field(examples=[_ID])
    kind: OperationKind
    hosts: list[str] = Field(examples=[["host1"]])
    status: OperationStatus
    reason: str = Field(description="Reason, in the operator's words.")
    may: list[May] | None
    policy: str
    finish_within_s: float | None
    requested_by: str = Field(examples=["token:ops"])
    changed_by: str | None = Field(description="Who paused, resumed, stopped or undid it last.")
    paused_because: str | None = Field(
        description="Why it has paused by itself; null if it has not.",
        examples=["not back within 30 min 0 s: host1 is not back: nothing received from its agent since 12:00:00"],
    )
    created_at: str
    ended_at: str | None = Field(description="Null until it has ended.")
    closed_hosts: list[str] = Field(
        description="Hosts that it has closed and that were open before. An undo opens those that are still closed."
    )
    most_closed: int | None = Field(
        description="Rolling operations: maximum number of hosts closed at the same time. Null for other kinds."
    )
    of_one_domain: int | None = Field(description="The same, per failure domain; null: no limit, or another kind.")
    between: BetweenOut | None = Field(description="Rolling operations: what happens with empty hosts.")
    threshold: float | None = Field(description="Rebalance: hosts that differ by no more are left alone.")
    to_return: int | None = Field(description="Bring-back: number of VMs that were away when it started.")
    seen_at: str | None = Field(description="When a controller last checked it. The next six fields are from then.")
    running: int = Field(description="Its running migrations.")
    waits_for: str | None = Field(
        description="What it waits for besides its own migrations; null if nothing.",
        examples=["host1 cannot be reached: nothing received from its agent since 2026-01-01T00:00:00 UTC"],
    )
    waiting: int = Field(description="VMs whose migrations have not started.")
    left: int = Field(description="VMs that cannot be migrated.")
    promised_end_s: float | None = Field(
        description="Seconds from `seen_at` by which it should have ended: 85 % of simulated runs had. Null if "
        "unknown."
    )
    late_s: float | None = Field(description="How far that is after the deadline; null if it is not.")

    @classmethod
    def of(cls, record: OperationRecord) -> OperationOut:
        """From the records."""
        return cls(**_fields(record))


class OperationsOut(BaseModel):
    """A page of operations, newest first."""

    operations: list[OperationOut]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page.")


class WaitOut(BaseModel):
    """A VM whose migration has not started."""

    vm_uuid: str
    vm_name: str
    source: str
    destination: str = Field(description="As planned now.")
    reason: str = Field(
        description="What it waits for.", examples=["host1 is already preparing 4 migrations: a, b, c, d"]
    )

    @classmethod
    def of(cls, wait: Wait) -> WaitOut:
        """From the records."""
        return cls(
            vm_uuid=wait.vm, vm_name=wait.name, source=wait.source, destination=wait.target, reason=wait.reason
        )


class LeftOut(BaseModel):
    """A VM that cannot be migrated."""

    vm_uuid: str
    vm_name: str
    host: str
    reason: str = Field(examples=["web1 cannot be migrated: it is paused"])

    @classmethod
    def of(cls, left: LeftOver) -> LeftOut:
        """From the plan."""
        return cls(vm_uuid=left.vm, vm_name=left.name, host=left.host, reason=left.reason)


class MoveOut(BaseModel):
    """A migration that the operation has decided on."""

    migration_id: str
    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    purpose: str = Field(description="`empty`, `make room`, `park`, `bring back` (an undo), `return` or `balance`.")
    state: str = Field(description="`decided`, `started`, `arrived`, `failed`, `cancelled` or `refused`.")
    reason: str = Field(description="Why it did not arrive; empty if it did, or has not ended.")
    decided_at: str
    ended_at: str | None

    @classmethod
    def of(cls, attempt: Attempt) -> MoveOut:
        """From the records."""
        return cls(
            migration_id=attempt.migration,
            vm_uuid=attempt.vm,
            vm_name=attempt.name,
            source=attempt.source,
            destination=attempt.target,
            purpose=attempt.purpose.value,
            state=attempt.state.value,
            reason=attempt.reason,
            decided_at=attempt.decided_at,
            ended_at=attempt.ended_at or None,
        )


class OperationDetailOut(OperationOut):
    """One operation, with each of its VMs."""

    host_steps: list[HostStepOut] = Field(description="Rolling operations: progress of each host.")
    moves: list[MoveOut] = Field(description="In the order in which they were decided.")
    waits: list[WaitOut]
    stays: list[LeftOut]

    @classmethod
    def with_moves(cls, record: OperationRecord, tried: list[Tried], steps: list[HostStep]) -> OperationDetailOut:
        """From the records."""
        return cls(
            **_fields(record),
            host_steps=steps_of(record, steps),
            moves=[MoveOut.of(one.attempt) for one in tried],
            waits=[WaitOut.of(one) for one in record.standing.waits],
            stays=[LeftOut.of(one) for one in record.standing.left],
        )


def _fields(record: OperationRecord) -> dict[str, Any]:
    standing, rolling = record.standing, record.kind is OperationKind.ROLLING
    return {
        **record.model_dump(include={"id", "status", "reason", "policy", "finish_within_s", "requested_by"}),
        "kind": record.kind,
        "most_closed": record.most_closed if rolling else None,
        "of_one_domain": record.of_one_domain if rolling else None,
        "between": BetweenOut.of(record.between) if rolling else None,
        "threshold": record.threshold if record.kind is OperationKind.REBALANCE else None,
        "to_return": len(record.returns) if record.kind is OperationKind.BRING_BACK else None,
        "paused_because": record.paused_because or None,
        "hosts": list(record.hosts),
        "may": None if record.may is None else sorted(record.may),
        "changed_by": record.changed_by or None,
        "created_at": record.created_at,
        "ended_at": record.ended_at or None,
        "closed_hosts": list(record.closed),
        "seen_at": standing.at or None,
        "running": standing.running,
        "waits_for": standing.waits_for or None,
        "waiting": len(standing.waits),
        "left": len(standing.left),
        "promised_end_s": None if record.status.final else standing.promised_s,
        "late_s": None if record.status.final else standing.late_s,
    }


class PlannedMoveOut(BaseModel):
    """A planned migration."""

    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    purpose: str = Field(description="`empty`, `make room`, `park`, `bring back` (an undo), `return` or `balance`.")
    begun: bool = Field(description="True if it is already running.")
    start_s: float = Field(description="Forecast, in seconds from now.")
    end_s: float

    @classmethod
    def of(cls, move: Move) -> PlannedMoveOut:
        """From the plan."""
        return cls(
            vm_uuid=move.vm,
            vm_name=move.name,
            source=move.source,
            destination=move.target,
            purpose=move.purpose.value,
            begun=move.begun,
            start_s=move.start_s,
            end_s=move.end_s,
        )


class SpreadOut(BaseModel):
    """How full the fullest and the emptiest open host are: the larger share of memory and vCPUs in use, 0..1."""

    fullest: float
    emptiest: float
    fullest_after: float
    emptiest_after: float

    @classmethod
    def of(cls, spread: Spread) -> SpreadOut:
        """From the plan."""
        return cls(**spread.model_dump())


class PreviewOut(BaseModel):
    """What an operation would do now."""

    moves: list[PlannedMoveOut]
    stays: list[LeftOut]
    waves: list[WaveOut] = Field(description="Waves of a rolling operation, in their order.")
    skipped: dict[str, str] = Field(description="Hosts that would not be closed, and why.")
    aborts: list[str] = Field(description="UUIDs of VMs whose migrations into the hosts would be aborted.")
    spread: SpreadOut | None = Field(description="Rebalance: how full the hosts are, before and after.")
    least_s: float = Field(description="Lower bound: no plan ends sooner.")
    expected_s: float = Field(description="Forecast of the end: later is as likely as sooner.")
    promised_s: float = Field(description="It should have ended by then: 85 % of simulated runs had.")
    late_s: float | None = Field(description="How far that is after the deadline; null if it is not.")
    waits_for: str = Field(description="What determines the end; empty if nothing is migrated.")
    helps: list[str] = Field(description="What would shorten it.")
    unmeasured: int = Field(
        description="VMs to be migrated whose dirty rate was never measured: a typical rate and no local disks are "
        "assumed."
    )
    unheard: dict[str, str] = Field(
        description="Hosts that did not list their VMs now, and why: their last known VMs are used."
    )

    @classmethod
    def of(cls, preview: Preview) -> PreviewOut:
        """From the plan."""
        plan = preview.plan
        return cls(
            moves=[PlannedMoveOut.of(move) for move in plan.moves],
            stays=[LeftOut.of(one) for one in plan.left],
            waves=[WaveOut.of(wave) for wave in plan.waves],
            skipped=plan.skipped,
            aborts=list(plan.aborts),
            spread=SpreadOut.of(plan.spread) if plan.spread is not None else None,
            least_s=plan.bounds.most_s,
            expected_s=preview.expected_s,
            promised_s=preview.promised_s,
            late_s=preview.late_s,
            waits_for=plan.promise.waits_for,
            helps=[one.sentence for one in plan.promise.helps],
            unmeasured=preview.unmeasured,
            unheard=preview.unheard,
        )
