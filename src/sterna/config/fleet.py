"""`[fleet]` of a controller's settings: what operations fill hosts with, and how much at once."""

from __future__ import annotations

from pydantic import Field

from sterna.config.section import Section


class FleetSettings(Section):
    """What operations such as `sterna drain` plan with. Give all controllers of a fleet the same. Single migrations
    are not limited by it: there the destination's agent judges."""

    vcpus_per_cpu: float = Field(default=16.0, gt=0, le=1024)
    """vCPUs that a host may run for each of its CPUs. The default suits VMs that are mostly idle."""
    kept_memory_mib: int = Field(default=512, ge=0)
    """Memory of each host that is not given to VMs, in MiB. The default is Nova's."""
    spare_hosts: int = Field(default=0, ge=0, le=1000)
    """N+1: so many of the largest hosts may fail, and the others keep room for their VMs. VMs that would need that
    room stay where they are."""
    preparing: int = Field(default=4, ge=1, le=64)
    """Migrations that a host prepares at once, besides those that copy."""
    domains: dict[str, list[str]] = Field(default_factory=dict)
    """Failure domains, such as racks: the name of each, and its hosts. The web UI shows hosts by them."""
