"""What `/v1` takes and answers about hosts and VMs.

Sizes are in bytes, rates in bytes/s, durations in ms or s, as the field's name says. A field that has not been
observed is null, never zero.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from sterna.controller.intents.audit import Findings
from sterna.controller.intents.declare_dead import Death
from sterna.controller.records.inventory import Listing
from sterna.controller.records.registry import Host
from sterna.domain.audit import Leftover
from sterna.domain.capabilities import dotted
from sterna.domain.model import Vm
from sterna.ports.bus import BusState
from sterna.ports.fleet import VmRecord

_VM_ID = "aaaaaaaa-0000-4000-8000-000000000001"
_ID = "11111111-1111-4111-8111-111111111111"


_NOT_FACTS = {"libvirt_version", "qemu_version", "maintenance", "reason", "reason_since", "fix", "bus_since"}
LONGEST_REASON = 255


class BusOut(BaseModel):
    """This controller's connection to the message bus."""

    connected: bool
    since: str = Field(description="ISO 8601 UTC: since when it has been connected or disconnected.")
    why: str | None = Field(description="Why it is not connected; null while it is.")

    @classmethod
    def of(cls, state: BusState) -> BusOut:
        """From the port's."""
        return cls(connected=state.connected, since=state.since.isoformat(), why=state.why or None)


class HostOut(BaseModel):
    """One host."""

    name: str = Field(examples=["host1"])
    host_uuid: str | None = Field(description="libvirt's host UUID; the name is pinned to it.")
    address: str | None = Field(examples=["10.0.0.1"])
    state: Literal["up", "degraded", "down", "dead"] = Field(
        description="`up`: VMs can be migrated from and to it. `degraded`: its agent runs, but libvirtd cannot be "
        "used or the journal cannot be written: see `reason`. `down`: no heartbeat from its agent. `dead`: "
        "declared "
        "dead by an operator, and no heartbeat since."
    )
    maintenance: bool = Field(description="True: it accepts no VMs. Its own VMs keep running.")
    maintenance_reason: str | None = Field(description="Why it is in maintenance, in the operator's words.")
    seen_at: str = Field(description="ISO 8601 UTC: time of the last heartbeat.")
    reason: str | None = Field(
        description="Why it is not up and since when, as far as this controller knows; null if it is up."
    )
    reason_since: str | None = Field(description="ISO 8601 UTC: since when it is not up; null if it is.")
    fix: str | None = Field(description="How to fix it; null if the host is up.")
    warning: str | None = Field(
        description="A problem that does not yet prevent the use of the host, such as a certificate that expires "
        "soon."
    )
    warning_fix: str | None = Field(description="How to fix it; null if there is no warning.")
    bus_since: str | None = Field(
        description="ISO 8601 UTC, the host's clock: since when its agent has been connected to the bus, as last "
        "seen."
    )
    declared_dead_at: str | None = Field(description="ISO 8601 UTC; null if it was not declared dead.")
    back_at: str | None = Field(description="ISO 8601 UTC: first heartbeat after it was declared dead.")
    agent_version: str | None = Field(description="Version of its agent; null if unknown.")
    libvirt_version: str | None = Field(examples=["11.3.0"])
    qemu_version: str | None = Field(examples=["10.0.2"])
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    disk_free_bytes: int | None
    cpus: int | None
    cpu_model: str

    @classmethod
    def of(cls, host: Host, bus: BusState) -> HostOut:
        """From the registry's view, and the state of the bus."""
        facts, trouble = host.facts, host.not_usable(bus)
        known = facts.model_dump(include=set(cls.model_fields) - _NOT_FACTS)
        if not host.described:
            known |= dict.fromkeys(known.keys() - {"name", "cpu_model"})
        return cls(
            **known,
            state=host.state,
            declared_dead_at=host.dead_at or None,
            back_at=host.back_at or None,
            maintenance=host.maintenance,
            maintenance_reason=host.maintenance_reason or None,
            seen_at=host.seen_at,
            reason=trouble.why if trouble else None,
            reason_since=trouble.since if trouble else None,
            fix=(trouble.fix or None) if trouble else None,
            warning=host.warning.why if host.warning else None,
            warning_fix=(host.warning.fix or None) if host.warning else None,
            bus_since=host.bus_since or None,
            agent_version=host.agent_version or None,
            libvirt_version=dotted(facts.libvirt_version) if host.described else None,
            qemu_version=dotted(facts.qemu_version) if host.described else None,
        )


_NEXT = Field(default=None, description="`cursor` of the next page; null on the last page.")


class HostsOut(BaseModel):
    """A page of the hosts that have ever sent a heartbeat."""

    hosts: list[HostOut]
    next_cursor: str | None = _NEXT
    bus: BusOut = Field(description="While it is disconnected, every host appears down to this controller.")
    beacons_refused: int = Field(
        description="Heartbeats refused since this controller started: from hosts that are not enrolled, or "
        "under another host's name."
    )
    insecure: str | None = Field(description="A warning if the bus does not authenticate senders; otherwise null.")


class HostPatch(BaseModel):
    """Changes to a host."""

    model_config = ConfigDict(extra="forbid")
    maintenance: bool = Field(strict=True)
    reason: str = Field(
        default="", max_length=LONGEST_REASON, description="Reason, shown while it is in maintenance."
    )


class PinIn(BaseModel):
    """The UUID to pin a host's name to."""

    model_config = ConfigDict(extra="forbid")
    host_uuid: UUID = Field(description="As shown by `virsh capabilities` on that host.")


class DeadIn(BaseModel):
    """An operator's declaration about a host."""

    model_config = ConfigDict(extra="forbid")
    fenced: bool = Field(strict=True, description="True: it is powered off and stays off.")


class PlannedOut(BaseModel):
    """What happens to one migration."""

    id: str = Field(examples=[_ID])
    vm: str = Field(examples=["web1"])
    host: str = Field(description="The host whose agent does it.", examples=["host2"])
    role: str = Field(description="Role of that host in the migration.", examples=["destination"])
    will: str = Field(examples=["take the guest over and end it as completed: the guest runs here"])


class DeathOut(BaseModel):
    """Effects of declaring a host dead."""

    host: str = Field(examples=["host1"])
    migrations: list[PlannedOut]
    silent_hosts: list[str] = Field(description="Hosts that did not answer; they are notified when they are back.")

    @classmethod
    def of(cls, death: Death) -> DeathOut:
        """From the controller's answer."""
        planned = [PlannedOut(**m.model_dump()) for m in death.migrations]
        return cls(host=death.host, migrations=planned, silent_hosts=list(death.silent))


class AuditIn(BaseModel):
    """Where to look for leftovers, and whether to remove them."""

    model_config = ConfigDict(extra="forbid")
    host: str | None = Field(default=None, min_length=1, max_length=255, description="Null: every host.")
    repair: bool = Field(default=False, strict=True, description="True: remove what is proven safe to remove.")


class AuditOut(BaseModel):
    """Resources that no open migration owns."""

    clean: bool = Field(description="There are no leftovers, or all of them have been removed.")
    leftovers: list[Leftover]
    silent_hosts: list[str] = Field(description="Hosts that could not be asked.")
    silent_reasons: dict[str, str] = Field(description="Why each of these could not be asked.")
    complete: bool = Field(description="True if all requested hosts answered. If not, `clean` is not proven.")
    hosts_asked: int = Field(description="How many hosts answered. If none did, `clean` proves nothing.")
    nova_hosts: list[str] = Field(description="Hosts that the Nova in `[nova]` manages as well.")
    nova_reason: str | None = Field(description="Why `nova_hosts` is unknown; null if it is known or without Nova.")

    @classmethod
    def of(cls, findings: Findings) -> AuditOut:
        """From the controller's answer."""
        return cls(
            clean=findings.clean,
            leftovers=list(findings.leftovers),
            silent_hosts=list(findings.silent),
            silent_reasons=findings.why,
            complete=findings.complete,
            hosts_asked=findings.asked,
            nova_hosts=list(findings.nova_hosts),
            nova_reason=findings.nova_why or None,
        )


class VmOut(BaseModel):
    """One VM, as its host has reported it."""

    uuid: str = Field(examples=[_VM_ID])
    name: str = Field(examples=["web1"])
    host: str = Field(examples=["host1"])
    state: str = Field(description="`unknown` while its host does not answer.", examples=["running"])
    memory_bytes: int | None
    vcpus: int | None
    task_state: Literal["migrating"] | None
    migration_id: str | None = Field(description="The migration that holds the VM.")
    observed_at: str | None = Field(
        description="ISO 8601 UTC: when its host reported its last change; null if it never did."
    )

    @classmethod
    def of(cls, vm: VmRecord) -> VmOut:
        """From the inventory's record."""
        known = vm.model_dump(exclude={"observed_at", "also"})
        return cls(**known, task_state="migrating" if vm.migration_id else None, observed_at=vm.observed_at or None)


class VmDetailOut(VmOut):
    """One VM with its disks and NICs."""

    details: Vm | None = Field(
        description="Description from its host's libvirt; null if the host cannot be asked now."
    )


class VmsOut(BaseModel):
    """A page of VMs."""

    vms: list[VmOut]
    next_cursor: str | None = _NEXT
    silent_hosts: list[str] = Field(description="Hosts that do not answer: their VMs are shown as last seen.")
    silent_reasons: dict[str, str] = Field(description="Why each of these does not answer.")
    complete: bool = Field(description="True if at least one host answers, and all that are not declared dead do.")

    @classmethod
    def of(cls, listing: Listing, next_cursor: str | None) -> VmsOut:
        """From the inventory's answer."""
        return cls(
            vms=[VmOut.of(v) for v in listing.vms],
            next_cursor=next_cursor,
            silent_hosts=list(listing.silent),
            silent_reasons=listing.why,
            complete=listing.complete,
        )


class HealthOut(BaseModel):
    """Health of a controller."""

    status: Literal["ok", "degraded", "no-host-up", "bus-lost"] = Field(
        description="`bus-lost`: without the message bus this controller can start nothing. `no-host-up`: it "
        "works, but no host can be used. `degraded`: it works, but some hosts cannot be used (not counting those "
        "declared dead): see `problems`."
    )
    version: str
    bus: BusOut
    hosts_up: int
    hosts_degraded: int = Field(description="Hosts whose agents run, but report that they cannot take part.")
    hosts_down: int = Field(description="Hosts whose agents send no heartbeats, including those declared dead.")
    problems: dict[str, str] = Field(description="Why each host that is not up cannot be used.")

    @classmethod
    def of(cls, away: list[Host], up: int, bus: BusState) -> HealthOut:
        """From the registry's view of the hosts that are not usable, and the number of the others."""
        states = [*(host.state for host in away), *(("up",) if up else ())]
        problems = {h.name: t.why for h in away if (t := h.not_usable(bus)) is not None}
        status: Literal["ok", "degraded", "no-host-up", "bus-lost"] = "ok"
        if not bus.connected:
            status = "bus-lost"
        elif "up" not in states:
            status = "no-host-up"
        elif "degraded" in states or "down" in states:
            status = "degraded"
        return cls(
            status=status,
            version=version("sterna"),
            bus=BusOut.of(bus),
            hosts_up=up,
            hosts_degraded=states.count("degraded"),
            hosts_down=states.count("down") + states.count("dead"),
            problems=problems,
        )

    def for_anybody(self) -> HealthOut:
        """Without what only users with the right to read may see."""
        bus = self.bus.model_copy(update={"why": None if self.bus.why is None else "see the controller's log"})
        return self.model_copy(update={"problems": {}, "bus": bus})
