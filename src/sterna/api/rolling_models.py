"""What `/v1` takes and answers about rolling operations. Durations are in seconds, times ISO 8601 UTC."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from sterna.domain.fleet.plans import Wave
from sterna.domain.fleet.stages import Between, HostStep, Stage
from sterna.domain.webhooks import LONGEST
from sterna.ports.operations import OperationRecord

LONGEST_BACK_S = 30 * 86_400


class BetweenIn(BaseModel):
    """What happens with an empty host of a rolling operation, and when it counts as back. With a webhook and
    `by_hand`, the webhook is called, and the host then waits until it is reported as done."""

    model_config = ConfigDict(extra="forbid")
    webhook: str | None = Field(
        default=None,
        max_length=LONGEST,
        description="URL to call (POST) for each empty host. Must be allowed in the controller's settings ([fleet] "
        "webhooks).",
        examples=["https://jobs.example/sterna/reboot"],
    )
    by_hand: bool = Field(
        default=False,
        strict=True,
        description="A host is done when it is reported with `/v1/operations/{id}/hosts/{host}/done`.",
    )
    back_within_s: float = Field(
        default=1800.0,
        strict=True,
        gt=0,
        le=LONGEST_BACK_S,
        description="The operation pauses if a host takes longer. With `by_hand`, counted from when the host is "
        "done.",
    )
    agent_version: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[0-9A-Za-z][0-9A-Za-z.+!_-]*$",
        description="Version that the agent must have before its host is opened. Null: any.",
        examples=["0.2.0"],
    )

    def asked(self) -> Between:
        """As the intent takes it."""
        return Between(
            webhook=self.webhook or "",
            by_hand=self.by_hand,
            back_within_s=self.back_within_s,
            agent_version=self.agent_version or "",
        )


class BetweenOut(BaseModel):
    """What happens with an empty host of a rolling operation."""

    webhook: str | None
    command: bool = Field(description="The controller runs the command in its settings.")
    by_hand: bool
    back_within_s: float
    agent_version: str | None

    @classmethod
    def of(cls, between: Between) -> BetweenOut:
        """From the records."""
        return cls(
            webhook=between.webhook or None,
            command=between.command,
            by_hand=between.by_hand,
            back_within_s=between.back_within_s,
            agent_version=between.agent_version or None,
        )


class HostStepOut(BaseModel):
    """Progress of a host in a rolling operation."""

    host: str
    stage: Stage = Field(
        description="`waiting`: for its wave. `draining`: it is closed, and its VMs are being migrated. `empty`: "
        "it "
        "has no VMs. `between`: its maintenance may have started. `back`: its maintenance is over. `done`: it "
        "accepts "
        "VMs again. `skipped`: the operation leaves it alone."
    )
    wave: int | None = Field(description="Number of its wave, from 0; null if it has not started.")
    since: str | None = Field(description="Start of this stage; null if it has not started.")
    reason: str | None = Field(
        description="Why it was skipped, or what it waits for; null if neither.",
        examples=["the agent of host1 has not restarted yet"],
    )
    accepted_at: str | None = Field(description="When the webhook or the command accepted it.")
    done_by: str | None = Field(description="Who reported it as done.")

    @classmethod
    def of(cls, step: HostStep, waits_for: str) -> HostStepOut:
        """From the records."""
        return cls(
            host=step.host,
            stage=step.stage,
            wave=step.wave,
            since=step.since or None,
            reason=step.reason or (None if step.stage.ended else waits_for or None),
            accepted_at=step.accepted_at or None,
            done_by=step.done_by or None,
        )


def steps_of(record: OperationRecord, steps: list[HostStep]) -> list[HostStepOut]:
    """In the order of their waves, hosts that have not begun at the end."""
    ordered = sorted(steps, key=lambda step: (step.wave is None, step.wave or 0, step.host))
    return [HostStepOut.of(step, record.standing.hosts.get(step.host, "")) for step in ordered]


class WaveOut(BaseModel):
    """Hosts that would be closed together."""

    hosts: list[str]
    start_s: float = Field(description="Forecast, in seconds from now.")
    drained_s: float = Field(description="When they would be empty.")
    open_s: float = Field(description="When they would accept VMs again.")

    @classmethod
    def of(cls, wave: Wave) -> WaveOut:
        """From the plan."""
        return cls(hosts=list(wave.hosts), start_s=wave.start_s, drained_s=wave.drained_s, open_s=wave.open_s)
