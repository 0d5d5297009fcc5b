"""What `/v1` takes and answers about migrations.

Sizes are in bytes, rates in bytes/s, durations in ms or s, as the field's name says. A field that has not been
observed is null, never zero.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from sterna.api.dependencies import LARGEST
from sterna.domain.definition_diff import DefinitionDiff
from sterna.domain.hosts import Transport
from sterna.domain.objective import Asked
from sterna.domain.policies import DEFAULT, POLICIES, Accept, May
from sterna.domain.progress import Progress
from sterna.domain.report import Report
from sterna.domain.rows import row_for
from sterna.domain.timeline import Item, What
from sterna.ports.fleet import MigrationRecord

_VM_ID = "aaaaaaaa-0000-4000-8000-000000000001"
_ID = "11111111-1111-4111-8111-111111111111"


class ObjectiveIn(BaseModel):
    """Objective of the copy. Null: as defined by the policy."""

    model_config = ConfigDict(extra="forbid")
    policy: str = Field(default=DEFAULT, description=f"One of {', '.join(sorted(POLICIES))}.", max_length=64)
    max_downtime_ms: int | None = Field(
        default=None, strict=True, description="Maximum pause of the guest at the switch-over."
    )
    finish_within_s: float | None = Field(
        default=None, strict=True, description="Time limit, from the request to the end of the copy."
    )
    may: list[May] | None = Field(default=None, max_length=3, description="Allowed if the copy does not converge.")
    bandwidth_bytes_s: int | None = Field(
        default=None,
        strict=True,
        ge=2**20,
        le=LARGEST,
        description="Bandwidth limit for the copy; null: as defined by the policy.",
    )
    transport: Transport | None = Field(
        default=None,
        description="Transport for memory; null: as configured on the hosts, otherwise TLS. TCP only if both hosts "
        "have `insecure` and a certificate is missing.",
    )
    accept: list[Accept] = Field(
        default_factory=list,
        max_length=len(Accept),
        description="Accepted risks. `cpu`: the guest sees the host's CPU, and the destination's CPU is different.",
    )

    def asked(self) -> Asked:
        """As the domain's value."""
        fields = self.model_dump(include=set(ObjectiveIn.model_fields))
        may = None if self.may is None else frozenset(self.may)
        return Asked(**fields | {"may": may, "accept": frozenset(self.accept)})


IGNORE_RULES = Field(
    default=False, strict=True, description="Migrate although a placement rule forbids it. All other checks apply."
)


class MigrationIn(ObjectiveIn):
    """A request to migrate a VM."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"id": _ID, "vm": "web1", "destination": "host2"}]}
    )
    id: UUID | None = Field(
        default=None, description="Chosen by the client. Repeating a request with the same ID is safe."
    )
    vm: str = Field(min_length=1, max_length=255, description="Name or UUID.")
    destination: str | None = Field(
        default=None, min_length=1, max_length=255, description="A host's name; null: Sterna chooses."
    )
    ignore_rules: bool = IGNORE_RULES


class MigrationOut(BaseModel):
    """One migration."""

    id: str = Field(examples=[_ID])
    vm_uuid: str = Field(examples=[_VM_ID])
    vm_name: str = Field(examples=["web1"])
    source: str = Field(examples=["host1"])
    destination: str = Field(examples=["host2"])
    epoch: int | None = Field(description="Null until the source has accepted it.")
    status: str = Field(examples=["migrating"])
    owner: str = Field(description="The host that owns the guest: `source`, `destination` or `undecided`.")
    reason: str = Field(description="Why it is in this status, or what it waits for.")
    error: dict[str, Any] | None = Field(description="Why it was rolled back: code, message, fix.")
    requested_by: str | None = Field(
        description="Who requested it, as in the audit log; null if unknown.", examples=["token:ci"]
    )
    created_at: str
    updated_at: str
    finished_at: str | None
    progress: Progress

    @classmethod
    def of(cls, record: MigrationRecord) -> MigrationOut:
        """From the records."""
        return cls(**_fields(record))


class MigrationDetailOut(MigrationOut):
    """One migration with its report."""

    report: Report

    @classmethod
    def with_report(cls, record: MigrationRecord, report: Report) -> MigrationDetailOut:
        """From the records and what the journals say."""
        return cls(**_fields(record), report=report)


def _fields(record: MigrationRecord) -> dict[str, Any]:
    migration = record.migration
    return {
        **migration.model_dump(include={"id", "vm_uuid", "vm_name", "source", "destination", "created_at"}),
        "requested_by": migration.requested_by or None,
        "epoch": migration.epoch or None,
        "status": record.status.value,
        "owner": record.status.owner,
        "reason": record.reason,
        "error": record.error,
        "updated_at": record.updated_at,
        "finished_at": record.finished_at,
        "progress": record.progress,
    }


class MigrationsOut(BaseModel):
    """A page of migrations, newest first."""

    migrations: list[MigrationOut]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page.")


class TimelineItemOut(BaseModel):
    """One line of the timeline."""

    host: str
    role: str
    what: str = Field(description="`step`, `note`, `status`, `restart` or `mark`.")
    row: str = Field(description="Row of the protocol, or ''.", examples=["P9"])
    name: str = Field(examples=["connect-volumes"])
    label: str = Field(description="The step in words.", examples=["connect volumes"])
    started_at: str = Field(description="ISO 8601 UTC, by the host's own clock.")
    duration_ms: float | None = Field(description="Null if the agent restarted in the meantime.")
    result: str = Field(description="`done`, `failed`, `running`, `retrying`, `interrupted` or `noted`.")
    tries: int
    restarts: int
    error: dict[str, Any] | None
    status: str
    reason: str

    @classmethod
    def of(cls, item: Item) -> TimelineItemOut:
        """From the timeline."""
        words = item.name.replace("-", " ")
        label = row_for(item.row, item.role, item.name).label if item.what is What.STEP else words
        return cls(**item.model_dump(mode="json", exclude={"data", "ended_at"}), label=label)


class TimelineOut(BaseModel):
    """Every step of both agents, in a possible order."""

    items: list[TimelineItemOut]


class DefinitionDifferenceOut(BaseModel):
    """One place in which the VM's definition on the destination differs from the one on the source."""

    where: str = Field(
        description="Path in libvirt's XML; in brackets, which of several elements it is.",
        examples=["devices/interface[52:54:00:00:00:01]/source/@bridge"],
    )
    before: str = Field(description="On the source; '' where it was not there.", examples=["br0"])
    after: str = Field(description="On the destination; '' where it is not there.", examples=["br-prod"])
    live: bool = Field(description="In the definition of the running guest.")
    persistent: bool = Field(description="In the definition of its next start.")
    reason: str = Field(description="Why it is different.", examples=["the destination's bridge"])


class DefinitionDiffOut(BaseModel):
    """What is different in a VM's definition after its migration."""

    recorded: bool = Field(description="False: it is not known whether there are differences; `summary` says why.")
    summary: str
    differences: list[DefinitionDifferenceOut]
    left_out: int = Field(description="Differences that were not recorded, as there were too many.")
    notes: list[str] = Field(description="Changes of the VM during the migration that were not Sterna's.")
    edited: str = Field(
        description="The persistent definition as somebody edited it on the source during the migration, without "
        "secrets; '' where nobody did."
    )

    @classmethod
    def of(cls, diff: DefinitionDiff) -> DefinitionDiffOut:
        """From the journal of the source."""
        return cls.model_validate(diff.model_dump())
